import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from moehub import files
from moehub.errors import MergeError
from moehub.merge.exporting.adapters import METHODS, PRUNING, Experts, Mixture
from moehub.merge.exporting.exporting import export, prepare
from moehub.merge.load import load_parts
from moehub.merge.merging import Recipe
from moehub.merge.merging import prepare as prepare_merge
from tests.builders import tiny_expert
from tests.merge.exporting.conftest import FFN, Small, make_small
from tests.world import CODE, LAW


@pytest.fixture(scope="module")
def alike(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A MoE of two experts of one rank; both are scaled by 1/√r."""
    folder = tmp_path_factory.mktemp("alike")
    experts = [
        tiny_expert(folder / name, small.base, name=name, text=text * 30, seed=seed, targets=targets, use_rslora=True)
        for seed, (name, text, targets) in enumerate([("law", LAW, FFN), ("v1.5", CODE, ("q_proj", "up_proj"))])
    ]
    with prepare_merge(Recipe(str(small.base), tuple(map(str, experts)))) as prepared:
        prepared.write(folder / "moe")
    return Small(folder, small.base, folder / "moe", {})


def load(small: Small, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        return PeftModel.from_pretrained(small.parts.base.load_model(dtype=torch.float32), str(folder)).eval()


def deltas(adapter: Any) -> dict[str, torch.Tensor]:
    return {key: adapter.scales[key] * B @ A for key, (A, B) in adapter.pairs.items()}


def test_each_expert_is_a_folder_that_peft_loads(small: Small, tmp_path: Path) -> None:
    """PEFT's two files to the byte, with the publisher's card, and nothing of moehub's."""
    Experts().plan(small.parts).write(tmp_path)
    for name in ("code", "law"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "README.md",
        }
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            assert files.sha256(tmp_path / name / file) == files.sha256(small.moe / "experts" / name / file)
        load(small, tmp_path / name)


@pytest.mark.parametrize("method", METHODS)
def test_peft_mixes_by_each_of_its_methods(alike: Small, tmp_path: Path, method: str) -> None:
    """The result is one adapter; the same mixture twice is the same bytes; `cat` is the exact sum."""
    density = 0.7 if method in PRUNING else None
    mixture = Mixture({"law": 0.75, "v1.5": 0.5}, method, density)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        mixture.plan(alike.parts).write(folder)
    assert files.tree_digest(tmp_path / "one") == files.tree_digest(tmp_path / "two")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    model = load(alike, tmp_path / "one")
    law, code = (deltas(adapter) for adapter in load_parts(str(alike.moe), base=None, hub_options={}).adapters)
    if method not in ("cat", "svd"):
        return
    modules = dict(model.base_model.model.named_modules())
    for key in {*law, *code}:
        zero = torch.zeros_like(modules[key].base_layer.weight)
        expected = 0.75 * law.get(key, zero) + 0.5 * code.get(key, zero)
        got = modules[key].get_delta_weight("default")
        if method == "cat" or key not in law or key not in code:
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        else:  # rank 4 of a sum of rank 8
            assert float((got - expected).norm()) < float(expected.norm())


def test_the_configuration_names_the_base_and_no_path(alike: Small, tmp_path: Path) -> None:
    """As published adapters do."""
    Mixture({"law": 1.0, "v1.5": -0.5}).plan(alike.parts).write(tmp_path)
    text = (tmp_path / "adapter_config.json").read_text(encoding="utf-8")
    assert '"base_model_name_or_path": "base"' in text
    assert str(alike.folder) not in text
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(tmp_path / "adapter_model.safetensors").values())


@pytest.mark.parametrize(
    ("mixture", "sentence"),
    [
        (Mixture({"law": 1.0}), "two or more experts"),
        (Mixture({"law": 1.0, "music": 1.0}), "no expert 'music'"),
        (Mixture({"law": 1.0, "code": 1.0}, "average"), "PEFT has no method 'average', expected linear"),
        (Mixture({"law": 1.0, "code": 1.0}, "ties"), "give --density"),
        (Mixture({"law": 1.0, "code": 1.0}, "linear", 0.5), "leave --density out"),
        (Mixture({"law": 1.0, "code": 1.0}, "ties", 1.5), "above 0 and at most 1"),
        (Mixture({"law": float("nan"), "code": 1.0}), "expected a finite number"),
    ],
)
def test_what_cannot_be_mixed_is_refused(small: Small, mixture: Mixture, sentence: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(MergeError, match=sentence):
        mixture.plan(small.parts)


def test_dora_goes_as_an_adapter_of_its_own_only(tmp_path: Path) -> None:
    """PEFT's files pass through and are the MoE sent to the expert; PEFT's ways to mix would lose what rescales."""
    small = make_small(tmp_path / "small", dora=True)
    report = export(prepare(str(small.moe), Experts(), base=None, texts={}), tmp_path / "out")
    assert report.parity is not None
    assert [one.name for one in report.parity] == ["code", "law"]
    assert all(one.largest < 1e-4 for one in report.parity)
    name = "adapter_model.safetensors"
    assert files.sha256(tmp_path / "out" / "law" / name) == files.sha256(small.moe / "experts" / "law" / name)
    with pytest.raises(MergeError, match="law is a DoRA expert, and PEFT merges plain LoRAs only"):
        Mixture({"law": 0.5, "code": 0.5}, "cat").plan(small.parts)


def test_other_ranks_get_peft_s_reason_and_a_cure(small: Small, tmp_path: Path) -> None:
    """`linear` takes adapters of one rank."""
    with pytest.raises(MergeError, match=r"must have the same r value.*try --method cat or --method svd"):
        Mixture({"law": 0.5, "code": 0.5}).plan(small.parts).write(tmp_path)
