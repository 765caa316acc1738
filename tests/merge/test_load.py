import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub.errors import BaseModelError, MergeError
from moehub.merge.load import is_moe, load_parts
from moehub.merge.merging import Recipe, prepare
from moehub.merge.model import MoehubForCausalLM
from moehub.router.settings import RouterSettings
from tests.world import CODE, LAW, World


def assemble(world: World, folder: Path, *, method: str = "evidence", embed_base: bool = False) -> Path:
    settings = RouterSettings(method=method)
    with prepare(Recipe(str(world.base), world.references(), None, settings, embed_base=embed_base)) as prepared:
        prepared.write(folder)
    return folder


@pytest.fixture(scope="module")
def moe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE of three experts; tests copy it before they damage it."""
    return assemble(world, tmp_path_factory.mktemp("load") / "moe")


def edited(moe: Path, folder: Path, **changes: Any) -> Path:
    """Return a copy of a MoE whose `config.json` says something else."""
    shutil.copytree(moe, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "llama"}, "is no MoE: expected a folder that `moehub merge` made"),
        ({"router": {"method": "evidence", "temper": 1}}, "unknown key 'temper'"),
        ({"router": {"top_k": 0}}, "top_k = 0, expected 1 or more"),
    ],
)
def test_a_configuration_that_was_edited_badly_is_refused(
    moe: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    """Another model's configuration and settings of another version say what they are."""
    with pytest.raises(MergeError, match=sentence):
        load_parts(str(edited(moe, tmp_path / "moe", **changes)), base=None, hub_options={})


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"null"])
def test_what_is_no_json_object_is_no_moe(tmp_path: Path, content: bytes) -> None:
    """A damaged or foreign configuration is not taken for a MoE's, and is no crash."""
    (tmp_path / "config.json").write_bytes(content)
    assert not is_moe(tmp_path)


def test_a_moe_that_is_nowhere_is_one_sentence(tmp_path: Path) -> None:
    """Neither a folder nor anything a hub could serve; a name that is well formed is looked for in the cache."""
    for reference in (str(tmp_path / "nowhere"), "acme/never-downloaded"):
        with pytest.raises(MergeError, match="there is no MoE"):
            load_parts(reference, base=None, hub_options={"local_files_only": True})


def test_an_embedded_base_that_was_lost_can_be_named(world: World, tmp_path: Path) -> None:
    """Without its base inside, the folder says how to name it elsewhere, and the same base from there is taken."""
    moe = assemble(world, tmp_path / "moe", embed_base=True)
    shutil.rmtree(moe / "base")
    with pytest.raises(BaseModelError, match="name it with --base"):
        load_parts(str(moe), base=None, hub_options={})
    assert load_parts(str(moe), base=str(world.base), hub_options={}).base.folder == world.base


def load(moe: Path) -> tuple[MoehubForCausalLM, torch.Tensor]:
    ids = AutoTokenizer.from_pretrained(moe)(LAW + CODE, return_tensors="pt")["input_ids"]
    return AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32), ids


@torch.no_grad()
def test_a_trace_of_a_layers_gate_is_the_mean_over_layers(world: World, tmp_path: Path) -> None:
    """Where each linear decides for itself, a token's weights are means: never negative, one in all, nobody's none."""
    model, ids = load(assemble(world, tmp_path / "moe", method="arrow"))
    trace = model.trace(ids)
    assert trace.shape == (1, ids.shape[1], 4)
    assert bool((trace >= -1e-6).all())
    torch.testing.assert_close(trace.sum(-1), torch.ones(1, ids.shape[1]))
    torch.testing.assert_close(trace[..., -1], torch.zeros(1, ids.shape[1]), atol=1e-5, rtol=0)
    before = model(ids[:, :5]).logits
    model.trace(ids)
    assert torch.equal(model(ids[:, :5]).logits, before)  # nobody records any more


@torch.no_grad()
def test_forcing_ends_with_its_block(moe: Path) -> None:
    """Inside the block every token goes to the one, nested blocks return to the outer, and an error ends it too."""
    model, ids = load(moe)
    free = model.trace(ids)
    with model.forced("law"):
        law = model.trace(ids)
        with model.forced("null"):
            assert model.trace(ids)[..., -1].tolist() == [[1.0] * ids.shape[1]]
        assert torch.equal(model.trace(ids), law)
    assert law[0, :, model.names.index("law")].tolist() == [1.0] * ids.shape[1]
    with pytest.raises(ZeroDivisionError), model.forced("law"):
        raise ZeroDivisionError
    assert torch.equal(model.trace(ids), free)


def test_the_bases_embeddings_are_shown_and_kept(moe: Path) -> None:
    """Libraries ask for embeddings and output layer; nobody may exchange them."""
    model, _ = load(moe)
    assert model.get_input_embeddings() is model.base.get_input_embeddings()
    assert model.get_output_embeddings() is model.base.get_output_embeddings()
    with pytest.raises(MergeError, match="the base of a MoE cannot be changed"):
        model.set_input_embeddings(torch.nn.Embedding(2, 2))


def test_the_configuration_answers_for_the_base(moe: Path) -> None:
    """Vocabulary, layers and cache are the base's; an empty configuration answers for itself."""
    model, _ = load(moe)
    text = model.config.get_text_config()
    assert (text.model_type, text.num_hidden_layers) == ("llama", 2)
    empty = type(model.config)()
    assert empty.get_text_config() is empty
