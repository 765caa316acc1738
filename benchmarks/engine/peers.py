"""What PEFT takes for the same work, beside moehub and the base in one run.

*Arrow*: PEFT's router over its adapters, top 2. *Sum*: all adapters active at once, as a dense mixture computes them.
*Mixed batch*: an adapter by name for each row, no router. A Llama of hidden 1024 with 4 layers, in bfloat16, and
64 adapters of rank 16 on all linears; processor time on one thread. X-LoRA, once saved, cannot be loaded again.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import ArrowConfig, LoraConfig, PeftModel, create_arrow_model, get_peft_model
from torch import Tensor

from benchmarks.engine import Row, interleaved, world
from moehub.console import console

_EXPERTS, _LAYERS = 64, 4
_WORKS = {"prefill": (4, 256), "decode 1": (1, 1), "decode 8": (8, 1)}


def measure(turns: int) -> list[Row]:
    """Return a row for each work, with moehub's ratio to the base and the peers'."""
    torch.set_num_threads(1)
    plain = world.base(torch.bfloat16, layers=_LAYERS)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PEFT asks transformers under old names
        files = world.write_experts(Path(folder) / "experts", plain, _EXPERTS)
        ours = world.moe(plain, world.mapped(files), world.gate(_EXPERTS))
        console.print("loading PEFT's adapters", markup=False)
        place = _adapter(plain, Path(folder) / "peft")
        mixed = _loaded(plain, place)
        summed = _loaded(plain, place)
        summed.base_model.set_adapter([str(number) for number in range(_EXPERTS)])
        arrow = create_arrow_model(
            world.twin(plain), [str(place)] * _EXPERTS, ArrowConfig(top_k=2), autocast_adapter_dtype=False
        ).eval()
        return [
            _row(work, {"base": plain, "moehub": ours, "Arrow": arrow, "sum": summed, "mixed batch": mixed}, turns)
            for work in _WORKS
        ]


def _row(work: str, models: dict[str, Any], turns: int) -> Row:
    batch, tokens = _WORKS[work]
    ids = world.text(_EXPERTS).rows.repeat(2, 1)[:batch, :tokens]
    works = {name: _forward(name, model, ids) for name, model in models.items()}
    ratios, seconds = interleaved(works, against="base", turns=min(turns, 3))
    others = ", ".join(f"{name} {ratios[name].median:.1f}" for name in ("Arrow", "sum", "mixed batch"))
    case = f"{_EXPERTS} experts, bfloat16, {_LAYERS} layers, real; base {1000 * seconds:.0f} ms"
    return Row(f"{work}, no cache", case, str(ratios["moehub"]), "", others)


def _forward(name: str, model: Any, ids: Tensor) -> Callable[[], object]:
    options: dict[str, Any] = {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}
    if name == "mixed batch":
        options["adapter_names"] = [str(row % _EXPERTS) for row in range(len(ids))]
    return lambda: model(**options)


def _adapter(plain: Any, place: Path) -> Path:
    """Write one random adapter, which is then loaded under many names."""
    config = LoraConfig(r=world.RANK, target_modules=list(world.LINEARS), init_lora_weights=False)
    get_peft_model(world.twin(plain), config).save_pretrained(place)
    return place


def _loaded(plain: Any, place: Path) -> Any:
    model = PeftModel.from_pretrained(world.twin(plain), str(place), adapter_name="0", autocast_adapter_dtype=False)
    for number in range(1, _EXPERTS):
        model.load_adapter(str(place), str(number), autocast_adapter_dtype=False)
    return model.to(torch.bfloat16).eval()
