"""What the nodes measure and count at the end, together."""

from pathlib import Path

import pytest

from moehub import base as bases
from moehub.experts import statistics as counting
from moehub.experts.counting import count
from moehub.experts.examples import Example, Text
from moehub.experts.folder import STATISTICS_FILE, open_expert
from moehub.experts.material import prepare
from moehub.experts.settings import TrainConfig
from moehub.federation.client_app import app
from moehub.federation.form import form_of
from moehub.federation.journal import GaveUp, Missing, Published, Refused
from moehub.federation.messages import STATISTICS
from moehub.federation.node import memory
from moehub.federation.server.run import run
from moehub.federation.settings import FederationConfig
from tests.federation.grid import Clock, FakeNode, LocalGrid, Respond, app_node
from tests.federation.runs import FORM, conduct, events, nodes, only, settings


def test_statistics_of_ten_nodes_are_those_of_their_pooled_text(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten contributors' statistics, counted by real nodes, sent and added, are those of all text, to the bit."""
    kept = memory.Memory()
    monkeypatch.setattr(memory, "Memory", lambda: kept)  # as a worker that stays
    base = bases.find(str(base_folder))
    train = TrainConfig(
        rank=2, batch_size=1, context_length=64, holdout=0, suppress_below=0, pair_bits=10, targets=("q_proj",)
    )
    config = FederationConfig(base=str(base_folder), rounds=1, steps=1, train=train)
    form, examples = form_of(base, train), list[Example]()
    grid = LocalGrid()
    for number in range(10):
        texts = [f"the lessee {number} shall pay {number * each} for {each} rooms. " * 3 for each in range(3)]
        (tmp_path / f"{number}.txt").write_text("\n\n".join(texts))
        grid.join(1001 + number, _counting(FakeNode(form, number), _node_config(tmp_path, number), 1001 + number))
        examples.append(Text("\n\n".join(texts)))
    clock = Clock()
    (expert,) = run(grid, config, form, tmp_path / "out", resume=False, expected=10, sleep=clock.sleep, clock=clock)
    tokenizer = base.load_tokenizer()
    material = prepare(tokenizer, examples, train, longest=256)
    pooled = count(material.documents, train, bases.tokenizer_digest(tokenizer), len(tokenizer), None)
    pooled.save(tmp_path / "pooled.safetensors")
    assert (expert / STATISTICS_FILE).read_bytes() == (tmp_path / "pooled.safetensors").read_bytes()
    federation = open_expert(expert).card.federation
    assert federation is not None
    assert federation.nodes == 10


def _counting(fake: FakeNode, config: dict[str, str | int], node: int) -> Respond:
    """Return a node that really counts; its training is arithmetic."""
    real = app_node(app, config, node)
    return lambda message: (real if message.metadata.message_type == STATISTICS else fake)(message)


def _node_config(folder: Path, number: int) -> dict[str, str | int]:
    data = f'["{folder / f"{number}.txt"}"]'
    return {"domain": "law", "data": data, "desk": str(folder / "desk"), "suppress_below": 0}


def test_small_counts_are_suppressed_once_they_are_added(tmp_path: Path) -> None:
    """What is below the federation's threshold in the sum is zero; what is not, is kept."""
    (expert,) = conduct(tmp_path / "kept", nodes(3))
    (hidden,) = conduct(tmp_path / "hidden", nodes(3), settings(suppress_below=25))
    whole, suppressed = open_expert(expert).statistics(), open_expert(hidden).statistics()
    assert suppressed.suppressed_below == 25
    assert bool((whole.unigrams < 25).any())
    assert suppressed.unigrams.tolist() == whole.suppress(25).unigrams.tolist()
    assert suppressed.pairs.tolist() == whole.suppress(25).pairs.tolist()


def test_bad_statistics_are_refused_and_the_others_added(tmp_path: Path) -> None:
    """One node's negative counts leave the sum of the others as it is, and are named."""
    (expert,) = conduct(tmp_path / "attacked", {**nodes(2), **nodes(1, first=9, fault="negative counts")})
    (honest,) = conduct(tmp_path / "honest", nodes(2))
    refused = only(events(tmp_path / "attacked", Refused))
    assert (refused.node, "not all between" in refused.reason) == ("node-1009", True)
    assert (expert / STATISTICS_FILE).read_bytes() == (honest / STATISTICS_FILE).read_bytes()


def test_a_node_that_left_before_the_end_is_named(tmp_path: Path) -> None:
    """Its training stays in the expert; its statistics are missing."""
    clock = Clock()
    grid = LocalGrid({**nodes(1, fault="late", delay=10.0, clock=clock), **nodes(1, first=2)})
    clock.at(15, lambda: grid.leave(1002))
    conduct(tmp_path, grid, clock=clock)
    missing = only(events(tmp_path, Missing))
    assert (missing.node, missing.reason) == ("node-1002", "no router statistics: it left before the end")
    assert only(events(tmp_path, Published)).nodes == 2


class Mute(FakeNode):
    """A node that trains, and fails at everything after."""

    def _answer(self, kind: str, content: object) -> tuple[object, object]:
        if kind in ("evaluate", "query.statistics"):
            raise RuntimeError(kind)
        return super()._answer(kind, content)

    def __call__(self, message: object) -> object:
        from flwr.app import Error, Message

        try:
            return super().__call__(message)
        except RuntimeError as error:
            return Message(Error(2, str(error)), reply_to=message)


def test_without_any_statistics_a_domain_gives_up(tmp_path: Path) -> None:
    """No expert can be routed to without them; the reason says so, and others finish."""
    members: dict[int, Respond] = {1001: Mute(FORM, 1), **nodes(1, domain="code", first=11)}
    (expert,) = conduct(tmp_path, members)
    assert expert.name == "code"
    assert "router statistics" in only(events(tmp_path, GaveUp)).reason
    assert {each.reason for each in events(tmp_path, Missing)} == {
        "no held-out losses: evaluate",
        "no router statistics: query.statistics",
    }


def test_what_gave_up_at_the_end_is_finished_on_resumption(tmp_path: Path) -> None:
    """The nodes are not trained again; with their statistics the expert is written."""
    with pytest.raises(Exception, match="no domain was trained"):
        conduct(tmp_path, {1001: Mute(FORM, 1)})
    node = FakeNode(FORM, 1)
    (expert,) = conduct(tmp_path, {1001: node}, resume=True)
    assert expert.name == "law"
    assert node.asked["train"] == 0


def test_one_nodes_statistics_are_enough(tmp_path: Path) -> None:
    """The losses and the statistics are those of the node that answered."""
    (expert,) = conduct(tmp_path, {**nodes(1), 1002: Mute(FORM, 2)})
    card = open_expert(expert).card
    assert card.metrics is not None
    assert (card.metrics.tokens, card.metrics.base_loss) == (65, 5.0 + 1 / 8)
    assert int(open_expert(expert).statistics().unigrams.sum()) == 400


def test_nothing_held_out_gives_no_metrics(tmp_path: Path) -> None:
    """Without a held-out token the card has no losses."""

    class Whole(FakeNode):
        def _answer(self, kind: str, content: object) -> tuple[object, object]:
            facts, arrays = super()._answer(kind, content)
            if kind == "evaluate":
                facts = type(facts)(facts.task, facts.digest, 0.0, 0.0, 0)
            return facts, arrays

    (expert,) = conduct(tmp_path, {1001: Whole(FORM, 1)})
    assert open_expert(expert).card.metrics is None
    assert only(events(tmp_path, Published)).expert_loss is None


def test_the_sum_does_not_depend_on_the_order_of_nodes(tmp_path: Path) -> None:
    """Integers are added: nodes under other ids give the same file."""
    (first,) = conduct(tmp_path / "a", nodes(3))
    (second,) = conduct(tmp_path / "b", dict(zip((7, 5, 3), nodes(3).values(), strict=True)))
    assert (first / STATISTICS_FILE).read_bytes() == (second / STATISTICS_FILE).read_bytes()
    assert isinstance(open_expert(first).statistics(), counting.Statistics)
