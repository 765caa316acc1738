"""Bases and experts of random numbers, whole and publishable: the admission gate takes them for real ones."""

from dataclasses import dataclass
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

PAIR_BITS, RANK, TOKENS = 16, 16, 300_000


@dataclass(frozen=True)
class Size:
    """How large a fabricated base is; its experts have rank 16 on all linears."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    dtype: torch.dtype = torch.float32


def make_base(folder: Path, size: Size) -> bases.Base:
    """Save a Llama with random weights and a tokenizer of one word for each id."""
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    with bases.quiet_transformers():
        LlamaForCausalLM(config).to(size.dtype).save_pretrained(folder)
        vocabulary = {f"w{number}": number for number in range(size.vocabulary)}
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "w0"))).save_pretrained(folder)
    return bases.find(str(folder))


def make_expert(folder: Path, base: bases.Base, pin: BasePin, seed: int, size: Size) -> Path:
    """Save an expert whose counts are of 300,000 tokens, two thirds of them words of its own."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)

    def matrix(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) / 20).to(size.dtype)

    tensors, targets = {}, set()
    for linear, (d_out, d_in) in linear_shapes(base.load_config().to_dict()).items():
        if linear != "lm_head":
            targets.add(linear.rpartition(".")[2])
            tensors[f"base_model.model.{linear}.lora_A.weight"] = matrix(RANK, d_in)
            tensors[f"base_model.model.{linear}.lora_B.weight"] = matrix(d_out, RANK)
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    lora = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": sorted(targets)}
    files.write_text(folder / ADAPTER_CONFIG, files.to_json(lora))
    own = torch.randperm(size.vocabulary, generator=generator)[_words(generator, size)]
    text = own.where(torch.rand(TOKENS, generator=generator) < 2 / 3, _words(generator, size))
    _count(text, pin, size).save(folder / STATISTICS_FILE)
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


def make_null(folder: Path, pin: BasePin, size: Size) -> Path:
    """Save the statistics of generic text."""
    folder.mkdir(parents=True)
    _count(_words(torch.Generator().manual_seed(0), size), pin, size).save(folder / STATISTICS_FILE)
    return folder


def _words(generator: torch.Generator, size: Size) -> torch.Tensor:
    """Return token ids whose frequency falls with their number, as that of words does."""
    return (size.vocabulary ** torch.rand(TOKENS, generator=generator)).long() - 1


def _count(text: torch.Tensor, pin: BasePin, size: Size) -> Statistics:
    return count([text], tokenizer=pin.tokenizer, vocabulary=size.vocabulary, pair_bits=PAIR_BITS)
