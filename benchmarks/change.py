"""What it costs to add an expert to a MoE and to take it out again.

    python -m benchmarks.change [--experts 100] [--repeats 3]

A Llama with random weights (hidden 512, 4 layers, vocabulary 32768); every expert has LoRA rank 16 on all linears and
counts of about a million tokens (2^16 pair buckets). CPU seconds of this process, everything included: reading and
checking the new expert, making its tables, writing the folder anew.
"""

import argparse
import platform
import statistics as stats
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moehub import base as bases
from moehub import files
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, STATISTICS_FILE, BasePin, Card
from moehub.experts.folder import seal
from moehub.experts.linears import linear_shapes
from moehub.experts.statistics import Statistics
from moehub.merge.merging import Recipe, prepare, prepare_change

VOCABULARY, PAIR_BITS, RANK = 32768, 16, 16


def main() -> None:
    """Merge, then add and remove one expert some times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = _base(folder / "base")
        pin = base.pin()
        experts = [_expert(folder / f"{number:03d}", base, pin, number) for number in range(chosen.experts + 1)]
        recipe = Recipe(base=str(base.folder), experts=tuple(map(str, experts[:-1])), null=str(experts[-1]))
        with prepare(recipe) as prepared:
            prepared.write(folder / "moe")
        digest = files.tree_digest(folder / "moe")
        added, removed = [], []
        for _ in range(chosen.repeats):
            added.append(_seconds(folder / "moe", add=[str(experts[-1])]))
            removed.append(_seconds(folder / "moe", remove=[f"expert-{experts[-1].name}"]))
        same = files.tree_digest(folder / "moe") == digest
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}; median of {chosen.repeats} [min, max]")
    print("| experts | add, CPU s | remove, CPU s | same bytes afterwards |\n|---|---|---|---|")
    cells = [f"{stats.median(one):.3f} [{min(one):.3f}, {max(one):.3f}]" for one in (added, removed)]
    print(f"| {chosen.experts} | {' | '.join(cells)} | {'yes' if same else 'NO'} |")


def _seconds(moe: Path, *, add: list[str] | None = None, remove: list[str] | None = None) -> float:
    begin = time.process_time()
    with prepare_change(moe, add=add or (), remove=remove or ()) as change:
        change.write()
    return time.process_time() - begin


def _base(folder: Path) -> bases.Base:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8
    )
    with bases.quiet_transformers():
        LlamaForCausalLM(config).save_pretrained(folder)
        vocabulary = {f"w{number}": number for number in range(VOCABULARY)}
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "w0"))).save_pretrained(folder)
    return bases.find(str(folder))


def _expert(folder: Path, base: bases.Base, pin: BasePin, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    tensors = {}
    for linear, (d_out, d_in) in linear_shapes(base.load_config().to_dict()).items():
        if linear != "lm_head":
            tensors[f"base_model.model.{linear}.lora_A.weight"] = torch.randn(RANK, d_in, generator=generator)
            tensors[f"base_model.model.{linear}.lora_B.weight"] = torch.randn(d_out, RANK, generator=generator)
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    files.write_text(folder / ADAPTER_CONFIG, files.to_json({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}))
    # Counts with a long tail, as text has them: about a million tokens, half of the ids and pairs never used.
    unigrams = (20 * torch.rand(VOCABULARY, generator=generator).pow(-0.7)).long() - 30
    pairs = (8 * torch.rand(1 << PAIR_BITS, generator=generator).pow(-0.7)).long() - 12
    Statistics(pin.tokenizer, unigrams.clamp_min(0), pairs.clamp_min(0)).save(folder / STATISTICS_FILE)
    card = Card(
        name=f"expert-{folder.name}",
        domain="random",
        base=pin,
        rank=RANK,
        alpha=RANK,
        targets=("all-linear",),
        license="apache-2.0",
        stages=(),
        metrics=None,
        files={},
    )
    seal(folder, card)
    return folder


if __name__ == "__main__":
    main()
