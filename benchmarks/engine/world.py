"""What the engine is measured on: a base with random weights, experts in files, and gates made from real text.

Shapes: E experts, V vocabulary.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from moehub.demo import corpora
from moehub.experts import statistics
from moehub.experts.adapter import Adapter, MappedPairs
from moehub.merge.configuration import MoehubConfig
from moehub.merge.model import MoehubForCausalLM
from moehub.router.gate import PosteriorGate, gate_of
from moehub.router.settings import RouterSettings
from moehub.tensorfile import TensorFile

VOCABULARY, PAIR_BITS, RANK = 8192, 16, 16
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CHARACTERS = 1_500_000


def base(dtype: torch.dtype, *, layers: int = 16, hidden: int = 1024, intermediate: int = 2816) -> LlamaForCausalLM:
    """Return a Llama with random weights: 205 million parameters where nothing else is asked for."""
    torch.manual_seed(0)
    heads = hidden // 64
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def twin(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return another model with the very same tensors: one of the two becomes a MoE."""
    with torch.device("meta"):
        other = LlamaForCausalLM(model.config)
    other.load_state_dict(model.state_dict(), assign=True)
    other.model.rotary_emb = model.model.rotary_emb
    other.lm_head.weight = model.lm_head.weight
    return other.eval()


def write_experts(folder: Path, like: LlamaForCausalLM, count: int) -> list[Path]:
    """Write adapters of random numbers, of the base's precision, and return their files; those that are there stay."""
    shapes = {name: module.weight.shape for name, module in like.named_modules() if name.endswith(LINEARS)}
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:04d}.safetensors" for number in range(count)]
    for number, file in enumerate(files):
        if file.is_file():
            continue
        generator = torch.Generator().manual_seed(number)

        def matrix(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.empty(shape, dtype=like.dtype).uniform_(-0.02, 0.02, generator=generator)

        tensors = {}
        for name, (d_out, d_in) in shapes.items():
            tensors[f"{name}.A"], tensors[f"{name}.B"] = matrix(RANK, d_in), matrix(d_out, RANK)
        save_file(tensors, file)
    return files


def mapped(files: Sequence[Path]) -> list[Adapter]:
    """Return the adapters in files that `write_experts` wrote."""
    adapters = []
    for file in files:
        opened = TensorFile(file)
        linears = sorted({name.rpartition(".")[0] for name in opened.spans})
        pairs = MappedPairs(opened, {name: (f"{name}.A", f"{name}.B") for name in linears})
        adapters.append(Adapter(pairs, dict.fromkeys(linears, 2.0)))
    return adapters


@dataclass(frozen=True)
class Text:
    """Real text as tokens: what each contributor counted, and rows that nobody counted."""

    contributors: tuple[Tensor, ...]
    """Token ids of each contributor's documents, one after another."""
    generic: Tensor
    rows: Tensor
    """int64 [4, 256]: two rows of one domain each, and two in which domains take turns."""


@cache
def text(experts: int) -> Text:
    """Return the demo's text, dealt to as many contributors; those of one domain are alike, as in life."""
    gathered = corpora.gather(corpora.Sizes(train=_CHARACTERS, test=60_000, turns=80))
    everyone = gathered.contributors
    tokenizer = _tokenizer([document for corpus in everyone for document in corpus.train[:200]])

    def encode(documents: Sequence[str]) -> Tensor:
        return torch.tensor([token for one in tokenizer.encode_batch(list(documents)) for token in one.ids])

    shares = []
    for number in range(experts):
        corpus = everyone[number % len(everyone)]
        mine = encode(corpus.train)
        of, which = -(-experts // len(everyone)), number // len(everyone)
        shares.append(mine[which * len(mine) // of : (which + 1) * len(mine) // of])
    single = [encode(corpus.test)[:256] for corpus in everyone[:2]]
    switching = encode(gathered.switching)
    rows = torch.stack([*single, switching[:256], switching[256:512]])
    return Text(tuple(shares), encode(gathered.generic.train[:400]), rows)


def gate(experts: int) -> PosteriorGate:
    """Return the default gate, made from what the contributors of `text` counted."""
    given = text(experts)

    def counted(ids: Tensor) -> statistics.Statistics:
        return statistics.count([ids], tokenizer="t", vocabulary=VOCABULARY, pair_bits=PAIR_BITS)

    names = [f"{number:04d}" for number in range(experts)]
    contributed = {name: counted(ids) for name, ids in zip(names, given.contributors, strict=True)}
    return gate_of(contributed, counted(given.generic), RouterSettings())


def moe(plain: LlamaForCausalLM, adapters: Sequence[Adapter], made: PosteriorGate, **options: Any) -> MoehubForCausalLM:
    """Return a MoE on the tensors of `plain`, as `from_pretrained` would have put it together."""
    experts = [SimpleNamespace(name=f"{i:04d}", card=SimpleNamespace(rank=RANK)) for i in range(len(adapters))]
    parts: Any = SimpleNamespace(experts=experts, adapters=adapters, gate=made)
    config = MoehubConfig(base_config=plain.config.to_dict())
    return MoehubForCausalLM(config, base=twin(plain), parts=parts, **options)


def draw(seed: int, high: int, *shape: int) -> Tensor:
    """Return random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(high, shape, generator=generator)


def _tokenizer(documents: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    shuffled = list(documents)
    random.Random(0).shuffle(shuffled)  # noqa: S311 (an order, no secret)
    tokenizer.train_from_iterator(shuffled, trainer)
    return tokenizer
