import dataclasses
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from moehub.admission import probe as probes
from moehub.admission.at_hand import AtHand
from moehub.admission.gate import examine
from moehub.admission.policy import Policy
from moehub.admission.probe import LONGEST, Losses, opened, worn
from moehub.admission.registry import registered
from moehub.base import find
from moehub.card import read_card
from moehub.errors import ExpertError
from moehub.experts.adapter import Adapter, read_adapter
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.folder import open_expert, seal
from moehub.models import open_model
from tests.attacks.behaviour import ATTACKS
from tests.attacks.honest import everything_at_hand, honest, knowing
from tests.builders import tiny_base, tiny_expert
from tests.world import World

STEP = tuple(one for one in registered() if one.step == 8)


@pytest.fixture(scope="module")
def everything(world: World) -> AtHand:
    """All that a careful hub has at hand."""
    return everything_at_hand(world)


@pytest.fixture(scope="module")
def adapter(world: World) -> Adapter:
    """The good expert's adapter."""
    return read_adapter(open_expert(honest(world)))


@pytest.fixture
def probe(everything: AtHand) -> probes.Probe:
    """The good expert's base."""
    assert everything.base is not None
    return opened(everything.base)


def test_an_expert_that_gains_is_admitted(world: World, everything: AtHand) -> None:
    """With everything at hand, a good expert passes all checks of all steps; only who signed it stays open."""
    verdict = examine(honest(world), everything)
    assert (verdict.refusals, {one.code for one in verdict.skipped}) == ((), {"signature", "version"})


def test_its_losses_are_those_of_peft(world: World, everything: AtHand, adapter: Adapter, probe: probes.Probe) -> None:
    """The expert is measured as whoever uses it would have it, though PEFT never opens it."""
    assert everything.domain_text is not None
    rows = probe.rows(everything.domain_text, 500)
    found = probe.measure(adapter, rows)
    model = open_model(str(honest(world)), base=str(knowing(world).base)).model
    with model.disable_adapter():
        base, tokens = evaluate_loss(model, rows)
    assert found.tokens == tokens
    assert found.base == pytest.approx(base, abs=1e-6)
    assert found.expert == pytest.approx(evaluate_loss(model, rows)[0], abs=2e-3)  # the base is in bfloat16
    assert found.expert < 0.9 * found.base


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
@torch.no_grad()
def test_a_dora_is_worn_as_peft_wears_it(tmp_path: Path, architecture: str) -> None:
    """Rows are rescaled, and biases and transposed weights seen as what they are."""
    base = tiny_base(tmp_path / "base", architecture=architecture)
    transposed = architecture == "gpt2"
    targets = ("c_attn", "c_fc") if transposed else ("q_proj", "down_proj")
    expert = tiny_expert(tmp_path / "law", base, targets=targets, use_dora=True, fan_in_fan_out=transposed)
    ids, plain = torch.arange(2, 40)[None], find(str(base)).load_model(dtype=torch.float32).eval()
    for name, parameter in plain.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    with worn(plain, read_adapter(open_expert(expert))):
        found = plain(ids).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        expected = PeftModel.from_pretrained(plain, str(expert)).eval()(ids).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_the_base_stays_as_it_is(everything: AtHand, adapter: Adapter, probe: probes.Probe) -> None:
    """After an expert was worn, and after one that failed, the base answers as before."""
    assert everything.canary is not None
    rows = probe.rows(everything.canary, 200)
    before = evaluate_loss(probe.model, rows)
    with worn(probe.model, adapter):
        assert evaluate_loss(probe.model, rows) != before
    with pytest.raises(ZeroDivisionError), worn(probe.model, adapter):
        raise ZeroDivisionError
    assert evaluate_loss(probe.model, rows) == before


def test_an_adapter_that_does_not_fit_is_an_error(adapter: Adapter, probe: probes.Probe) -> None:
    """A linear that is not there, and a shape that is another, are told before anything is computed."""
    (A, B), *_ = adapter.pairs.values()
    strange = Adapter({"model.nowhere": (A, B)}, {"model.nowhere": 1.0})
    with pytest.raises(ExpertError, match=r"'model\.nowhere' fits no linear"):
        probe.measure(strange, [])
    linear = next(iter(adapter.pairs))
    with pytest.raises(ExpertError, match="fits no linear"):
        probe.measure(Adapter({linear: (A[:, 1:], B)}, {linear: 1.0}), [])


def test_what_is_not_at_hand_is_said(world: World) -> None:
    """Without a base and texts, what could be measured is skipped, and each reason names the option that helps."""
    verdict = examine(honest(world), AtHand(), checks=STEP)
    assert {one.code: one.reason.partition("--")[2] for one in verdict.skipped} == {
        "canary-loss": "canary",
        "domain-gain": "domain-text",
        "claimed-gain": "domain-text",
    }
    texts = everything_at_hand(world)
    without = AtHand(canary=texts.canary, domain_text=texts.domain_text)
    skipped = examine(honest(world), without, checks=STEP).skipped
    assert [one.reason.partition("--")[2] for one in skipped] == ["base", "base", "base"]


def test_another_base_is_not_measured_on(world: World, everything: AtHand, tmp_path: Path) -> None:
    """Losses under a base that the expert does not belong to say nothing: the check says so instead."""
    other = dataclasses.replace(everything, base=find(str(tiny_base(tmp_path / "base"))))
    verdict = examine(honest(world), other, checks=STEP)
    assert verdict.admitted
    assert {one.code for one in verdict.skipped} == {"canary-loss", "domain-gain", "claimed-gain"}
    assert all(read_card(honest(world)).base.reference in one.reason for one in verdict.skipped)


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        (Policy(most_canary_rise=-1.0), {"canary-loss"}),
        (Policy(least_domain_gain=0.9), {"domain-gain"}),
        (Policy(most_claim_excess=-1.0), {"claimed-gain"}),
    ],
)
def test_the_policy_decides(world: World, everything: AtHand, policy: Policy, codes: set[str]) -> None:
    """Each threshold is the one of its check."""
    verdict = examine(honest(world), everything, policy, checks=STEP)
    assert {refusal.code for refusal in verdict.refusals} == codes


def test_a_loss_that_is_no_number_is_refused(world: World, everything: AtHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter under which the base overflows does not pass because nothing compares with NaN."""
    nothing = Losses(base=2.0, expert=float("nan"), tokens=10)
    monkeypatch.setattr(probes.Probe, "measure", lambda *_: nothing)
    codes = {refusal.code for refusal in examine(honest(world), everything, checks=STEP).refusals}
    assert codes == {"canary-loss", "domain-gain"}


def test_a_card_may_claim_nothing(world: World, everything: AtHand, tmp_path: Path) -> None:
    """Who held nothing out has no metrics, and is measured all the same."""
    folder = Path(shutil.copytree(honest(world), tmp_path / "expert"))
    seal(folder, dataclasses.replace(read_card(folder), metrics=None))
    verdict = examine(folder, everything, checks=STEP)
    assert verdict.admitted
    assert {"canary-loss", "domain-gain"} <= verdict.seconds.keys()


def test_no_more_is_read_than_the_policy_says(everything: AtHand, probe: probes.Probe) -> None:
    """However long a text is, the work is bounded: its first tokens, in windows."""
    assert everything.domain_text is not None
    for most in (2, 50, 333):
        rows = probe.rows(everything.domain_text, most)
        assert sum(len(row.ids) for row in rows) in (most, most - 1)
        assert all(len(row.ids) == len(row.labels) == sum(row.lengths) <= LONGEST for row in rows)


def test_the_base_alone_is_measured_once(everything: AtHand, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many experts on one text cost one forward pass each; two checks of one expert share it."""
    assert everything.base is not None
    assert everything.canary is not None
    probes.forget()
    probe, calls = opened(everything.base), 0
    measure = evaluate_loss

    def counted(*given: object, **named: object) -> tuple[float, int]:
        nonlocal calls
        calls += 1
        return measure(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "evaluate_loss", counted)
    rows = probe.rows(everything.canary, 100)
    first = probe.measure(adapter, rows)
    assert (probe.measure(adapter, rows), calls) == (first, 2)
    halved = dataclasses.replace(adapter, scales={name: scale / 2 for name, scale in adapter.scales.items()})
    assert probe.measure(halved, rows).expert != first.expert
    assert (probe.measure(halved, rows).base, calls) == (first.base, 3)


def test_a_text_that_changed_is_read_again(probe: probes.Probe, tmp_path: Path) -> None:
    """A hub that lives long notices new public text."""
    text = tmp_path / "text.txt"
    text.write_text("the court finds that", encoding="utf-8")
    before = probe.rows(text, 100)
    text.write_text("def add(a, b): return a + b", encoding="utf-8")
    os.utime(text, ns=(1, 1))
    assert not torch.equal(before[0].ids[:3], probe.rows(text, 100)[0].ids[:3])


def test_the_base_that_was_opened_last_is_kept_until_it_is_let_go(everything: AtHand) -> None:
    """Checking a hundred experts loads their base once."""
    assert everything.base is not None
    kept = opened(everything.base)
    assert opened(everything.base) is kept
    probes.forget()
    assert opened(everything.base) is not kept


def test_harm_is_refused_by_public_text_alone_where_it_is_loud(world: World, tmp_path: Path) -> None:
    """Who has no text of the domain still sees a base that babbles, and says by how much."""
    loud = next(attack for attack in ATTACKS if attack.name == "loud noise")
    (refusal,) = examine(loud.make(tmp_path / "expert", world), loud.offered(world), checks=STEP).refusals
    assert refusal.code == "canary-loss"
    assert "the base's loss on public text goes from" in refusal.sentence
