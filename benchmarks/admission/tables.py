"""The tables of the admission gate."""

import statistics as stats
from collections import Counter
from collections.abc import Sequence

from benchmarks.admission.tasks import Seen, Trained, Tried
from benchmarks.federation import where
from moehub.admission.policy import Policy
from moehub.admission.registry import registered


def section(
    trained: Sequence[Trained],
    good: int,
    calibration: Sequence[Seen],
    held_out: Sequence[Seen],
    rescaled: Sequence[Seen],
    tried: Sequence[Tried],
) -> str:
    """Return everything as Markdown."""
    who = (
        f"{len(trained)} experts were trained; the {good} that gained at least 1 % on what their own training held out "
        "are the good ones. Thresholds were chosen on experts of earlier runs of the same recipes and texts, so the "
        "second half is not wholly unseen."
    )
    return "\n\n".join(
        [
            f"`python -m benchmarks.admission --write`. {where()}",
            who,
            _good({"first half": calibration, "second half": held_out, "all, rescaled, in 16 bits": rescaled}),
            _attacks(tried),
            "What was measured of the first half of the good experts, and the threshold:",
            _thresholds(calibration),
            "Milliseconds for each check, one thread; checks under .05 ms are left out:",
            _costs([*calibration, *held_out]),
        ]
    )


def _good(halves: dict[str, Sequence[Seen]]) -> str:
    rows = ["| good experts | seen | refused | % | codes |", "|---|---:|---:|---:|---|"]
    for name, seen in halves.items():
        refused = [one for one in seen if not one.verdict.admitted]
        codes = Counter(refusal.code for one in refused for refusal in one.verdict.refusals)
        rows.append(
            f"| {name} | {len(seen)} | {len(refused)} | {_percent(len(refused), len(seen))} | {_counted(codes)} |"
        )
    return "\n".join(rows)


def _attacks(tried: Sequence[Tried]) -> str:
    steps = {check.code: check.step for check in registered()}
    rows = [
        "| attacks, by step of the check meant | tried | refused | % | by that check |",
        "|---|---:|---:|---:|---:|",
    ]
    for step in sorted({steps[one.code] for one in tried}):
        mine = [one for one in tried if steps[one.code] == step]
        rows.append(f"| {step} | {_row(mine)} |")
    rows.append(f"| all | {_row(tried)} |")
    missed = Counter(f"{one.attack} ({one.code})" for one in tried if not one.refusals)
    kinds = len({one.attack for one in tried})
    always = kinds - len({one.attack for one in tried if not one.refusals})
    said = f"Of {kinds} attacks, {always} were refused whenever they were tried."
    return "\n".join(rows) + f"\n\n{said} Missed: {_counted(missed)}."


def _row(tried: Sequence[Tried]) -> str:
    refused, meant = sum(bool(one.refusals) for one in tried), sum(one.code in one.refusals for one in tried)
    return f"{len(tried)} | {refused} | {_percent(refused, len(tried))} | {_percent(meant, len(tried))}"


def _thresholds(seen: Sequence[Seen]) -> str:
    policy = Policy()
    rows = ["| threshold | is | median | 5 % | 95 % | least | most |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name in sorted({name for one in seen for name in one.values}):
        values = sorted(one.values[name] for one in seen if name in one.values)
        cells = [
            getattr(policy, name),
            stats.median(values),
            _at(values, 0.05),
            _at(values, 0.95),
            values[0],
            values[-1],
        ]
        rows.append(f"| {name} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")
    return "\n".join(rows)


def _costs(seen: Sequence[Seen]) -> str:
    rows = ["| check | step | median | 5 % | 95 % |", "|---|---:|---:|---:|---:|"]
    total = sorted(1e3 * sum(one.verdict.seconds.values()) for one in seen)
    for check in registered():
        spent = sorted(1e3 * one.verdict.seconds[check.code] for one in seen if check.code in one.verdict.seconds)
        if spent and stats.median(spent) >= 0.05:
            rows.append(f"| {check.code} | {check.step} | {_spread(spent)} |")
    rows.append(f"| all | | {_spread(total)} |")
    return "\n".join(rows)


def _spread(values: Sequence[float]) -> str:
    return f"{stats.median(values):.2f} | {_at(values, 0.05):.2f} | {_at(values, 0.95):.2f}"


def _at(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f}"


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"
