import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from moehub.admission import routing
from moehub.admission.at_hand import AtHand
from moehub.admission.check import NotAtHandError
from moehub.admission.gate import examine
from moehub.admission.policy import Policy
from moehub.admission.registry import registered
from moehub.admission.shares import SUBJECT, Table, padded
from moehub.admission.subject import Subject
from moehub.base import find
from moehub.card import STATISTICS_FILE, read_card
from moehub.experts.folder import seal
from moehub.experts.packing import Row
from moehub.experts.statistics import Statistics, count
from moehub.merge.merging import Recipe, prepare
from moehub.models import open_model
from tests.attacks.honest import another, everything_at_hand, honest, null, routing_at_hand
from tests.world import World

STEP = tuple(one for one in registered() if one.step == 9)
POLICY = Policy()


def statistics(folder: Path) -> Statistics:
    return Statistics.load(folder / STATISTICS_FILE)


@pytest.fixture(scope="module")
def mine(world: World) -> Statistics:
    """The good expert's counts, without features."""
    return dataclasses.replace(statistics(honest(world)), features=None)


@pytest.fixture(scope="module")
def generic(world: World) -> Statistics:
    """The null's counts."""
    return null(world)


def published(world: World, folder: Path, counted: Statistics | None) -> Path:
    """Publish the good expert with other counts, or with none."""
    shutil.copytree(honest(world), folder)
    (folder / STATISTICS_FILE).unlink()
    if counted is not None:
        counted.save(folder / STATISTICS_FILE)
    seal(folder, read_card(folder))
    return folder


def test_the_shares_are_those_of_a_moe(world: World, tmp_path: Path) -> None:
    """What the check says an expert would get of a text is what it gets once it is merged."""
    with prepare(
        Recipe(base=str(world.base), experts=world.references("law", "code", "math"), null=str(world.null))
    ) as prepared:
        prepared.write(tmp_path / "moe")
    moe = open_model(str(tmp_path / "moe"), base=str(world.base))
    ids = torch.tensor([moe.tokenizer("the court finds something generic of no domain 12 + 30")["input_ids"]])
    experts = {name: statistics(folder) for name, folder in world.experts.items()}
    law, generic = experts.pop("law"), statistics(tmp_path / "moe" / "null")
    shares = Table(law, experts, generic).shares(ids)
    trace = moe.model.trace(ids)[0].double()
    for column, name in enumerate(moe.model.names):
        share = shares[SUBJECT if name == "law" else name]
        assert share.weight == pytest.approx(float(trace[:, column].mean()), abs=1e-6)
        assert share.chosen == pytest.approx(float((trace[:, column] > 0).double().mean()))


def test_padding_gets_nothing(mine: Statistics, generic: Statistics) -> None:
    """Rows of different lengths count token by token, as if each stood alone."""
    table = Table(mine, {}, generic)
    rows = [Row(ids := torch.arange(60, 60 + length), ids, (length,)) for length in (40, 7)]
    together = table.shares(*padded(rows))[SUBJECT]
    alone = [table.shares(row.ids[None])[SUBJECT].weight for row in rows]
    assert together.weight == pytest.approx((40 * alone[0] + 7 * alone[1]) / 47)
    nats = [table.evidence(row.ids[None])[SUBJECT] for row in rows]
    assert table.evidence(*padded(rows))[SUBJECT] == pytest.approx((40 * nats[0] + 7 * nats[1]) / 47)


def test_a_domain_of_its_own_is_admitted(world: World) -> None:
    """Good counts pass beside the null alone and beside others, with a base at hand and without."""
    for at_hand in (routing_at_hand(world), everything_at_hand(world)):
        for folder in (honest(world), another(world)):
            found = dataclasses.replace(at_hand, domain_text=None)
            assert examine(folder, found, checks=STEP).refusals == ()


def test_little_text_is_admitted(world: World) -> None:
    """Counts of some hundred tokens say little, so that the expert is chosen often, with little weight."""
    at_hand = routing_at_hand(world)
    for name, folder in world.experts.items():
        verdict = examine(folder, at_hand, checks=[one for one in STEP if one.code == "neutral-share"])
        assert (name, verdict.refusals) == (name, ())


def test_counts_of_the_null_take_half_of_generic_text(
    world: World, mine: Statistics, generic: Statistics, tmp_path: Path
) -> None:
    """A twin of the null cannot be told from it, gets half of its text, and is refused."""
    twin = dataclasses.replace(mine, unigrams=generic.unigrams, pairs=generic.pairs, triples=generic.triples)
    folder = published(world, tmp_path / "twin", twin)
    shares = routing.neutral_shares(Subject(folder), routing_at_hand(world), POLICY)
    weight = shares["on generic text, beside the null,"].weight
    assert weight == pytest.approx(0.5, abs=0.01)
    refusals = examine(folder, routing_at_hand(world), checks=STEP).refusals
    (neutral,) = [refusal for refusal in refusals if refusal.code == "neutral-share"]
    assert f"it gets {weight:.0%} of the weight and answers 100% of the tokens" in neutral.sentence


def test_company_only_takes_shares_away(world: World, mine: Statistics, tmp_path: Path) -> None:
    """Beside others an expert gets no more of generic text than beside the null alone."""
    folder = published(world, tmp_path / "expert", mine)
    shares = routing.neutral_shares(Subject(folder), everything_at_hand(world), POLICY)
    assert len(shares) == 4
    for text in ("generic text", "the public text"):
        alone, beside = (shares[f"on {text}, beside {who},"] for who in ("the null", "the null and the others"))
        assert 0 < beside.weight <= alone.weight


def test_public_text_counts_too(world: World, tmp_path: Path) -> None:
    """An expert that would answer the hub's own public text is refused, whatever was drawn from counts."""
    text = tmp_path / "canary.txt"
    text.write_text("the court finds that the lessee shall pay the rent. " * 20, encoding="utf-8")
    at_hand = dataclasses.replace(everything_at_hand(world), canary=text, domain_text=None)
    (refusal,) = examine(honest(world), at_hand, checks=STEP).refusals
    assert refusal.code == "neutral-share"
    assert "on the public text, beside the null, it gets" in refusal.sentence
    without = dataclasses.replace(at_hand, base=None)
    assert examine(honest(world), without, checks=STEP).refusals == ()


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(most_neutral_weight=0.0), "neutral-share"),
        (Policy(most_neutral_chosen=0.0, least_chosen_weight=0.0), "neutral-share"),
        (Policy(most_behind=-100.0), "domain-evidence"),
        (Policy(most_tokens_per_trained=0.01), "counts-trained-on"),
        (Policy(most_feature_shift=0.0), "feature-mean"),
        (Policy(most_feature_spread=1.0), "feature-spread"),
    ],
)
def test_the_policy_decides(world: World, policy: Policy, code: str) -> None:
    """Each threshold is the one of its check."""
    refusals = examine(honest(world), everything_at_hand(world), policy, checks=STEP).refusals
    assert {refusal.code for refusal in refusals} == {code}


def test_what_is_not_at_hand_is_said(world: World) -> None:
    """Without generic counts, others, text or base each check says what it would need."""
    skipped = {one.code: one.reason for one in examine(honest(world), AtHand(), checks=STEP).skipped}
    assert {code: reason.partition("--")[2].split()[0] for code, reason in skipped.items()} == {
        "neutral-share": "null",
        "domain-evidence": "null",
        "counted-vocabulary": "null",
        "feature-spread": "beside",
        "feature-mean": "base",
    }


def test_counts_of_another_tokenizer_are_not_compared(world: World, generic: Statistics) -> None:
    """Numbers of tokens mean nothing under another tokenizer: such a null is none, and such others are nobody."""
    foreign = dataclasses.replace(generic, tokenizer="f" * 64)
    verdict = examine(honest(world), AtHand(null=foreign), checks=STEP)
    assert verdict.admitted
    reasons = {one.code: one.reason for one in verdict.skipped}
    assert "counted with another tokenizer" in reasons["neutral-share"]
    larger = dataclasses.replace(foreign, unigrams=torch.cat([foreign.unigrams, foreign.unigrams]))
    at_hand = dataclasses.replace(routing_at_hand(world), others={"foreign": larger})
    assert examine(honest(world), at_hand, checks=STEP).admitted


def test_pairs_in_more_buckets_are_compared_in_fewer(world: World) -> None:
    """Whatever the number of buckets, counts are compared, and exactly as if they had been counted in the fewest."""
    tokenizer = find(str(world.base)).load_tokenizer()
    documents = [torch.tensor(tokenizer("def add(a, b): return a + b")["input_ids"])]
    few, many = (count(documents, tokenizer="t", vocabulary=len(tokenizer), pair_bits=bits) for bits in (8, 14))
    found = routing._alike(few, {"many": many})
    assert torch.equal(found["many"].pairs, few.pairs)
    assert found[SUBJECT] is few


def test_triples_are_compared_where_all_have_them(world: World) -> None:
    """They fold as pairs do; beside somebody who has none they are left out."""
    tokenizer = find(str(world.base)).load_tokenizer()
    documents = [torch.tensor(tokenizer("def add(a, b): return a + b")["input_ids"])]
    few, many, none = (
        count(documents, tokenizer="t", vocabulary=len(tokenizer), pair_bits=8, triple_bits=bits) for bits in (9, 12, 0)
    )
    found = routing._alike(few, {"many": many})
    assert torch.equal(found["many"].counts["triples"], few.counts["triples"])
    beside = routing._alike(few, {"many": many, "none": none})
    assert [one.triples for one in beside.values()] == [None, None, None]


def test_no_statistics_route_nothing(world: World, tmp_path: Path) -> None:
    """An expert that was published without has no counts to refuse."""
    verdict = examine(published(world, tmp_path / "silent", None), everything_at_hand(world), checks=STEP)
    assert (verdict.refusals, verdict.skipped) == ((), ())


def test_the_domain_needs_somebody_to_compare_with(world: World) -> None:
    """Evidence is a difference: without a null and without others there is none."""
    nobody = dataclasses.replace(everything_at_hand(world), null=None, others={})
    with pytest.raises(NotAtHandError, match="--null or a MoE with --beside"):
        routing.behind(Subject(honest(world)), nobody, POLICY)


def test_whoever_explains_its_domain_is_named(world: World, mine: Statistics, tmp_path: Path) -> None:
    """The refusal says whose counts the text looks like, and by how much."""
    folder = published(world, tmp_path / "expert", dataclasses.replace(statistics(another(world)), features=None))
    at_hand = dataclasses.replace(everything_at_hand(world), canary=None, others={"the-real-law": mine})
    (refusal,) = examine(folder, at_hand, checks=STEP).refusals
    assert refusal.code == "domain-evidence"
    assert "the counts of the-real-law explain text of its domain law by" in refusal.sentence
