"""What the demo found, as numbers (`report.json`) and as one page (`report.html`)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from moehub import files
from moehub.demo.corpora import GENERIC
from moehub.evaluation import Score, TracedToken
from moehub.palette import colours


@dataclass(frozen=True)
class Losses:
    """Held-out losses on one text, in nats per token."""

    base: float
    moe: float
    experts: dict[str, float]


@dataclass(frozen=True)
class Report:
    """The demo's numbers; `report.json` holds exactly these."""

    losses: dict[str, Losses]
    """For each text: the domains, generic prose, and the document that switches domains."""
    gain_kept: dict[str, float]
    """For each domain: 100 · (base - moe) / (base - own expert)."""
    generic_harm: float
    """By how many percent the MoE's loss on generic prose is above the base's."""
    routing: dict[str, dict[str, float]]
    """For each text: the share of its tokens that went to each expert, and to "null"."""
    add_seconds: float
    """What adding an expert to the MoE took."""
    remove_seconds: float
    """What taking it out again took."""
    hash_restored: bool
    """Whether the MoE was then, to the last byte, what it had been before."""
    seconds: dict[str, float]
    """For each step of the demo."""
    versions: dict[str, str]
    hardware: dict[str, str | int | float]

    def to_json(self) -> str:
        """Return the text of `report.json`."""
        return files.to_json(dataclasses.asdict(self))


def gain_kept(losses: Losses, own: str) -> float:
    """Return how much of its own expert's gain the MoE keeps on a domain, in percent; 0 where there was no gain."""
    gain = losses.base - losses.experts[own]
    return 100 * (losses.base - losses.moe) / gain if gain > 0 else 0.0


def generic_harm(losses: Losses) -> float:
    """Return by how many percent the MoE is worse than the base; negative where it is better."""
    return 100 * (losses.moe - losses.base) / losses.base


def summarise(
    scores: Mapping[str, Mapping[str, Score]],
    *,
    domains: Sequence[str],
    seconds: Mapping[str, float],
    hash_restored: bool,
    versions: Mapping[str, str],
    hardware: Mapping[str, str | int | float],
) -> Report:
    """Return the report on the scores of "base", "moe" and every expert: model → text → score."""
    losses = {
        text: Losses(
            base=score.loss,
            moe=scores["moe"][text].loss,
            experts={name: scores[name][text].loss for name in scores if name not in ("base", "moe")},
        )
        for text, score in scores["base"].items()
    }
    return Report(
        losses=losses,
        gain_kept={name: gain_kept(losses[name], name) for name in domains},
        generic_harm=generic_harm(losses[GENERIC]),
        routing={text: dict(scores["moe"][text].routing or {}) for text in losses},
        add_seconds=seconds["add"],
        remove_seconds=seconds["remove"],
        hash_restored=hash_restored,
        seconds=dict(seconds),
        versions=dict(versions),
        hardware=dict(hardware),
    )


def write(report: Report, passage: Sequence[TracedToken], *, html: Path, json: Path) -> None:
    """Write the page and, last, the numbers."""
    files.write_text(html, render(report, passage))
    files.write_text(json, report.to_json())


def render(report: Report, passage: Sequence[TracedToken]) -> str:
    """Return the report as one page of HTML that needs nothing but itself."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    experts = expert_names(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        passage=joined(passage),
        experts=experts,
        domains=list(report.gain_kept),
        number={name: number for number, name in enumerate(experts, 1)},
        colours=shades(report),
        total=sum(report.seconds.values()),
    )


def expert_names(report: Report) -> list[str]:
    """Return every expert of the report, in the order of their names."""
    return sorted({name for losses in report.losses.values() for name in losses.experts})


def shades(report: Report) -> dict[str, str]:
    """Return a colour for each expert, those first that the MoE holds, so that `moehub generate` shows the same."""
    merged = [name for name in expert_names(report) if name in report.routing[GENERIC]]
    return colours([*merged, *(name for name in expert_names(report) if name not in merged)])


def joined(passage: Sequence[TracedToken]) -> list[TracedToken]:
    """Return neighbouring tokens of one expert as one, with the mean of their weights."""
    runs: list[list[TracedToken]] = []
    for token in passage:
        if runs and runs[-1][0].expert == token.expert:
            runs[-1].append(token)
        else:
            runs.append([token])
    return [
        TracedToken("".join(token.text for token in run), run[0].expert, sum(token.weight for token in run) / len(run))
        for run in runs
    ]
