"""A whole run in one process: who takes part, what comes out, and what happens when things go wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import load_file

from moehub.card import ADAPTER_WEIGHTS
from moehub.errors import FederationError
from moehub.experts.folder import open_expert
from moehub.federation import weights
from moehub.federation.journal import (
    Aggregated,
    Began,
    Ended,
    GaveUp,
    Joined,
    Missing,
    Published,
    Refused,
    Replied,
    RoundBegan,
)
from moehub.federation.server import run as running
from moehub.federation.server.context import named
from moehub.federation.server.roster import Registered
from tests.federation.grid import Clock, FakeNode, LocalGrid, changed
from tests.federation.runs import FORM, conduct, events, nodes, only, settings


def adapter(folder: Path) -> dict[str, Any]:
    """Return the weights of an expert."""
    return load_file(folder / ADAPTER_WEIGHTS)


def test_every_domain_gets_an_expert_of_its_own_nodes_alone(tmp_path: Path) -> None:
    """With other domains beside it, a domain's expert is what it is alone, to the bit."""
    together = conduct(tmp_path / "both", {**nodes(3), **nodes(2, domain="code", first=11)})
    (alone,) = conduct(tmp_path / "one", nodes(3))
    assert [path.name for path in together] == ["code", "law"]
    assert (together[1] / ADAPTER_WEIGHTS).read_bytes() == (alone / ADAPTER_WEIGHTS).read_bytes()
    assert (together[0] / ADAPTER_WEIGHTS).read_bytes() != (alone / ADAPTER_WEIGHTS).read_bytes()


def test_ffa_is_the_same_computation_done_centrally(tmp_path: Path) -> None:
    """Two rounds of ffa over three nodes are the token-weighted means of their changes, within 1e-6."""
    (expert,) = conduct(tmp_path, nodes(3), settings(clip=False))
    expected = weights.initial(FORM.shapes(2), 0)
    for number in (1, 2):
        start = weights.trained(expected, frozen_a=True)
        sums = {name: np.zeros(values.shape) for name, values in start.items()}
        for seed in (1, 2, 3):
            found = changed(start, FORM, 2, seed=(seed, number))
            for name in sums:
                sums[name] += (16 + seed) / (17 + 18 + 19) * found[name].astype(np.float64)
        expected |= {name: values.astype(np.float32) for name, values in sums.items()}
    got = adapter(expert)
    assert got.keys() == expected.keys()
    assert max(float(np.abs(got[name] - expected[name]).max()) for name in got) <= 1e-6


def test_product_at_full_rank_is_the_sum_of_products(tmp_path: Path) -> None:
    """At full rank, the product of the aggregated factors is the weighted mean of the nodes' products within 1e-6."""
    (expert,) = conduct(tmp_path, nodes(3), settings(aggregation="product", rank=8, clip=False, rounds=1))
    start, got = weights.initial(FORM.shapes(8), 0), adapter(expert)
    found = {seed: changed(start, FORM, 8, seed=(seed, 1)) for seed in (1, 2, 3)}
    for linear in FORM.linears:
        expected = sum(
            (16 + seed) / 54 * each[linear + weights.B].astype(float) @ each[linear + weights.A].astype(float)
            for seed, each in found.items()
        )
        product = got[linear + weights.B].astype(float) @ got[linear + weights.A].astype(float)
        assert float(np.abs(product - expected).max()) <= 1e-6


def test_the_card_says_what_went_into_the_expert(tmp_path: Path) -> None:
    """Nodes, rounds, tokens, steps, examples, losses over all held-out tokens, and names of those who agreed."""
    (expert,) = conduct(tmp_path, {**nodes(2), **nodes(1, first=3, name="Ada")})
    card = open_expert(expert).card
    assert card.federation is not None
    assert card.metrics is not None
    assert (card.federation.nodes, card.federation.rounds, card.federation.aggregation) == (3, 2, "ffa")
    assert card.federation.contributors == ("Ada",)
    stage = card.stages[0]
    assert (stage.kind, stage.tokens, stage.steps, stage.examples) == ("pretrain", 2 * (17 + 18 + 19), 8, 36)
    held_out = {seed: 64 + seed for seed in (1, 2, 3)}
    expected = sum((5.0 + seed / 8) * tokens for seed, tokens in held_out.items()) / sum(held_out.values())
    assert card.metrics.tokens == sum(held_out.values())
    assert card.metrics.base_loss == pytest.approx(expected, abs=1e-12)


def test_the_journal_tells_the_whole_run(tmp_path: Path) -> None:
    """Began, joined, each round with its replies and bytes, the expert, the end."""
    (expert,) = conduct(tmp_path, nodes(2))
    assert only(events(tmp_path, Began)).rounds == 2
    assert sorted(each.node for each in events(tmp_path, Joined)) == ["node-1001", "node-1002"]
    assert [(each.round, each.domains) for each in events(tmp_path, RoundBegan)] == [(1, {"law": 2}), (2, {"law": 2})]
    size = weights.size(weights.trained(weights.initial(FORM.shapes(2), 0), frozen_a=True))
    assert {(each.sent, each.received) for each in events(tmp_path, Replied)} == {(size, size)}
    assert [(each.round, each.nodes, each.sent) for each in events(tmp_path, Aggregated)] == [
        (1, 2, 2 * size),
        (2, 2, 2 * size),
    ]
    assert only(events(tmp_path, Published)).folder == str(expert)
    assert only(events(tmp_path, Ended)).experts == 1


def test_each_node_is_asked_once_in_a_round_and_with_the_same_task_by_name(tmp_path: Path) -> None:
    """Names of tasks differ between nodes and rounds, and every node is described once."""
    members = nodes(2)
    conduct(tmp_path, members)
    asked = [node.asked for node in members.values() if isinstance(node, FakeNode)]
    assert [dict(each) for each in asked] == [
        {"query.describe": 1, "train": 2, "evaluate": 1, "query.statistics": 1} for _ in range(2)
    ]
    tasks = [task.task for node in members.values() if isinstance(node, FakeNode) for task in node.tasks]
    assert len(set(tasks)) == 4
    first = members[1001]
    assert isinstance(first, FakeNode)
    sent = weights.digest(weights.trained(weights.initial(FORM.shapes(2), 0), frozen_a=True))
    assert first.tasks[0] == named(replace(first.tasks[0], task=""), node="1001", weights=sent)


def test_replies_are_fetched_a_few_at_a_time(tmp_path: Path) -> None:
    """However many nodes answer at once, at most a handful of replies are in memory."""
    grid = LocalGrid(nodes(20))
    conduct(tmp_path, grid, settings(rounds=1))
    assert grid.held <= 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nan", "not finite"),
        ("wrong shapes", "expected float32 of"),
        ("other names", "is unknown"),
        ("float64", "float64"),
        ("negative tokens", "tokens is -5"),
        ("other task", "its task is"),
        ("base changed", "its base has digest"),
        ("nan loss", "its loss is nan"),
        ("100x norms", "more than 10 times the median"),
    ],
)
def test_a_bad_reply_is_refused_with_its_reason_and_leaves_the_others_as_they_are(
    tmp_path: Path, fault: str, reason: str
) -> None:
    """The expert is what the honest nodes alone make of it, to the bit; the journal names the node and the fault."""
    (expert,) = conduct(tmp_path / "attacked", {**nodes(3), **nodes(1, first=9, fault=fault, scale=1.0)})
    (honest,) = conduct(tmp_path / "honest", nodes(3))
    refused = events(tmp_path / "attacked", Refused)
    assert {(each.node, each.domain) for each in refused} == {("node-1009", "law")}
    assert [each.round for each in refused] == [1, 2]
    assert all(reason in each.reason for each in refused), refused
    assert (expert / ADAPTER_WEIGHTS).read_bytes() == (honest / ADAPTER_WEIGHTS).read_bytes()
    assert only(events(tmp_path / "attacked", Published)).nodes == 3


def test_a_node_with_another_base_takes_no_part(tmp_path: Path) -> None:
    """It is refused before the first round, and never asked to train."""
    stranger = FakeNode(FORM, 9, fault="other base")
    conduct(tmp_path, {**nodes(2), 1009: stranger})
    assert "its base has digest" in only(events(tmp_path, Refused)).reason
    assert dict(stranger.asked) == {"query.describe": 1}


def test_a_silent_node_is_left_out_at_the_deadline_and_named(tmp_path: Path) -> None:
    """The round waits until the deadline, goes on without the node, and says so; next round it is asked again."""
    clock = Clock()
    conduct(tmp_path, {**nodes(3), **nodes(1, first=9, fault="silent")}, clock=clock)
    missing = events(tmp_path, Missing)
    assert [(each.round, each.node) for each in missing] == [(1, "node-1009"), (2, "node-1009")]
    assert missing[0].reason == "no reply within 100 s"
    assert 200 <= clock.now <= 210


def test_a_late_node_within_the_deadline_is_waited_for(tmp_path: Path) -> None:
    """A node that takes 40 s takes part in both rounds."""
    clock = Clock()
    conduct(tmp_path, {**nodes(1), **nodes(1, first=2, fault="late", delay=40.0, clock=clock)}, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]
    assert events(tmp_path, Missing) == []


def test_a_failing_node_is_asked_once_more_and_then_named(tmp_path: Path) -> None:
    """An error reply is one line in the journal, after two tries in each round."""
    failing = FakeNode(FORM, 9, fault="error")
    conduct(tmp_path, {**nodes(2), 1009: failing})
    assert [each.reason for each in events(tmp_path, Missing)] == ["there is no text", "there is no text"]
    assert failing.asked["train"] == 4


def test_a_node_that_fails_once_takes_part(tmp_path: Path) -> None:
    """Whose ClientApp died is asked the same again in the same round."""
    node = FakeNode(FORM, 2, fault="error")
    original = node._answer

    def mended(kind: str, content: Any) -> Any:
        return original(kind, content)

    def respond(message: Any) -> Any:
        reply = node(message)
        if message.metadata.message_type == "train":
            node.fault = ""
        return reply

    node._answer = mended  # type: ignore[method-assign]
    conduct(tmp_path, {**nodes(1), 1002: respond})
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]
    assert events(tmp_path, Missing) == []


def test_a_node_that_leaves_in_a_round_is_named_and_continues_when_it_is_back(tmp_path: Path) -> None:
    """Four rounds: it takes part, leaves, is not asked, and takes part again."""
    clock = Clock()
    leaving = FakeNode(FORM, 3, fault="late", delay=15.0, clock=clock)
    grid = LocalGrid({**nodes(2), 1003: leaving, **nodes(1, first=4, fault="late", delay=20.0, clock=clock)})
    clock.at(25, lambda: grid.leave(1003))
    clock.at(45, lambda: grid.join(1003, leaving))
    conduct(tmp_path, grid, settings(rounds=4), clock=clock)
    assert [each.domains["law"] for each in events(tmp_path, RoundBegan)] == [4, 4, 3, 4]
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [4, 3, 3, 4]
    assert [(each.round, each.node) for each in events(tmp_path, Missing)] == [(2, "node-1003")]


def test_a_node_that_dies_while_it_trains_is_left_out_at_once(tmp_path: Path) -> None:
    """Flower answers in its place: the round does not wait for the deadline, and the next one asks the others."""
    clock = Clock()
    dying = FakeNode(FORM, 3, fault="silent")
    grid = LocalGrid({**nodes(2), 1003: dying})
    clock.at(5, lambda: grid.leave(1003))
    conduct(tmp_path, grid, clock=clock)
    assert only(events(tmp_path, Missing)).reason == "Node Unavailable"
    assert [each.domains["law"] for each in events(tmp_path, RoundBegan)] == [3, 2]
    assert clock.now < 20
    assert grid.pushed[1003] == 2  # who it is, and its task, once


def test_thirty_percent_of_the_nodes_may_die_in_a_round(tmp_path: Path) -> None:
    """Seven of ten make the quorum; the run completes."""
    clock = Clock()
    grid = LocalGrid({**nodes(7), **nodes(3, first=8, fault="silent")})
    for node in (1008, 1009, 1010):
        clock.at(3, lambda node=node: grid.leave(node))  # type: ignore[misc]
    conduct(tmp_path, grid, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [7, 7]
    assert len(events(tmp_path, Missing)) == 3


def test_a_newcomer_joins_the_next_round(tmp_path: Path) -> None:
    """A node that connects while others train is described then, and takes part from the next round on."""
    clock = Clock()
    grid = LocalGrid(nodes(1, fault="late", delay=30.0, clock=clock))
    clock.at(10, lambda: grid.join(1005, FakeNode(FORM, 5)))
    conduct(tmp_path, grid, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [1, 2]
    assert clock.now < 70


def test_a_domain_whose_first_node_comes_late_gets_its_expert_too(tmp_path: Path) -> None:
    """It begins with its own first round beside the others' later ones."""
    clock = Clock()
    grid = LocalGrid(nodes(1, fault="late", delay=30.0, clock=clock))
    clock.at(10, lambda: grid.join(1005, FakeNode(FORM, 5, "code")))
    experts = conduct(tmp_path, grid, clock=clock)
    assert [path.name for path in experts] == ["code", "law"]
    found = [(each.domain, each.round) for each in events(tmp_path, Aggregated)]
    assert found == [("law", 1), ("code", 1), ("law", 2), ("code", 2)]


def test_without_quorum_the_round_is_tried_again_while_other_domains_go_on(tmp_path: Path) -> None:
    """Law's first round fails twice and succeeds at the third try; code is not held up; replies are not asked twice."""
    clock = Clock()
    law = {1001: FakeNode(FORM, 1), 1002: FakeNode(FORM, 2, fault="silent"), 1003: FakeNode(FORM, 3, fault="silent")}
    grid = LocalGrid({**law, **nodes(1, domain="code", first=11)})

    def speak() -> None:
        for node in (1002, 1003):
            law[node].fault = ""

    clock.at(210, speak)
    conduct(tmp_path, grid, settings(quorum=1.0), clock=clock)
    order = [(each.domain, each.round) for each in events(tmp_path, Aggregated)]
    assert order == [("code", 1), ("code", 2), ("law", 1), ("law", 2)]
    assert law[1001].asked["train"] == 2


def test_a_domain_without_quorum_gives_up_after_its_retries_and_others_finish(tmp_path: Path) -> None:
    """The reason says how many answered, how many were expected, and what to do."""
    grid = {**nodes(1), **nodes(2, first=2, fault="silent"), **nodes(1, domain="code", first=11)}
    (expert,) = conduct(tmp_path, grid, settings(quorum=0.6, retries=1))
    assert expert.name == "code"
    gave_up = only(events(tmp_path, GaveUp))
    assert (gave_up.domain, gave_up.round) == ("law", 1)
    assert gave_up.reason.startswith("1 of 3 nodes sent what could be used, expected 2, in 2 tries")


def test_resuming_tries_again_what_gave_up(tmp_path: Path) -> None:
    """With a lower quorum, a domain that gave up is finished from where it was."""
    grid = {**nodes(1), **nodes(2, first=2, fault="silent")}
    with pytest.raises(FederationError, match="no domain was trained to the end"):
        conduct(tmp_path, grid, settings(quorum=0.6, retries=0))
    (expert,) = conduct(tmp_path, grid, settings(quorum=0.3, retries=0), resume=True)
    assert expert.name == "law"


def test_an_aggregation_that_refuses_ends_its_domain_alone(tmp_path: Path) -> None:
    """Krum needs more nodes than law has: law gives up with its reason, code finishes."""
    grid = {**nodes(2), **nodes(6, domain="code", first=11)}
    (expert,) = conduct(tmp_path, grid, settings(aggregation="krum"))
    assert expert.name == "code"
    assert "krum" in only(events(tmp_path, GaveUp)).reason


def test_refused_replies_do_not_count_towards_the_quorum(tmp_path: Path) -> None:
    """Where a refusal breaks the quorum, the round is tried again without that node."""
    bad = FakeNode(FORM, 9, fault="nan")
    conduct(tmp_path, {**nodes(1), 1009: bad}, settings(quorum=1.0))
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [1, 1]
    assert bad.asked["train"] == 2
    assert [each.round for each in events(tmp_path, RoundBegan)] == [1, 1, 2, 2]


def test_the_run_waits_for_the_nodes_it_needs(tmp_path: Path) -> None:
    """With min_nodes = 2 the first round begins when the second node has come."""
    clock = Clock()
    grid = LocalGrid(nodes(1))
    clock.at(20, lambda: grid.join(1002, FakeNode(FORM, 2)))
    conduct(tmp_path, grid, settings(min_nodes=2), clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]


def test_the_run_waits_for_the_nodes_that_are_expected(tmp_path: Path) -> None:
    """With expected = 3 it begins when three have said who they are, refused ones among them."""
    clock = Clock()
    grid = LocalGrid(nodes(1))
    clock.at(10, lambda: grid.join(1002, FakeNode(FORM, 2)))
    clock.at(20, lambda: grid.join(1003, FakeNode(FORM, 3, fault="other base")))
    conduct(tmp_path, grid, expected=3, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]
    assert clock.now < 30


def test_without_enough_nodes_the_run_ends_with_the_reasons(tmp_path: Path) -> None:
    """After `wait` seconds: how many came, how many were refused and why; the journal says it too."""
    clock = Clock()
    with pytest.raises(FederationError, match="no domain has the nodes that it needs") as caught:
        conduct(tmp_path, {**nodes(1, fault="other base")}, clock=clock)
    assert "a node was refused: its base has digest" in str(caught.value)
    assert 50 <= clock.now < 60
    assert only(events(tmp_path, Ended)).failure == str(caught.value)


def test_a_domain_with_too_few_nodes_gives_up_at_the_start(tmp_path: Path) -> None:
    """The others do not wait for it any longer than `wait`."""
    (expert,) = conduct(tmp_path, {**nodes(2), **nodes(1, domain="code", first=11)}, settings(min_nodes=2))
    assert expert.name == "law"
    assert only(events(tmp_path, GaveUp)).domain == "code"


def test_the_first_round_waits_for_who_has_not_said_yet_who_it_is(tmp_path: Path) -> None:
    """A node that reads its base's digest for 30 s takes part from the first round on."""
    clock = Clock()
    conduct(tmp_path, {**nodes(1), **nodes(1, first=2, fault="hesitant", delay=30.0, clock=clock)}, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]


def test_nobody_waits_long_for_who_does_not_say_who_it_is(tmp_path: Path) -> None:
    """After a minute the first round begins without it; it joins when it has said it."""
    clock = Clock()
    slow = nodes(1, fault="late", delay=50.0, clock=clock)
    hesitant = nodes(1, first=2, fault="hesitant", delay=90.0, clock=clock)
    conduct(tmp_path, {**slow, **hesitant}, settings(wait=500.0), clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [1, 2]
    assert 160 <= clock.now < 170


def test_a_second_node_of_a_registered_name_is_refused(tmp_path: Path) -> None:
    """While the first is connected."""
    conduct(tmp_path, nodes(2), registry={1001: Registered("paris"), 1002: Registered("paris")})
    assert "another node is connected as 'paris'" in only(events(tmp_path, Refused)).reason
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [1, 1]


def test_only_named_domains_take_part(tmp_path: Path) -> None:
    """A node of another domain is refused."""
    (expert,) = conduct(tmp_path, {**nodes(1), **nodes(1, domain="code", first=11)}, settings(domains=("law",)))
    assert expert.name == "law"
    assert "expected one of law" in only(events(tmp_path, Refused)).reason


def test_a_node_without_an_answer_to_who_it_is_does_not_hold_the_run_up(tmp_path: Path) -> None:
    """After three errors it is refused; nobody waits for it."""
    conduct(tmp_path, {**nodes(1), **nodes(1, first=2, fault="undescribed")})
    assert only(events(tmp_path, Refused)).reason == "it could not say who it is: there is no text"


def test_registered_nodes_are_known_by_their_names_and_held_to_their_domains(tmp_path: Path) -> None:
    """A registered name is the label; another domain than the registered one, and no registration, are refused."""
    registry = {1001: Registered("berlin", "law"), 1002: Registered("paris", "code")}
    conduct(tmp_path, nodes(3), registry=registry)
    assert [each.node for each in events(tmp_path, Joined)] == ["berlin"]
    refused = {each.node: each.reason for each in events(tmp_path, Refused)}
    assert "registered for 'code'" in refused["paris"]
    assert "not registered" in refused["node-1003"]


def test_labels_name_nodes(tmp_path: Path) -> None:
    """The short form of a registry gives names alone."""
    conduct(tmp_path, nodes(2), labels={1001: "berlin", 1002: "paris"})
    assert sorted(each.node for each in events(tmp_path, Joined)) == ["berlin", "paris"]


def test_two_nodes_never_share_a_label(tmp_path: Path) -> None:
    """A name that is taken gets digits of the node's id."""
    conduct(tmp_path, {**nodes(2, name="Ada")})
    assert sorted(each.node for each in events(tmp_path, Joined)) == ["Ada", "Ada-1002"]


def test_a_registered_node_that_comes_back_under_another_id_is_the_same_contributor(tmp_path: Path) -> None:
    """It counts once on the card; while the first is connected, a second of its name is refused."""
    clock = Clock()
    grid = LocalGrid(nodes(1, fault="late", delay=20.0, clock=clock))
    grid.join(1002, FakeNode(FORM, 2))
    registry = {1001: Registered("slow"), 1002: Registered("paris"), 1005: Registered("paris")}

    def move() -> None:
        grid.leave(1002)
        grid.join(1005, FakeNode(FORM, 2))

    clock.at(10, move)
    (expert,) = conduct(tmp_path, grid, registry=registry, clock=clock)
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]
    assert sorted(each.node for each in events(tmp_path, Joined)) == ["paris", "paris", "slow"]
    federation = open_expert(expert).card.federation
    assert federation is not None
    assert federation.nodes == 2


def test_nodes_of_smaller_rank_take_part_in_product_alone(tmp_path: Path) -> None:
    """Product aggregates rank 1 into rank 2; ffa refuses a rank of one's own; a larger rank is refused."""
    mixed = {**nodes(2), **nodes(1, first=3, rank=1), **nodes(1, first=4, rank=3)}
    conduct(tmp_path / "product", mixed, settings(aggregation="product"))
    assert [each.nodes for each in events(tmp_path / "product", Aggregated)] == [3, 3]
    assert "at most the federation's 2" in only(events(tmp_path / "product", Refused)).reason
    conduct(tmp_path / "ffa", {**nodes(2), **nodes(1, first=3, rank=1)})
    assert "which ffa cannot aggregate" in only(events(tmp_path / "ffa", Refused)).reason


def test_noise_is_paid_for_in_epsilon(tmp_path: Path) -> None:
    """The journal's epsilon grows with the rounds, and the card carries the last with its delta."""
    (expert,) = conduct(tmp_path, nodes(3), settings(noise=1.0))
    first, second = (each.epsilon for each in events(tmp_path, Aggregated))
    federation = open_expert(expert).card.federation
    assert federation is not None
    assert 0 < first < second == federation.epsilon
    assert federation.delta == 1e-5


def test_without_an_accountant_a_private_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails before any node is asked for anything."""

    def missing(*_: Any) -> float:
        raise FederationError("no accountant")

    monkeypatch.setattr(running, "spent", missing)
    members = nodes(3)
    with pytest.raises(FederationError, match="no accountant"):
        conduct(tmp_path, members, settings(noise=1.0))
    assert [dict(node.asked) for node in members.values() if isinstance(node, FakeNode)] == [{}, {}, {}]


def test_finished_experts_are_not_replaced_unasked(tmp_path: Path) -> None:
    """A second run is refused before it begins, unless it may overwrite; then the version grows."""
    (expert,) = conduct(tmp_path, nodes(1))
    with pytest.raises(FederationError, match="--overwrite"):
        conduct(tmp_path, nodes(1))
    conduct(tmp_path, nodes(1), overwrite=True)
    assert open_expert(expert).card.version == 2


def test_without_resume_an_unfinished_run_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, and no node's reply of the old run is used."""
    (tmp_path / "replies").mkdir()
    (tmp_path / "replies" / "old.safetensors").write_text("old")
    with pytest.raises(FederationError):
        conduct(tmp_path, nodes(1, fault="silent"), settings(retries=0))
    assert list((tmp_path / "replies").iterdir()) == []
    (expert,) = conduct(tmp_path, nodes(1))
    assert "beginning anew" in capsys.readouterr().err
    assert [each.after for each in events(tmp_path, Began)] == [0, 0]
    assert len({each.run for each in events(tmp_path, Began)}) == 2
    assert expert.is_dir()


def test_one_output_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another server holds the folder, a second is refused and writes nothing."""
    monkeypatch.setattr(running, "_LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(FederationError, match="another server works in"):
        conduct(tmp_path, nodes(1))
    assert events(tmp_path) == []


def test_no_reply_is_left_behind(tmp_path: Path) -> None:
    """After the end, only the last two checkpoints, the journal, the experts and what was run are there."""
    conduct(tmp_path, nodes(2), settings(rounds=4))
    assert list((tmp_path / "replies").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["0003", "0004"]
    assert json.loads((tmp_path / "federation.json").read_text())["format"] == 1
