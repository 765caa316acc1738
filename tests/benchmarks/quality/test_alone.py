import pytest
import torch

from benchmarks.quality.alone import Alone, folder
from benchmarks.quality.method import Batch, Routed, batch
from benchmarks.quality.methods import oracle
from benchmarks.quality.methods.likelihood import Best
from benchmarks.quality.rows import Held
from benchmarks.quality.tuning import few
from benchmarks.quality.world import World
from moehub.experts.packing import IGNORED
from moehub.router.gate import Shared
from moehub.router.route import Route
from tests.benchmarks.quality.conftest import same


def test_losses_are_those_of_a_forward(bench: World) -> None:
    """Each column is one expert's own loss, the last is the base's, and the first token has none."""
    held = bench.tune["law"]
    found = Alone(bench).nats(held)
    ids = held.rows[1].ids[None]
    for column, expert in enumerate([0, 1, 2, None]):
        with torch.no_grad():
            logits = bench.forward(ids, Shared(Route.fixed(expert, tokens=ids.numel(), experts=3, device=ids.device)))
        expected = -logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        same(found[1][1:, column], expected)
    assert not found[1][0].any()


def test_losses_are_kept(bench: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is read once, whoever asks for it again; another text of the same name is another."""
    held = bench.tune["code"]
    first = Alone(bench).nats(held)

    def forward(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("read again")

    monkeypatch.setattr(World, "forward", forward)
    again = Alone(bench).nats(held)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert list(folder(bench).glob("code-*.safetensors"))
    with pytest.raises(AssertionError, match="read again"):
        Alone(bench).nats(few(held, 1))


def test_evidence_stands_beside_its_token(bench: World) -> None:
    """Rows of a batch in any order get their own losses, and padding gets none."""
    alone, held = Alone(bench), bench.tune["math"]
    evidence = alone.evidence(batch(held, [1, 0]))
    for place, number in enumerate([1, 0]):
        size = len(held.rows[number].ids)
        same(evidence[place, :size], -alone.nats(held)[number])
        assert not evidence[place, size:].any()


def test_nobody_alone_beats_the_token_oracle(bench: World) -> None:
    """It is no worse than any expert, or the base, at any learned token."""
    best = Best(Alone(bench))
    for name in (*bench.names, "generic"):
        held = bench.test[name]
        found = best.answer(held)
        for entrant in (oracle.base(bench), *(_always(bench, expert) for expert in range(3))):
            for mine, theirs in zip(found.nats, entrant.answer(held).nats, strict=True):
                assert mine.shape == theirs.shape
                assert (mine <= theirs + 1e-4).all()
        assert sum(map(len, found.nats)) == sum(int((row.labels != IGNORED).sum()) for row in held.rows)


def _always(bench: World, expert: int) -> Routed:
    def gate(one: Batch) -> torch.Tensor:
        return oracle._only(torch.full_like(one.owners, expert), len(bench.names))

    return Routed(bench, gate)


def test_own_text(bench: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the owner reads its text best, the posterior of likelihoods finds it within a few tokens."""
    from benchmarks.quality.methods.likelihood import likelihood

    def nats(_: Alone, held: Held) -> tuple[torch.Tensor, ...]:
        return tuple(3.0 - torch.nn.functional.one_hot(owners, 4).float() for owners in held.owners)

    # Settings are chosen among random experts, of which none is right about anything.
    entrant = likelihood(bench)
    monkeypatch.setattr(Alone, "nats", nats)
    for name in bench.names:
        one = batch(bench.test[name], [0, 1])
        chosen = entrant.gate(one).argmax(-1)
        assert (chosen == one.owners)[:, 25 : int(one.mask.sum(-1).min())].all()
