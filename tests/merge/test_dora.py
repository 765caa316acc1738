"""DoRA experts inside a MoE: PEFT's own model of one, and the formula for mixtures."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from moehub import base as bases
from moehub import files
from moehub.card import read_card
from moehub.errors import BaseModelError, ExpertError, MergeError
from moehub.experts.adapter import Adapter
from moehub.experts.folder import seal
from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.merge.model import MoehubForCausalLM
from moehub.merge.stack import shelve
from moehub.router.backends import NATIVE
from moehub.router.diagonal import Diagonal
from moehub.router.layer import Switchboard
from moehub.router.route import Route
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.merge.stacked import stacked
from tests.world import CODE, GENERIC, LAW, MATH

SEA = "waves broke over the bow while gulls cried. "
BACKENDS = (NATIVE, "loop", "dense", "grouped", "gather")
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"targets": "all-linear"},
    "qwen2": {"targets": "all-linear"},  # biases beside q, k and v
    "gpt2": {"targets": ("c_attn", "c_proj", "c_fc"), "fan_in_fan_out": True},
}


def merge(base: Path, output: Path, *experts: Path, null: Path | None = None, method: str = "evidence") -> Path:
    recipe = Recipe(
        str(base), tuple(map(str, experts)), None if null is None else str(null), RouterSettings(method=method)
    )
    with prepare(recipe) as prepared:
        prepared.write(output)
    return output


def load(moe: Path, **options: Any) -> MoehubForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(moe, **({"dtype": torch.float32} | options))
    assert isinstance(model, MoehubForCausalLM)
    return model


def encoded(moe: Path, text: str = LAW + CODE + MATH) -> Tensor:
    ids: Tensor = AutoTokenizer.from_pretrained(moe)(text, return_tensors="pt")["input_ids"]
    return ids


def worn(base: Path, expert: Path, **options: Any) -> Any:
    """Return PEFT's own model of an expert."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        plain = bases.find(str(base)).load_model(**({"dtype": torch.float32} | options))
        return PeftModel.from_pretrained(plain, str(expert)).eval()


@pytest.fixture(scope="module", params=KINDS)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base whose biases are not zero, a DoRA expert on its linears, and the MoE of that."""
    folder = tmp_path_factory.mktemp(request.param)
    base = biased(tiny_base(folder / "base", architecture=request.param))
    expert = tiny_expert(folder / "law", base, use_dora=True, **KINDS[request.param])
    return base, expert, merge(base, folder / "moe", expert)


def biased(base: Path) -> Path:
    """Give a base that was made at random biases that are not zero."""
    path, draw = base / "model.safetensors", torch.Generator().manual_seed(5)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensors[name] = torch.randn(tensor.shape, generator=draw)
    save_file(tensors, path, metadata={"format": "pt"})
    return base


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], Path]:
    """A base with biases, a LoRA, a rank-stabilised LoRA and two DoRAs, and the MoE of the four with a null expert."""
    folder = tmp_path_factory.mktemp("mixed")
    base = biased(tiny_base(folder / "base", architecture="qwen2"))
    (folder / "null.txt").write_text(GENERIC * 20, encoding="utf-8")
    every = "all-linear"
    experts = {
        "law": tiny_expert(folder / "law", base, name="law", text=LAW * 30, use_dora=True, targets=every),
        "code": tiny_expert(folder / "code", base, name="code", text=CODE * 30, rank=7, seed=2, targets=every),
        "math": tiny_expert(folder / "math", base, name="math", text=MATH * 30, rank=2, seed=3, use_rslora=True),
        "prose": tiny_expert(
            folder / "prose", base, name="prose", text=SEA * 30, rank=3, seed=4, use_dora=True, use_rslora=True
        ),
    }
    return base, experts, merge(base, folder / "moe", *experts.values(), null=folder / "null.txt")


class Plain(nn.Module):
    """A linear with experts beside it, by the formula alone."""

    def __init__(self, linear: Any, adapters: list[Adapter], key: str, weights: Tensor) -> None:
        super().__init__()
        self.linear, self.weights = linear, weights
        W = linear.weight.T if isinstance(linear, Conv1D) else linear.weight
        self.made = [made_by(adapter, key, W) - W for adapter in adapters]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        weights = self.weights.to(x.dtype).view(*x.shape[:-1], -1)
        return y + sum(weights[..., e, None] * (x @ change.T) for e, change in enumerate(self.made))


def made_by(adapter: Adapter, key: str, W: Tensor) -> Tensor:
    """Return the weight that an adapter makes of W."""
    if key not in adapter.pairs:
        return W
    A, B = adapter.pairs[key]
    made = W + adapter.scales[key] * B @ A
    if key in adapter.magnitudes:
        made = made * (adapter.magnitudes[key] / made.norm(dim=1))[:, None]
    return made


def reference(model: MoehubForCausalLM, base: Path, ids: Tensor, weights: Tensor) -> Tensor:
    """Return the logits of the base with the experts of a MoE in it, mixed by these weights [B, T, E]."""
    plain = bases.find(str(base)).load_model(dtype=torch.float32)
    for key in model.sparse_layers:
        parent, _, name = key.rpartition(".")
        module = plain.get_submodule(parent)
        setattr(module, name, Plain(getattr(module, name), list(model.parts.adapters), key, weights))
    return plain(ids).logits


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_one_expert_is_pefts_own_model(alone: tuple[Path, Path, Path], backend: str) -> None:
    """Logits, in one forward and token by token, and what is generated are PEFT's; biases are not rescaled."""
    base, expert, moe = alone
    ids, model, theirs = encoded(moe), load(moe, backend=backend), worn(base, expert)
    expected = theirs(ids).logits
    torch.testing.assert_close(model(ids).logits, expected, atol=2e-5, rtol=1e-5)
    output = model(ids[:, :9], use_cache=True)
    steps = [output.logits]
    for at in range(9, ids.shape[1]):
        output = model(ids[:, at : at + 1], past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-4, rtol=1e-5)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **options), theirs.generate(input_ids=ids, **options))


@torch.no_grad()
def test_rescaling_is_what_makes_the_difference(alone: tuple[Path, Path, Path]) -> None:
    """The same matrices without magnitudes give other logits, so that the tests above would notice."""
    _, _, moe = alone
    ids, model = encoded(moe), load(moe)
    before = model(ids).logits
    assert model.shelf is not None
    for diagonal in model.shelf.diagonals.values():
        diagonal.table.zero_()
    assert (model(ids).logits - before).abs().max() > 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_sixteen_bits_are_as_near_as_pefts(alone: tuple[Path, Path, Path], backend: str) -> None:
    """In bfloat16 the MoE is no further from float32 than twice what PEFT is, or a few roundings."""
    base, expert, moe = alone
    ids = encoded(moe)
    whole = worn(base, expert)(ids).logits
    theirs = worn(base, expert, dtype=torch.bfloat16)(ids).logits.float()
    mine = load(moe, backend=backend, dtype=torch.bfloat16)(ids).logits.float()
    assert (mine - whole).abs().mean() <= 2 * (theirs - whole).abs().mean() + 2**-8 * whole.abs().mean()


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_mixtures_follow_the_formula(mixed: tuple[Path, dict[str, Path], Path], backend: str) -> None:
    """LoRA, rank-stabilised LoRA and DoRA side by side, each token with the weights that the gate gives it."""
    base, _, moe = mixed
    model, ids = load(moe, backend=backend), encoded(moe, LAW + CODE + MATH + SEA)
    weights = model.trace(ids)[..., :-1]
    assert ((weights > 0.01).sum(-1) > 1).any()
    torch.testing.assert_close(model(ids).logits, reference(model, base, ids, weights), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_formula(mixed: tuple[Path, dict[str, Path], Path], backend: str) -> None:
    """Of a linear's input and of the gate's weights, through the diagonal and the low-rank part."""
    _, _, moe = mixed
    model = load(moe, backend=backend)
    key = "model.layers.0.self_attn.q_proj"
    layer, draw = model.sparse_layers[key], torch.Generator().manual_seed(1)
    weights = torch.rand(11, len(model.names), generator=draw)
    indices = torch.arange(len(model.names)).expand(11, -1)
    x, probe = torch.randn(11, 32, generator=draw), torch.randn(11, 32, generator=draw)
    found = []
    for path in ("mine", "theirs"):
        given = {"x": x.clone().requires_grad_(), "weights": weights.clone().requires_grad_()}
        if path == "mine":
            route = Route(indices, given["weights"], len(model.names))
            out = layer.routed(Fixed(route), given["x"], layer.linear(given["x"]))
        else:
            out = Plain(layer.linear, list(model.parts.adapters), key, given["weights"])(given["x"])
        (out * probe).sum().backward()
        found.append({name: one.grad for name, one in given.items()})
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_no_dora_touches_costs_and_changes_nothing(
    mixed: tuple[Path, dict[str, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A MoE of plain LoRAs has no diagonal; sent to a LoRA, one that holds DoRAs is to the bit as if it held none."""
    base, experts, moe = mixed
    plain = load(merge(base, moe.with_name("plain"), experts["code"], experts["math"]))
    assert all(layer.diagonal is None for layer in plain.sparse_layers.values())
    model, ids = load(moe), encoded(moe)
    asked: list[Route] = []
    monkeypatch.setattr(Diagonal, "forward", lambda *given: asked.append(given[-1]))
    with model.forced("code"), plain.forced("code"):
        assert torch.equal(model(ids).logits, plain(ids).logits)
    assert model.shelf is not None
    assert not any(bool(one.table.any()) for one in model.shelf.diagonals.values())  # no d was computed
    assert not asked


@torch.no_grad()
def test_an_expert_that_is_put_back_comes_again(mixed: tuple[Path, dict[str, Path], Path]) -> None:
    """With room for nobody, experts come and go, and the logits stay."""
    _, _, moe = mixed
    model, ids = load(moe, resident=1), encoded(moe)
    expected = load(moe)(ids).logits
    for _ in range(2):
        for name in ("law", "code", "prose"):
            with model.forced(name):
                model(ids)
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-6, rtol=0)
    assert model.shelf is not None
    assert model.shelf.usage.brought > len(model.names)


def test_adding_and_removing_is_exact(mixed: tuple[Path, dict[str, Path], Path], tmp_path: Path) -> None:
    """Experts are in the MoE byte for byte, and one that was added and removed leaves no trace."""
    base, experts, _ = mixed
    moe = merge(base, tmp_path / "moe", experts["law"], experts["code"])
    before = files.tree_digest(moe)
    with prepare_change(moe, add=(str(experts["prose"]),)) as change:
        change.write()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert files.sha256(moe / "experts" / "prose" / file) == files.sha256(experts["prose"] / file)
    with prepare_change(moe, remove=("prose",)) as change:
        change.write()
    assert files.tree_digest(moe) == before


@torch.no_grad()
def test_without_a_dora_it_is_the_moe_that_removing_makes(
    mixed: tuple[Path, dict[str, Path], Path], tmp_path: Path
) -> None:
    """In memory and on disk."""
    base, experts, _ = mixed
    model = load(merge(base, tmp_path / "moe", *experts.values()))
    rest = load(merge(base, tmp_path / "rest", *(experts[name] for name in experts if name != "law")))
    ids = encoded(tmp_path / "moe")
    with model.without("law"):
        torch.testing.assert_close(model(ids).logits, rest(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_likelihood_asks_the_rescaled_expert(mixed: tuple[Path, dict[str, Path], Path], tmp_path: Path) -> None:
    """What a gate hears of a DoRA expert is what PEFT's model of it says."""
    base, experts, _ = mixed
    moe = merge(base, tmp_path / "moe", experts["law"], experts["code"], method="likelihood")
    model, ids = load(moe), encoded(moe)
    nats, _ = model._audition(ids, torch.ones_like(ids, dtype=torch.bool), ())
    logs = worn(base, experts["law"])(ids).logits[0, :-1].log_softmax(-1)
    expected = logs.gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(nats[0, 1:, model.names.index("law")], expected, atol=1e-4, rtol=1e-4)


def test_training_them_inside_a_moe_is_refused(mixed: tuple[Path, dict[str, Path], Path]) -> None:
    """By the names of those that cannot be trained."""
    with pytest.raises(MergeError, match=r"law, prose of .* cannot be trained inside a MoE, as DoRA experts"):
        load(mixed[2], trainable=True)


@torch.no_grad()
def test_saving_keeps_them_byte_for_byte(mixed: tuple[Path, dict[str, Path], Path], tmp_path: Path) -> None:
    """Whether they are on a shelf or stacked, in whatever precision; one that was changed in the stacks is refused."""
    _, _, moe = mixed
    every: tuple[dict[str, Any], ...] = ({}, {"backend": "loop"}, {"backend": "loop", "dtype": torch.bfloat16})
    for number, options in enumerate(every):
        load(moe, **options).save_pretrained(tmp_path / str(number))
        assert files.tree_digest(tmp_path / str(number)) == files.tree_digest(moe)
    model = load(moe, backend="loop")
    stacked(model, "model.layers.1.mlp.down_proj").B[model.names.index("law"), 0] += 1e-4
    with pytest.raises(MergeError, match=r"the DoRA expert 'law' was changed in memory \(model.layers.1.mlp.down_proj"):
        model.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed").exists()


@pytest.mark.parametrize("backend", [NATIVE, "loop"])
def test_a_row_of_length_zero_is_a_sentence(tmp_path: Path, backend: str) -> None:
    """PEFT would answer with what is no number."""
    base = tiny_base(tmp_path / "base")
    path = base / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.q_proj.weight"][3] = 0
    save_file(tensors, path, metadata={"format": "pt"})
    expert = tiny_expert(tmp_path / "law", base, use_dora=True)
    path = expert / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"][3] = 0
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"][3] = 0.1
    save_file(tensors, path, metadata={"format": "pt"})
    seal(expert, read_card(expert))
    moe = merge(base, tmp_path / "moe", expert)
    with pytest.raises(ExpertError, match="length of a row that is zero, in a linear of 32 outputs"):
        load(moe, backend=backend)(encoded(moe))


def test_a_quantised_base_is_refused_at_once() -> None:
    """Before any token is routed: rows of integers have no length that could be told from them."""
    model: Any = nn.ModuleDict({"first": nn.Linear(6, 10)})
    model["first"].weight = nn.Parameter(model["first"].weight.to(torch.int8), requires_grad=False)
    adapter = Adapter({"first": (torch.randn(2, 6), torch.randn(10, 2))}, {"first": 1.0}, {"first": torch.ones(10)})
    with pytest.raises(BaseModelError, match=r"the weight of 'first' is stored as torch.int8, and a DoRA expert"):
        shelve(model, [adapter], Switchboard(), torch.float32)


class Fixed:
    """A routing that was decided."""

    def __init__(self, route: Route) -> None:
        self.decided = route

    def route(self, key: str, x: Tensor) -> Route:  # noqa: ARG002 (part of the protocol)
        return self.decided
