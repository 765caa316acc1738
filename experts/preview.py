"""What a training would do, without doing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub import base as bases
from moehub.card import check_name
from moehub.experts import adaptation, loop
from moehub.experts.examples import Example
from moehub.experts.material import prepare
from moehub.experts.packing import IGNORED, Row
from moehub.experts.publication import check_place
from moehub.experts.settings import TrainConfig


@dataclass(frozen=True)
class Preview:
    """The sizes of a training."""

    kind: str
    """`pretrain` for documents alone, else `sft`."""
    examples: int
    """To train on."""
    held_out: int
    """Examples to measure on."""
    left_out: int
    """Examples longer than the context, skipped or cut."""
    tokens: int
    """Learned in one epoch."""
    held_out_tokens: int
    rows: int
    context_length: int
    steps: int
    """Optimizer steps, on one process."""


def preview(
    base: bases.Base,
    domain: str,
    examples: Sequence[Example],
    output: Path,
    config: TrainConfig,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Preview:
    """Return what `train` with these arguments would do; the base's weights are not loaded, nothing is written.

    Raises:
        MoehubError: whatever `train` would refuse before it starts.
    """
    check_name("domain", domain)
    check_name("name", name or domain)
    check_place(output, overwrite=overwrite)
    with adaptation.quiet():
        longest = bases.context_length(base.load_config())
        material = prepare(base.load_tokenizer(), examples, config, longest=longest)
        rows, held_out = material.rows()
    return Preview(
        kind=material.kind,
        examples=len(material.documents),
        held_out=len(material.held_out),
        left_out=len(material.left_out),
        tokens=_learned(rows),
        held_out_tokens=_learned(held_out),
        rows=len(rows),
        context_length=material.context_length,
        steps=loop.steps(len(rows), config),
    )


def _learned(rows: Sequence[Row]) -> int:
    return sum(int((row.labels != IGNORED).sum()) for row in rows)
