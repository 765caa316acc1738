"""What a training would do, without doing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub import base as bases
from moehub.card import check_name
from moehub.experts import adaptation, checkpoints, lineage
from moehub.experts.examples import Practice
from moehub.experts.folder import Expert
from moehub.experts.packing import IGNORED, Row
from moehub.experts.publication import check_place
from moehub.experts.rewards import Opener
from moehub.experts.settings import TrainConfig
from moehub.experts.stages import kinds
from moehub.experts.stages.text import TextStage


@dataclass(frozen=True)
class Preview:
    """The sizes of a training."""

    kind: str
    """The stage."""
    examples: int
    """To train on."""
    held_out: int
    """Examples to measure on."""
    left_out: int
    """Examples longer than the context, skipped or cut."""
    tokens: int
    """Of the training split: learned in one epoch of a text stage, read in others."""
    held_out_tokens: int
    """Of a text stage."""
    rows: int
    """Of a text stage."""
    context_length: int
    steps: int
    """Optimizer steps, on one process."""


def preview(
    base: bases.Base,
    domain: str,
    examples: Sequence[Practice],
    output: Path,
    config: TrainConfig,
    *,
    stage: str = kinds.AUTO,
    name: str | None = None,
    start: Expert | None = None,
    opener: Opener | None = None,
    overwrite: bool = False,
) -> Preview:
    """Return what `train` with these arguments would do; the base's weights are not loaded, nothing is written.

    Raises:
        MoehubError: whatever `train` would refuse before it starts.
    """
    check_name("domain", domain)
    check_name("name", name or domain)
    check_place(output, overwrite=overwrite)
    if start is not None:
        config = lineage.continued(config, start, base)
    with adaptation.quiet():
        longest = bases.context_length(base.load_config())
        made = kinds.make(stage, base.load_tokenizer(), examples, config, longest=longest, opener=opener)
        rows, held_out = (made.rows, made.held_out) if isinstance(made, TextStage) else ([], [])
        settings = made.arguments(checkpoints.working_folder(output))
    return Preview(
        kind=made.kind,
        examples=made.examples,
        held_out=made.held_out_examples,
        left_out=len(made.left_out),
        tokens=_learned(rows) if rows else sum(len(one.ids) for one in made.documents),
        held_out_tokens=_learned(held_out),
        rows=len(rows),
        context_length=made.context_length,
        steps=made.steps(settings.world_size),
    )


def _learned(rows: Sequence[Row]) -> int:
    return sum(int((row.labels != IGNORED).sum()) for row in rows)
