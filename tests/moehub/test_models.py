import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub import base as bases
from moehub.errors import BaseModelError, ExpertError, MergeError
from moehub.hub import open_hub
from moehub.models import kind_of, open_model
from tests.builders import tiny_base
from tests.moehub.conftest import LAW, Run, Small


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the same shape with other weights."""
    return tiny_base(tmp_path_factory.mktemp("stranger") / "base", seed=7)


def test_a_folder_is_what_its_files_say(small: Small, tmp_path: Path) -> None:
    """A card makes an expert, `model_type` makes a MoE, and anything else can only be a base."""
    assert [kind_of(folder) for folder in (small.base, small.law, small.moe)] == ["base", "expert", "moe"]
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    assert kind_of(tmp_path) == "base"
    (tmp_path / "config.json").write_bytes(b"\xff{")
    assert kind_of(tmp_path) == "base"


def test_every_kind_opens_with_its_name_and_the_same_words(small: Small) -> None:
    """Base, expert and MoE share one tokenizer, are named after themselves, and are ready for use."""
    found = {
        "base": open_model(str(small.base)),
        "expert": open_model(str(small.law), base=str(small.base)),
        "moe": open_model(str(small.moe)),
    }
    assert {kind: (one.kind, one.name) for kind, one in found.items()} == {
        "base": ("base", "base"),
        "expert": ("expert", "law"),
        "moe": ("moe", "moe"),
    }
    assert len({tuple(one.tokenizer(LAW)["input_ids"]) for one in found.values()}) == 1
    assert not any(one.model.training for one in found.values())


@torch.no_grad()
def test_an_expert_opens_as_its_adapter_on_its_base(small: Small) -> None:
    """The expert's logits are those of the MoE forced to it, and not those of the base."""
    expert, moe, base = (open_model(str(one), base=str(small.base)) for one in (small.law, small.moe, small.base))
    ids = expert.tokenizer(LAW, return_tensors="pt")["input_ids"]
    with moe.model.forced("law"):
        torch.testing.assert_close(expert.model(ids).logits, moe.model(ids).logits, atol=1e-5, rtol=0)
    assert float((expert.model(ids).logits - base.model(ids).logits).abs().max()) > 1e-2


def test_options_reach_whatever_is_opened(small: Small) -> None:
    """`dtype` reaches all three; `backend` reaches the MoE and does not disturb the others."""
    for reference in (small.base, small.law, small.moe):
        opened = open_model(str(reference), base=str(small.base), dtype=torch.bfloat16, backend="loop")
        assert opened.model.get_input_embeddings().weight.dtype == torch.bfloat16
        assert opened.kind != "moe" or opened.model.backend == "loop"


@pytest.mark.parametrize("kind", ["law", "moe"])
def test_a_base_with_other_weights_is_refused(small: Small, stranger: Path, kind: str) -> None:
    """Neither an expert nor a MoE opens on a base that it was not trained on, though all shapes fit."""
    digest = bases.weights_digest(stranger)[:12]
    with pytest.raises(BaseModelError, match=rf"has digest {digest}, expected .*--base"):
        open_model(str(getattr(small, kind)), base=str(stranger))


def test_a_base_saved_in_other_files_is_the_same_base(small: Small, tmp_path: Path) -> None:
    """How the base's tensors are cut into files does not matter: their digest does."""
    moved = shutil.copytree(small.base, tmp_path / "moved")
    tensors = load_file(moved / "model.safetensors")
    names = sorted(tensors)
    (moved / "model.safetensors").unlink()
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, moved / file, metadata={"format": "pt"})
    index = {name: file for file, part in halves.items() for name in part}
    (moved / "model.safetensors.index.json").write_text(
        f'{{"metadata": {{}}, "weight_map": {index!r}}}'.replace("'", '"'), encoding="utf-8"
    )
    assert open_model(str(small.law), base=str(moved)).name == "law"


def test_an_expert_without_its_base_says_how_to_name_it(small: Small, tmp_path: Path) -> None:
    """An expert's card names its base by folder name only; where that is no place, --base is the cure."""
    with pytest.raises(BaseModelError, match=r"the base base of 'law' was not found: name it with --base"):
        open_model(str(small.law))
    with pytest.raises(BaseModelError, match="was not found: name it with --base"):
        open_model(str(small.law), base=str(tmp_path / "nowhere"))


def test_what_is_damaged_is_refused(small: Small, tmp_path: Path) -> None:
    """A changed file of an expert, and a MoE whose expert was exchanged, are not opened."""
    law = shutil.copytree(small.law, tmp_path / "law")
    (law / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ExpertError, match="is not the expert its card describes"):
        open_model(str(law), base=str(small.base))
    moe = shutil.copytree(small.moe, tmp_path / "moe")
    shutil.rmtree(moe / "experts" / "law")
    shutil.copytree(small.code, moe / "experts" / "law")
    with pytest.raises(MergeError, match="is not the one that was merged"):
        open_model(str(moe))


def test_what_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    """Neither a folder nor a name a hub could serve."""
    with pytest.raises(BaseModelError, match="there is no folder"):
        open_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"is no base: it has no config\.json"):
        open_model(str(tmp_path / "empty"))


@torch.no_grad()
def test_what_was_pulled_from_a_hub_opens(small: Small, run: Run, tmp_path: Path) -> None:
    """A MoE with its base inside went through a hub, and says what it said before."""
    options = ("--expert", small.law, "--embed-base", "--output", tmp_path / "moe")
    assert run("merge", "--base", small.base, *options).exit_code == 0
    hub = open_hub(str(tmp_path / "hub"))
    hub.push(tmp_path / "moe", "acme/moe", message="first")
    hub.pull("acme/moe", None, tmp_path / "pulled")
    first, second = (open_model(str(tmp_path / name)) for name in ("moe", "pulled"))
    ids = first.tokenizer(LAW, return_tensors="pt")["input_ids"]
    assert torch.equal(first.model(ids).logits, second.model(ids).logits)
