"""The verb: export a MoE, say how much of it arrived, and write that into the card."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.card import README
from moehub.errors import MergeError
from moehub.merge.exporting.card import render
from moehub.merge.exporting.parity import Parity, compare
from moehub.merge.exporting.planned import Planned, Target
from moehub.merge.exporting.texts import Texts, rows_of
from moehub.merge.load import Parts, load_parts


@dataclass(frozen=True)
class Prepared:
    """A MoE, a format, and what will come of them."""

    parts: Parts
    target: Target
    planned: Planned
    texts: Texts
    """What both are compared on."""


@dataclass(frozen=True)
class Report:
    """What was exported, and how much of the MoE arrived."""

    planned: Planned
    notes: tuple[str, ...]
    """What there is to say."""
    parity: list[Parity] | None
    """None where nothing was compared."""


def prepare(moe: str, target: Target, *, base: str | None, texts: Texts) -> Prepared:
    """Return what an export will be; nothing is written.

    Args:
        moe: a folder or a hub's repo.
        target: the format.
        base: where the base is, if not where the MoE says.
        texts: what the MoE and the exported model are compared on.

    Raises:
        MoehubError: the MoE, its base or a text cannot be used, or the format cannot hold the MoE.
    """
    parts = load_parts(moe, base=base, hub_options={})
    return Prepared(parts, target, target.plan(parts), texts)


def export(prepared: Prepared, output: Path, *, with_parity: bool = True) -> Report:
    """Write what was prepared to `output`, whole or not at all.

    Args:
        prepared: what to write.
        output: a folder that does not exist or is empty.
        with_parity: load the MoE and what was exported, and compare them; needs the memory of both in float32.

    Raises:
        MergeError: something stands at `output`, or there is no room for it.
        MoehubError: the export failed.
    """
    parts, planned = prepared.parts, prepared.planned
    require_room(output, planned.size)
    texts = rows_of(parts.base, prepared.texts)
    with files.new_folder(output) as folder:
        said = planned.write(folder)
        parity = compare(parts, planned.twins, folder, texts) if with_parity else None
        said += planned.finish(folder)
        report = Report(planned, (*planned.notes, *said), parity)
        files.write_text(folder / README, render(parts, prepared.target.name, planned, report.notes, parity))
    return report


def require_room(output: Path, size: int) -> None:
    """Refuse to write over anything, and to fill a disk.

    Raises:
        MergeError: something stands at `output`, or less than `size` bytes are free there.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise MergeError(f"{output} exists and is not empty: choose another folder, or move it away")
    there = next(folder for folder in output.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < size:
        raise MergeError(
            f"the weights take {size / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB left: "
            "free some space, or choose another --output"
        )
