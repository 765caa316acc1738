"""What each contributor is worth to a MoE: what is routed to its expert, and what is lost without it.

Leaving an expert out is exact, because a gate's columns do not know each other: the MoE without it is the one that
`moehub merge --remove` makes (`MoehubForCausalLM.without`). Nothing is trained, and nothing is written.

Neither number alone says what an expert is worth. A share of the routed weight says where the gate sends the text, not
that the text is the better for it. The loss without an expert says what only that expert brings: of two that know the
same, each can go without a loss, because the other takes over. The losses without one expert each therefore add up to
no whole; and what an expert does alone is the third number.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import plots
from moehub.evaluation import Score, evaluate
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.packing import Row
from moehub.models import Opened
from moehub.router.method import NULL

NEITHER_ALONE = (
    "Neither alone says what an expert is worth: text may be routed to it where it helps nothing, and of two that know "
    "the same, each can go without a loss, because the other takes over."
)
"""What everybody is told who sees both numbers."""
OnStep = Callable[[str], None]
"""Called with what was measured, after each text."""


@dataclass(frozen=True)
class Worth:
    """One expert of a MoE on a text."""

    share: float
    """Mean gate weight of the expert over all tokens."""
    loss_without: float
    """Of the MoE without the expert, nats per token."""
    loss_alone: float | None = None
    """Of the MoE with every token sent to the expert, nats per token; None where it was not measured."""


@dataclass(frozen=True)
class Account:
    """A MoE on a text, or on several together, and what each of its experts has to do with it."""

    tokens: int
    """Learned tokens: losses are means over them."""
    read: int
    """All tokens: shares are means over them."""
    loss: float
    """Of the MoE, nats per token."""
    base_loss: float
    """Of its base, nats per token."""
    null_share: float
    """Mean gate weight of the null expert, or of nobody."""
    experts: Mapping[str, Worth]

    @property
    def gain(self) -> float:
        """What the MoE gains over its base, nats per token."""
        return self.base_loss - self.loss

    def helps(self, name: str) -> float:
        """Return what the MoE loses without an expert, nats per token; below 0 where it does better without."""
        return self.experts[name].loss_without - self.loss

    def share_of_gain(self, name: str) -> float | None:
        """Return which share of the gain is lost without an expert; None where the MoE gains nothing."""
        return self.helps(name) / self.gain if self.gain > 0 else None

    def gain_alone(self, name: str) -> float | None:
        """Return what the expert by itself gains over the base, nats per token; None where it was not measured."""
        loss = self.experts[name].loss_alone
        return None if loss is None else self.base_loss - loss

    def to_dict(self) -> dict[str, Any]:
        """Return everything, what is derived too, as JSON has it."""
        return {
            "tokens": self.tokens,
            "loss": self.loss,
            "base_loss": self.base_loss,
            "gain": self.gain,
            "null_share": self.null_share,
            "experts": {
                name: {
                    "share": worth.share,
                    "loss_without": worth.loss_without,
                    "helps": self.helps(name),
                    "share_of_gain": self.share_of_gain(name),
                    "loss_alone": worth.loss_alone,
                    "gain_alone": self.gain_alone(name),
                }
                for name, worth in self.experts.items()
            },
        }


def pooled(accounts: Sequence[Account]) -> Account:
    """Return the account of several texts together, in which every token weighs the same; of at least one."""
    tokens = [one.tokens for one in accounts]
    read = [one.read for one in accounts]

    def worth(name: str) -> Worth:
        each = [one.experts[name] for one in accounts]
        alone = [one.loss_alone for one in each if one.loss_alone is not None]
        return Worth(
            _mean([one.share for one in each], read),
            _mean([one.loss_without for one in each], tokens),
            _mean(alone, tokens) if len(alone) == len(each) else None,
        )

    return Account(
        sum(tokens),
        sum(read),
        _mean([one.loss for one in accounts], tokens),
        _mean([one.base_loss for one in accounts], tokens),
        _mean([one.null_share for one in accounts], read),
        {name: worth(name) for name in accounts[0].experts},
    )


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def steps(names: Sequence[str], texts: Mapping[str, Sequence[Row]], *, alone: bool) -> int:
    """Return how often `attribute` calls `on_step`: each is a pass over one text."""
    return len(texts) * (2 + len(names) * (1 + alone))


def attribute(
    opened: Opened, texts: Mapping[str, Sequence[Row]], *, alone: bool = False, on_step: OnStep
) -> dict[str, Account]:
    """Return the account of each text.

    Args:
        opened: a MoE.
        texts: name of a text → its rows.
        alone: whether each expert is measured by itself too.
        on_step: told after each text.

    Raises:
        MergeError: the MoE's folder is gone or was changed.
    """
    model = opened.model
    whole: dict[str, Score] = {}
    for text, rows in texts.items():
        whole[text] = evaluate(opened, rows)
        on_step(f"the MoE on {text}")

    def losses(changed: AbstractContextManager[None], said: str) -> dict[str, float]:
        found = {}
        with changed:
            for text, rows in texts.items():
                found[text], _ = evaluate_loss(model, rows)
                on_step(f"{said} on {text}")
        return found

    base = losses(model.forced(NULL), "the base")
    without = {name: losses(model.without(name), f"without {name}") for name in model.names}
    by_itself = {name: losses(model.forced(name), f"{name} alone") for name in model.names} if alone else {}
    return {
        text: _account(
            whole[text],
            base[text],
            read=sum(len(row.ids) for row in rows),
            without={name: of_texts[text] for name, of_texts in without.items()},
            alone={name: of_texts[text] for name, of_texts in by_itself.items()},
        )
        for text, rows in texts.items()
    }


def _account(
    whole: Score, base_loss: float, *, read: int, without: Mapping[str, float], alone: Mapping[str, float]
) -> Account:
    shares = whole.routing or {}
    worths = {name: Worth(shares[name], loss, alone.get(name)) for name, loss in without.items()}
    return Account(whole.tokens, read, whole.loss, base_loss, shares[NULL], worths)


def draw(file: Path, account: Account, *, title: str) -> None:
    """Write a figure of an account: the share of every expert, and beside it what is lost without it.

    Raises:
        ConfigError: the name ends neither in .png nor in .svg, or matplotlib is not installed.
    """
    names = ranked(account)
    worths = [account.experts[name] for name in names]
    helps = [round(account.helps(name), 4) + 0.0 for name in names]  # + 0.0: no bar to the left for −0.0
    size = 8.0, 1.5 + 0.24 * (len(names) + 1)
    with plots.figure(file, title=title, size=size, panels=2, note=NEITHER_ALONE) as (routed, lost):
        plots.bars(
            routed,
            [*names, NULL],
            [100 * share for share in (*(worth.share for worth in worths), account.null_share)],
            title="share of the routed weight, %",
            form="{:.1f}",
            colours=[*(plots.BLUE for _ in names), plots.GREY],
        )
        plots.bars(lost, [*names, NULL], [*helps, None], title="lost without it, nats per token", form="{:+.4f}")


def ranked(account: Account) -> list[str]:
    """Return the experts in the order of what is lost without them, the most first."""
    return sorted(account.experts, key=account.helps, reverse=True)
