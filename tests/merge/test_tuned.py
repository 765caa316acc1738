import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub import files
from moehub.errors import MergeError, RouterError
from moehub.inspection import inspect
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import Recipe, prepare, prepare_again, prepare_change
from moehub.merge.model import MoehubForCausalLM
from moehub.router.settings import RouterSettings
from moehub.router.tuned import Facts, OpenGate, TunedGate, open_gate
from tests.world import CODE, LAW, MATH, World

TEXT = LAW + CODE + MATH
LOSSES = Facts(tokens=1234, rounds=1, loss_before=2.5, loss_after=2.25, held_out_tokens=99)


def load(moe: Path, **options: object) -> MoehubForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32, **options)
    assert isinstance(model, MoehubForCausalLM)
    return model


def encoded(moe: Path, text: str = TEXT) -> torch.Tensor:
    ids: torch.Tensor = AutoTokenizer.from_pretrained(moe)(text, return_tensors="pt")["input_ids"]
    return ids


def opened(model: MoehubForCausalLM) -> OpenGate:
    gate = open_gate(model.gate, hidden=model.config.get_text_config().hidden_size)  # type: ignore[arg-type]
    model.gate = gate
    return gate


def learned(model: MoehubForCausalLM) -> MoehubForCausalLM:
    """Let a MoE's gate learn something, whatever."""
    gate, generator = opened(model), torch.Generator().manual_seed(3)
    gate.move({name: torch.randn(now.shape, generator=generator).double() for name, now in gate.learned().items()})
    model.gate = gate.closed(LOSSES)
    return model


@pytest.fixture(scope="module", params=["evidence", "evidence+lda", "likelihood"])
def moe(request: pytest.FixtureRequest, described: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE of three experts with a null expert where the method needs no features of it."""
    folder = tmp_path_factory.mktemp("tuned") / "moe"
    null = None if "lda" in request.param else str(described.null)
    recipe = Recipe(str(described.base), described.references(), null, RouterSettings(method=request.param))
    with prepare(recipe) as prepared:
        prepared.write(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(moe: Path) -> Path:
    """The same, tuned."""
    output = moe.with_name("tuned")
    learned(load(moe)).save_pretrained(output)
    return output


@torch.no_grad()
def test_a_gate_that_learned_nothing_changes_no_logit(moe: Path) -> None:
    """Step 0 of a tuning is the untuned MoE, to the bit."""
    ids, model = encoded(moe), load(moe)
    expected = model(ids).logits
    opened(model)
    assert torch.equal(model(ids).logits, expected)


@torch.no_grad()
def test_a_tuned_moe_comes_back_as_it_was_saved(moe: Path, tuned: Path, tmp_path: Path) -> None:
    """Logits to the bit, what is known about it, and saving it again gives the same bytes."""
    ids, model = encoded(moe), learned(load(moe))
    again = load(tuned)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert not torch.allclose(again(ids).logits, load(moe)(ids).logits, atol=1e-3)
    assert again.gate.facts == LOSSES
    again.save_pretrained(tmp_path / "saved")
    assert files.tree_digest(tmp_path / "saved") == files.tree_digest(tuned)


@torch.no_grad()
def test_cached_decoding_equals_one_forward(tuned: Path) -> None:
    """The running mean of the embeddings stands beside the KV cache."""
    model, ids = load(tuned), encoded(tuned, TEXT * 2)
    whole = model(ids, use_cache=False).logits
    output = model(ids[:, :7], use_cache=True)
    steps = [output.logits]
    for position in range(7, ids.shape[1]):
        output = model(ids[:, position : position + 1], past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=str)
def test_generation_with_the_cache_equals_generation_without(tuned: Path, options: dict[str, object]) -> None:
    """Beams reorder the gate's state, assistants crop it."""
    model, ids = load(tuned), encoded(tuned)

    def written(**more: object) -> list[list[int]]:
        mask = torch.ones_like(ids)
        return model.generate(ids, attention_mask=mask, max_new_tokens=12, min_new_tokens=12, **more).tolist()

    plain = {} if "prompt_lookup_num_tokens" in options else options
    assert written(**options) == written(**plain, use_cache=False)


def test_dropping_the_tuning_brings_every_byte_back(moe: Path, tuned: Path, tmp_path: Path) -> None:
    """By merging into it, by loading it without and saving that, and in the lock as well."""
    place = shutil.copytree(tuned, tmp_path / "moe")
    with prepare_change(place, untuned=True) as change:
        change.write()
    assert files.tree_digest(place) == files.tree_digest(moe)
    load(tuned, tuned=False).save_pretrained(tmp_path / "saved")
    assert files.tree_digest(tmp_path / "saved") == files.tree_digest(moe)


@torch.no_grad()
def test_a_tuned_moe_can_be_loaded_as_it_was(moe: Path, tuned: Path) -> None:
    """`tuned=False` is the gate from counts, and there an expert can be left out exactly."""
    ids, before, model = encoded(moe), load(moe), load(tuned, tuned=False)
    assert (before.was_tuned, model.was_tuned) == (False, True)
    assert torch.equal(model(ids).logits, before(ids).logits)
    with model.without("law"), before.without("law"):
        assert torch.equal(model(ids).logits, before(ids).logits)


def test_no_expert_is_left_out_of_a_tuned_gate(tuned: Path) -> None:
    """It would not be exact: the sentence says how to."""
    with pytest.raises(RouterError, match="'law' cannot be taken out of it exactly: load the MoE with tuned=False"):
        load(tuned).without("law").__enter__()


def test_a_tuned_moe_is_changed_only_without_its_tuning(moe: Path, tuned: Path, tmp_path: Path) -> None:
    """An expert is taken out where the tuning may be dropped; then it is exactly that of the untuned MoE."""
    one, other = shutil.copytree(tuned, tmp_path / "tuned"), shutil.copytree(moe, tmp_path / "moe")
    with pytest.raises(MergeError, match="With --untuned the tuning is dropped"), prepare_change(one, remove=("law",)):
        pass
    assert files.tree_digest(one) == files.tree_digest(tuned)
    for place, untuned in ((one, True), (other, False)):
        with prepare_change(place, remove=("law",), untuned=untuned) as change:
            change.write()
    assert files.tree_digest(one) == files.tree_digest(other)
    with (
        pytest.raises(MergeError, match="was not tuned, so there is nothing to drop"),
        prepare_change(other, untuned=True),
    ):
        pass


def test_a_lock_says_that_it_does_not_hold_the_tuning(moe: Path, tuned: Path, tmp_path: Path) -> None:
    """It names the file; from the lock alone only the untuned MoE can be made, where that is asked for."""
    assert read_lock(tuned / LOCK_FILE).tuned == files.sha256(tuned / "tuned.safetensors")
    assert "tuned" not in json.loads((moe / LOCK_FILE).read_text(encoding="utf-8"))
    with (
        pytest.raises(MergeError, match="stands in its folder alone: copy the folder"),
        prepare_again(tuned / LOCK_FILE),
    ):
        pass
    with prepare_again(tuned / LOCK_FILE, untuned=True) as prepared:
        prepared.write(tmp_path / "again")
    assert files.tree_digest(tmp_path / "again") == files.tree_digest(moe)


def test_the_card_says_that_removal_is_no_longer_exact(moe: Path, tuned: Path) -> None:
    """In words, with the losses and the numbers; that of the untuned MoE says nothing of it."""
    card = " ".join((tuned / "README.md").read_text(encoding="utf-8").split())
    assert "**Exact removal is no longer given for this gate.**" in card
    assert "trained this gate on 1,234 tokens in 1 round." in card
    assert "| held-out loss now, on the same 99 tokens | 2.2500 |" in card
    assert "Nothing was trained to assemble it" not in card
    assert "Exact removal" not in (moe / "README.md").read_text(encoding="utf-8")


def test_inspection_says_that_it_is_tuned_and_checks_the_file(tuned: Path, tmp_path: Path) -> None:
    """Another file of the same name is a fault."""
    report = inspect(tuned)
    assert report.faults == ()
    assert report.facts["tuned"]["facts"]["tokens"] == 1234
    assert "tuned" not in report.facts["router"]
    place = shutil.copytree(tuned, tmp_path / "moe")
    (place / "tuned.safetensors").unlink()
    assert "tuned.safetensors is not the one" in inspect(place).faults[0]


def test_what_no_longer_holds_is_left_out(moe: Path, tmp_path: Path) -> None:
    """A signature and an evaluation are of the MoE that was."""
    place = shutil.copytree(moe, tmp_path / "moe")
    for name in ("evaluation.json", "moe.sig"):
        (place / name).write_text("{}", encoding="utf-8")
    load(place).save_pretrained(tmp_path / "same")
    assert files.tree_digest(tmp_path / "same") == files.tree_digest(place)
    learned(load(place)).save_pretrained(tmp_path / "tuned")
    names = {path.name for path in (tmp_path / "tuned").iterdir()}
    assert names & {"evaluation.json", "moe.sig", "tuned.safetensors"} == {"tuned.safetensors"}


def _bytes(folder: Path) -> None:
    (folder / "tuned.safetensors").write_bytes(b"nothing")


def _values(folder: Path) -> None:
    tensors = load_file(folder / "tuned.safetensors")
    save_file({**tensors, "bias": tensors["bias"] * float("nan")}, folder / "tuned.safetensors")
    _said(folder, sha256=files.sha256(folder / "tuned.safetensors"))


def _shape(folder: Path) -> None:
    tensors = load_file(folder / "tuned.safetensors")
    save_file({**tensors, "bias": tensors["bias"][1:]}, folder / "tuned.safetensors")
    _said(folder, sha256=files.sha256(folder / "tuned.safetensors"))


def _said(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["router"]["tuned"] |= changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_bytes, "is not the one that this MoE was tuned with"),
        (_values, "bias holds values that are not finite"),
        (_shape, r"bias is torch.float32 of shape"),
        (lambda folder: (folder / "tuned.safetensors").unlink(), "cannot be read"),
        (lambda folder: _said(folder, format=2), "has format 2, expected 1: update moehub"),
        (lambda folder: _said(folder, numbers={"rho": 2.0}), "rho = 2.0, expected between 0 and 1"),
        (lambda folder: _said(folder, numbers={"sigma": 2.0}), "unknown key 'sigma'"),
        (lambda folder: _said(folder, numbers={"top_k": 1}), "was tuned in top_k, which its router lacks"),
        (lambda folder: _said(folder, recipe="magic"), "is no recipe of features"),
        (lambda folder: _said(folder, facts={"tokens": "many"}), "expected an integer"),
        (lambda folder: _said(folder, facts=[]), "expected `key: value`"),
    ],
)
def test_a_damaged_tuning_gets_one_sentence(
    tuned: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    """A stranger's folder is checked before it answers anything."""
    place = shutil.copytree(tuned, tmp_path / "moe")
    damage(place)
    with pytest.raises(MergeError, match=sentence):
        load(place)


def test_a_gate_that_diverged_is_not_saved(moe: Path, tmp_path: Path) -> None:
    """Nothing is written."""
    model = learned(load(moe))
    assert isinstance(model.gate, TunedGate)
    model.gate.correction.bias.data[0] = float("inf")
    with pytest.raises(MergeError, match="not finite, so nothing was written"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
