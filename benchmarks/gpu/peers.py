"""What PEFT takes for the same: several adapters at once by row, and Arrow, each beside the base."""

import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
from peft import ArrowConfig, LoraConfig, PeftModel, create_arrow_model, get_peft_model
from torch import Tensor

from benchmarks.gpu import Budget, Run, Table
from benchmarks.gpu.model import EXPERTS, LINEARS, RANK, llama, works
from benchmarks.gpu.timing import Spread


@torch.no_grad()
def measure(run: Run, budget: Budget) -> Table:
    """Return how many times the seconds of the base each takes, with as many adapters as could be loaded in time."""
    table = Table(("work", "adapters", "base, ms", "PEFT, mixed batch", "PEFT Arrow, top 2"))
    given = works(run)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers under old names
        folder = _adapter(run, Path(place))
        plain = _times(run, llama(run), given)
        mixed, loaded = _mixed(run, folder, given, budget.share(0.3))
        arrow = {} if budget.spent() else _arrow(run, folder, given, loaded)
    if not arrow:
        table.notes.append("Out of time before Arrow.")
    for work, base in plain.items():
        cells = [found[work].over(base) if work in found else "–" for found in (mixed, arrow)]
        table.rows.append((work, f"{loaded}", f"{base.median * 1e3:.2f}", *cells))
        run.say(" | ".join(table.rows[-1]))
    return table


def _adapter(run: Run, place: Path) -> Path:
    """Write one random adapter, which is then loaded under many names."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(LINEARS), init_lora_weights=False)
    get_peft_model(llama(run), config).save_pretrained(place)
    return place


def _mixed(run: Run, folder: Path, given: dict[str, Tensor], loading: Budget) -> tuple[dict[str, Spread], int]:
    """Return the seconds with an adapter of its own for each row, and how many adapters were loaded."""
    model = PeftModel.from_pretrained(llama(run), str(folder), adapter_name="0", autocast_adapter_dtype=False)
    loaded = 1
    while loaded < (3 if run.small else EXPERTS) and not loading.spent():
        model.load_adapter(str(folder), str(loaded), autocast_adapter_dtype=False)
        loaded += 1
    model.eval()
    rows = {work: [str(row % loaded) for row in range(len(ids))] for work, ids in given.items()}
    return {
        work: run.timer.time(partial(model, input_ids=ids, use_cache=False, logits_to_keep=1, adapter_names=rows[work]))
        for work, ids in given.items()
    }, loaded


def _arrow(run: Run, folder: Path, given: dict[str, Tensor], adapters: int) -> dict[str, Spread]:
    paths = [str(folder)] * adapters
    model = create_arrow_model(llama(run), paths, ArrowConfig(top_k=2), autocast_adapter_dtype=False)
    return _times(run, model.eval(), given)


def _times(run: Run, model: torch.nn.Module, given: dict[str, Tensor]) -> dict[str, Spread]:
    return {
        work: run.timer.time(partial(model, input_ids=ids, use_cache=False, logits_to_keep=1))
        for work, ids in given.items()
    }
