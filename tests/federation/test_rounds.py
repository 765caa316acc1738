"""Names of tasks, outliers, and what reaches the aggregation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moehub.federation.aggregation import Aggregate, Update, aggregate
from moehub.federation.journal import Aggregated, Missing, Refused, RoundBegan
from moehub.federation.messages import StatisticsTask
from moehub.federation.server.context import named
from moehub.federation.server.post import Letter, Post
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import Weights, norm
from tests.federation.grid import Clock, FakeNode, LocalGrid
from tests.federation.runs import FORM, conduct, events, nodes, only, settings

TASK = StatisticsTask(task="", run="r", domain="law", base="b", revision="", digest="d", tokenizer="t", settings="{}")


def test_equal_tasks_have_equal_names_and_others_have_others() -> None:
    """A name is 64 hexadecimal digits of what is asked, of whom, with which weights."""
    name = named(TASK, node="1").task
    assert len(bytes.fromhex(name)) == 32
    assert named(TASK, node="1") == named(TASK, node="1")
    others = [
        named(TASK, node="2"),
        named(TASK, node="1", weights="w"),
        *(
            named(dataclasses.replace(TASK, **{each.name: "other"}), node="1")
            for each in dataclasses.fields(TASK)
            if each.name != "task"
        ),
    ]
    assert len({name, *(each.task for each in others)}) == 1 + len(others)


def test_a_name_does_not_depend_on_the_name_before() -> None:
    """Naming a task again changes nothing."""
    once = named(TASK, node="1")
    assert named(dataclasses.replace(once, task=""), node="1") == once


class Watched:
    """The aggregation, and what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[str], list[int]]] = []

    def __call__(
        self,
        settings: FederationConfig,
        start: Weights,
        updates: Sequence[Update],
        *,
        round: int,  # noqa: A002 (the aggregation's own word)
    ) -> Aggregate:
        self.calls.append((round, [each.node for each in updates], [each.tokens for each in updates]))
        return aggregate(settings, start, updates, round=round)


def test_the_aggregation_gets_the_replies_of_one_round_and_domain(tmp_path: Path) -> None:
    """Labels and tokens of the nodes that answered, once for each domain and round."""
    watched = Watched()
    conduct(tmp_path, {**nodes(2), **nodes(1, domain="code", first=11)}, aggregation=watched)
    assert watched.calls == [
        (1, ["node-1011"], [27]),
        (1, ["node-1001", "node-1002"], [17, 18]),
        (2, ["node-1011"], [27]),
        (2, ["node-1001", "node-1002"], [17, 18]),
    ]


def test_replies_are_read_from_disk_only_when_the_aggregation_asks(tmp_path: Path) -> None:
    """What it loads is what the node sent."""
    loaded: list[Any] = []

    def lazy(config: FederationConfig, start: Weights, updates: Sequence[Update], **options: Any) -> Aggregate:
        assert len(list((tmp_path / "replies").iterdir())) == len(updates)
        loaded.append({name: values.shape for name, values in updates[0].load().items()})
        return aggregate(config, start, updates, **options)

    conduct(tmp_path, nodes(2), settings(rounds=1), aggregation=lazy)
    assert loaded == [{name: shape for name, shape in FORM.shapes(2).items() if "lora_B" in name}]


def test_an_outlier_is_aggregated_without(tmp_path: Path) -> None:
    """It never reaches the aggregation, which it could make overflow."""
    watched = Watched()
    conduct(
        tmp_path,
        {**nodes(3), **nodes(1, first=9, fault="100x norms", scale=1.0)},
        settings(rounds=1),
        aggregation=watched,
    )
    assert [labels for _, labels, _ in watched.calls] == [["node-1001", "node-1002", "node-1003"]]
    assert [each.node for each in events(tmp_path, Refused)] == ["node-1009"]


def test_with_noise_nobody_is_refused_for_a_norm(tmp_path: Path) -> None:
    """It is clipped to the fixed norm: who is left out must not depend on what the others sent."""
    huge = nodes(1, first=9, fault="100x norms", scale=1.0)
    conduct(tmp_path, {**nodes(3), **huge}, settings(rounds=1, noise=1.0))
    assert events(tmp_path, Refused) == []
    aggregated = only(events(tmp_path, Aggregated))
    assert (aggregated.nodes, "node-1009" in aggregated.clipped) == (4, True)


def test_outliers_do_not_count_towards_the_quorum(tmp_path: Path) -> None:
    """Where every node is needed, the round is tried again without the one whose norm is absurd."""
    outlier = FakeNode(FORM, 9, fault="100x norms", scale=1.0)
    conduct(tmp_path, {**nodes(3), 1009: outlier}, settings(rounds=1, quorum=1.0))
    assert [each.domains["law"] for each in events(tmp_path, RoundBegan)] == [4, 3]
    assert outlier.asked["train"] == 1


def test_larger_changes_that_are_not_absurd_are_clipped(tmp_path: Path) -> None:
    """Up to ten times the median is a matter of the aggregation's clipping, and named there."""
    conduct(tmp_path, {**nodes(3), **nodes(1, first=9, scale=0.5)}, settings(rounds=1))
    assert events(tmp_path, Refused) == []
    assert "node-1009" in only(events(tmp_path, Aggregated)).clipped


def test_with_two_replies_nobody_is_an_outlier(tmp_path: Path) -> None:
    """A median of two says nothing about either."""
    conduct(tmp_path, {**nodes(1), **nodes(1, first=9, scale=50.0)}, settings(rounds=1))
    assert events(tmp_path, Refused) == []


def test_each_round_begins_where_the_last_one_ended(tmp_path: Path) -> None:
    """What is sent in round two is the aggregate of round one."""
    starts: list[float] = []

    def watch(config: FederationConfig, start: Weights, updates: Sequence[Update], **options: Any) -> Aggregate:
        starts.append(norm(start))
        found = aggregate(config, start, updates, **options)
        starts.append(norm(found.weights))
        return found

    conduct(tmp_path, nodes(2), settings(rounds=3), aggregation=watch)
    first, one, again_one, two, again_two, three = starts
    assert (first, one, two) == (0.0, again_one, again_two)
    assert three != two != one != first


@pytest.mark.parametrize(("quorum", "answers", "completes"), [(0.5, 2, True), (0.5, 1, False), (0.75, 3, True)])
def test_the_quorum_is_a_share_of_the_nodes_that_are_asked(
    tmp_path: Path, quorum: float, answers: int, completes: bool
) -> None:
    """Of four nodes, half are two and three quarters are three."""
    grid = {**nodes(answers), **nodes(4 - answers, first=5, fault="silent"), **nodes(1, domain="code", first=11)}
    experts = conduct(tmp_path, grid, settings(quorum=quorum, retries=0))
    assert ("law" in [path.name for path in experts]) == completes


def test_a_domain_whose_nodes_have_all_left_waits_for_them(tmp_path: Path) -> None:
    """It waits for up to `wait` seconds before it asks nobody; who comes back in time takes part."""
    clock, node = Clock(), FakeNode(FORM, 1)
    grid = LocalGrid({1001: node})
    real = aggregate

    def leave(*arguments: Any, **options: Any) -> Aggregate:
        if options["round"] == 1:
            grid.leave(1001)
            clock.at(clock.now + 30, lambda: grid.join(1001, node))
        return real(*arguments, **options)

    conduct(tmp_path, grid, clock=clock, aggregation=leave)
    assert [each.domains for each in events(tmp_path, RoundBegan)] == [{"law": 1}, {"law": 1}]
    assert 30 <= clock.now < 40


class Forger(FakeNode):
    """A node whose reply says that it comes from another node."""

    def __call__(self, message: Any) -> Any:
        reply = super().__call__(message)
        if message.metadata.message_type == "train" and reply is not None:
            reply.metadata.__dict__["_src_node_id"] = 1001
        return reply


def test_nobody_answers_for_somebody_else(tmp_path: Path) -> None:
    """A reply that comes from another node than the one that was asked is none."""
    conduct(tmp_path, {**nodes(1), 1002: Forger(FORM, 2)}, settings(rounds=1))
    assert only(events(tmp_path, Missing)).reason == "node 1001 answered in its place"
    assert only(events(tmp_path, Aggregated)).nodes == 1


def test_a_letter_to_a_node_that_is_gone_is_answered_at_once() -> None:
    """Nobody waits for a node that left before it could be asked."""
    clock = Clock()
    post = Post(LocalGrid(), clock.sleep, clock)
    (answer,) = post.ask([Letter(7, "query.statistics", TASK)], 100.0, idle=set)
    assert (answer.content, answer.reason, clock.now) == (None, "it left before it could be asked", 0.0)


def test_flowers_refusals_are_sentences() -> None:
    """A run that was stopped, and a request that the SuperLink refuses, name the logs and the way on."""
    import httpx
    from flwr.supercore.run import RunNotRunningException

    from moehub.errors import FederationError

    class Ended(LocalGrid):
        def get_node_ids(self) -> Any:
            raise RunNotRunningException

    class Refusing(LocalGrid):
        def get_node_ids(self) -> Any:
            raise httpx.HTTPStatusError("413\nToo Large", request=None, response=None)  # type: ignore[arg-type]

    with pytest.raises(FederationError, match=r"Flower has ended the run: go on .* --resume"):
        Post(Ended()).online()
    with pytest.raises(FederationError, match=r"refuses a request of the server \(413 Too Large\)"):
        Post(Refusing()).online()
