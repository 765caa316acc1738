"""What it costs to add an expert to a MoE and to take it out again.

    python -m benchmarks.change [--experts 100] [--repeats 3]

A Llama with random weights (hidden 512, 4 layers, vocabulary 32768); every expert has LoRA rank 16 on all linears and
counts of 300,000 tokens (2^16 pair buckets), two thirds of them from words of its own. CPU seconds of this process,
everything included: reading the new expert, the admission gate, making its tables, writing the folder anew.
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
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, STATISTICS_FILE, BasePin, Card, Stage
from moehub.experts.folder import seal
from moehub.experts.linears import linear_shapes
from moehub.experts.statistics import Statistics, count
from moehub.merge.merging import Recipe, prepare, prepare_change

VOCABULARY, PAIR_BITS, RANK, TOKENS = 32768, 16, 16, 300_000


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
        recipe = Recipe(
            base=str(base.folder), experts=tuple(map(str, experts[:-1])), null=str(_null(folder / "null", pin))
        )
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
    tensors, targets = {}, set()
    for linear, (d_out, d_in) in linear_shapes(base.load_config().to_dict()).items():
        if linear != "lm_head":
            targets.add(linear.rpartition(".")[2])
            tensors[f"base_model.model.{linear}.lora_A.weight"] = torch.randn(RANK, d_in, generator=generator) / 20
            tensors[f"base_model.model.{linear}.lora_B.weight"] = torch.randn(d_out, RANK, generator=generator) / 20
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    lora = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": sorted(targets)}
    files.write_text(folder / ADAPTER_CONFIG, files.to_json(lora))
    own = torch.randperm(VOCABULARY, generator=generator)[_words(TOKENS, generator)]
    text = own.where(torch.rand(TOKENS, generator=generator) < 2 / 3, _words(TOKENS, generator))
    _count(text, pin).save(folder / STATISTICS_FILE)
    card = Card(
        name=f"expert-{folder.name}",
        domain="random",
        base=pin,
        rank=RANK,
        alpha=RANK,
        targets=tuple(sorted(targets)),
        license="apache-2.0",
        stages=(Stage("pretrain", tokens=TOKENS, steps=1, examples=1, seconds=1.0),),
        metrics=None,
        files={},
    )
    seal(folder, card)
    return folder


def _null(folder: Path, pin: BasePin) -> Path:
    folder.mkdir()
    _count(_words(TOKENS, torch.Generator().manual_seed(0)), pin).save(folder / STATISTICS_FILE)
    return folder


def _words(number: int, generator: torch.Generator) -> torch.Tensor:
    """Return token ids whose frequency falls with their number, as that of words does."""
    return (VOCABULARY ** torch.rand(number, generator=generator)).long() - 1


def _count(text: torch.Tensor, pin: BasePin) -> Statistics:
    return count([text], tokenizer=pin.tokenizer, vocabulary=VOCABULARY, pair_bits=PAIR_BITS)


if __name__ == "__main__":
    main()
