"""The card of an exported model: what it is, how much of the MoE arrived, and what did not."""

from collections.abc import Sequence

from moehub.hub.model_card import render_export
from moehub.merge.exporting.parity import STEPS, Parity
from moehub.merge.exporting.planned import Planned
from moehub.merge.load import Parts
from moehub.merge.lock import LOCK_FILE, read_lock


def render(parts: Parts, name: str, planned: Planned, notes: Sequence[str], parity: Sequence[Parity] | None) -> str:
    """Return the README.md of what was exported from a MoE."""
    sources = {one.name: one.source for one in read_lock(parts.folder / LOCK_FILE).experts}
    experts = [(one.card, sources[one.name]) for one in parts.experts if one.name in planned.experts]
    body = "\n".join(
        [
            f"\nExported from a mixture of LoRA experts with `moehub export --format {name}`: {planned.kind}.\n",
            *_list("What could not be carried", planned.lost),
            *_parity(parity),
            *_list("Notes", notes),
        ]
    )
    return render_export(
        base=parts.config.base["reference"],
        experts=experts,
        library=planned.library,
        relation=planned.relation,
        tags=planned.tags,
        body=body,
    )


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {sentence}" for sentence in sentences), ""] if sentences else []


def _parity(parity: Sequence[Parity] | None) -> list[str]:
    if parity is None:
        return ["## Parity\n", "Not measured.\n"]
    lines = [
        "## Parity with the MoE\n",
        f"Both in float32 on {parity[0].prompts} prompts.\n",
        f"| | compared with | largest logit difference | mean | same next token | same {STEPS} tokens |",
        "|---|---|--:|--:|--:|--:|",
        *(
            f"| {one.name} | {against(one)} | {one.largest:.2e} | {one.mean:.2e} "
            f"| {one.next_token:.1%} | {one.continuations:.1%} |"
            for one in parity
        ),
        "",
    ]
    measured = [(one, text, both) for one in parity for text, both in one.perplexities.items()]
    if measured:
        lines += ["| | text | perplexity of the MoE | of the export | tokens |", "|---|---|--:|--:|--:|"]
        lines += [
            f"| {one.name} | {text} | {both.moe:.3f} | {both.exported:.3f} | {both.tokens:,} |"
            for one, text, both in measured
        ]
        lines.append("")
    return lines


def against(parity: Parity) -> str:
    """Return what an exported model was compared with."""
    return "the MoE" if parity.forced is None else f"the MoE sent to {parity.forced}"
