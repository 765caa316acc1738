"""Exporting as Mixtral, beside `cp` of the bytes that are written.

A Llama with random weights in bfloat16 (hidden 1024, 16 layers, intermediate 2816, vocabulary 8192) and eight experts
of rank 16 on the FFN. Wall time with everything in the page cache; both sides write new files and flush them to disk.
Memory is that of a process that does nothing but export, beside what it has when the libraries are imported. Needs
about 6 GB of disk. mergekit-moe is measured where it is installed; it begins with dense copies of the experts,
which are made before the clock starts.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.engine import Ratio, Row, interleaved
from moehub import base as bases
from moehub import files
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, STATISTICS_FILE, BasePin, Card, Stage
from moehub.experts.folder import seal
from moehub.experts.linears import linear_shapes
from moehub.experts.statistics import count
from moehub.merge.exporting.dense import Dense
from moehub.merge.exporting.mapped import mapped
from moehub.merge.exporting.mixtral import Mixtral, no_gates
from moehub.merge.exporting.streaming import place, write_weights
from moehub.merge.load import Parts, load_parts
from moehub.merge.merging import Recipe, prepare

VOCABULARY, HIDDEN, LAYERS, INTERMEDIATE, EXPERTS, RANK = 8192, 1024, 16, 2816, 8, 16
_MERGEKIT = "mergekit-moe"
_ALONE = """
import sys
from pathlib import Path
from benchmarks.engine.export import memory, stream
from moehub.merge.load import load_parts
before = memory()
parts = load_parts(sys.argv[1], base=None, hub_options={})
loaded = memory()
stream(parts, Path(sys.argv[2]))
print(before["RssAnon"], loaded["RssAnon"], memory()["RssAnon"], before["VmHWM"], memory()["VmHWM"])
"""


def measure(turns: int) -> list[Row]:
    """Return the time and the memory that writing the Mixtral takes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        moe = _moe(folder)
        parts = load_parts(str(moe), base=None, hub_options={})
        stream(parts, folder / "original")
        original = folder / "original" / "model.safetensors"
        works: dict[str, Callable[[], object]] = {
            "cp": lambda: _copy(original, folder / "copy"),
            "moehub": lambda: stream(parts, folder / "streamed"),
        }
        if shutil.which(_MERGEKIT):
            works[_MERGEKIT] = _peer(parts, folder)
        ratios, seconds = interleaved(works, against="cp", turns=turns, clock=time.perf_counter)
        size = original.stat().st_size / 2**20
        case = f"{EXPERTS} experts of rank {RANK}, bfloat16, {size:.0f} MiB"
        others = f"cp {seconds:.2f} s; {_MERGEKIT} {_or_absent(ratios.get(_MERGEKIT))}"
        shutil.rmtree(folder / "streamed")
        shutil.rmtree(folder / "copy")
        return [
            Row("export as Mixtral, wall time", case, f"{ratios['moehub']} × cp", "≤ 1.3 × cp", others),
            Row("export as Mixtral, memory", case, _memory_alone(moe, folder / "alone"), "O(one tensor)"),
        ]


def stream(parts: Parts, output: Path) -> None:
    """Write the weights and flush them, with gates of zeros: what it costs to solve gates depends on the text."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    gates = no_gates(parts.base.load_config(), EXPERTS).bfloat16()
    with mapped(parts.base.folder) as base:
        write_weights(place(Mixtral().items(parts, gates), base), base, output)
    for path in output.iterdir():
        files.flush(path)


def memory() -> dict[str, int]:
    """Return this process's resident memory, most and now, and what of that is its own: MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(("VmHWM", "RssAnon"))}


def _copy(original: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["cp", "--reflink=never", str(original), str(folder)], check=True)  # noqa: S603, S607 (the rival)
    files.flush(folder / original.name)


def _memory_alone(moe: Path, output: Path) -> str:
    command = [sys.executable, "-c", _ALONE, str(moe), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (ourselves)
    imported, loaded, after, least, most = map(int, done.stdout.split())
    return (
        f"{most} MiB at most, {least} of them after the imports; of its own {imported} after the imports, "
        f"{loaded} with the adapters, {after} at the end"
    )


def _peer(parts: Parts, folder: Path) -> Callable[[], object]:
    """Return a run of mergekit-moe over dense copies of the experts."""
    experts = []
    for expert in parts.experts:
        dense = folder / "dense" / expert.name
        dense.mkdir(parents=True)
        Dense(expert.name).plan(parts).write(dense)
        experts.append({"source_model": str(dense), "positive_prompts": [expert.name]})
    recipe = {"base_model": str(parts.base.folder), "gate_mode": "random", "dtype": "bfloat16", "experts": experts}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [_MERGEKIT, str(folder / "recipe.yaml"), str(folder / "peer"), "--copy-tokenizer"]

    def run() -> None:
        shutil.rmtree(folder / "peer", ignore_errors=True)
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 (the peer)
        for path in (folder / "peer").iterdir():
            files.flush(path)

    return run


def _or_absent(ratio: Ratio | None) -> str:
    return "not installed" if ratio is None else f"{ratio} × cp"


def _moe(folder: Path) -> Path:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
    )
    with bases.quiet_transformers():
        LlamaForCausalLM(config).bfloat16().save_pretrained(folder / "base")
        vocabulary = {f"w{number}": number for number in range(VOCABULARY)}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "w0")))
        tokenizer.save_pretrained(folder / "base")
    base = bases.find(str(folder / "base"))
    pin = base.pin()
    experts = tuple(str(_expert(folder / f"expert-{number}", base, pin, number)) for number in range(EXPERTS))
    with prepare(Recipe(str(base.folder), experts)) as prepared:
        prepared.write(folder / "moe")
    return folder / "moe"


def _expert(folder: Path, base: bases.Base, pin: BasePin, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    tensors = {}
    for linear, (d_out, d_in) in linear_shapes(base.load_config().to_dict()).items():
        if ".mlp." in linear:
            tensors[f"base_model.model.{linear}.lora_A.weight"] = torch.randn(RANK, d_in, generator=generator) / 50
            tensors[f"base_model.model.{linear}.lora_B.weight"] = torch.randn(d_out, RANK, generator=generator) / 50
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    targets = ("down_proj", "gate_proj", "up_proj")
    lora = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(targets)}
    files.write_text(folder / ADAPTER_CONFIG, files.to_json(lora))
    # The frequency of words falls with their number, and each expert has words of its own.
    common, own = ((VOCABULARY ** torch.rand(30_000, generator=generator)).long() - 1 for _ in range(2))
    mine = torch.rand(30_000, generator=generator) < 2 / 3
    ids = torch.where(mine, torch.randperm(VOCABULARY, generator=generator)[own], common)
    counted = count([ids], tokenizer=pin.tokenizer, vocabulary=VOCABULARY, pair_bits=16)
    counted.save(folder / STATISTICS_FILE)
    card = Card(
        name=folder.name,
        domain="random",
        base=pin,
        rank=RANK,
        alpha=RANK,
        targets=targets,
        license="apache-2.0",
        stages=(Stage("pretrain", tokens=len(ids), steps=1, examples=1, seconds=1.0),),
        metrics=None,
        files={},
    )
    seal(folder, card)
    return folder
