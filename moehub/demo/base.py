"""The demo's base: a small Llama, trained from nothing on this machine's prose and a little of everything.

It is kept in the user's cache under a digest of its text, settings and libraries, so the same base
is trained once.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moehub import files
from moehub.console import Advance, console, progress

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, TrainerCallback

_RECIPE = 1
"""Grows with every change below that changes what is trained."""
_LIBRARIES = ("tokenizers", "torch", "transformers")
_END = "<|end|>"


@dataclass(frozen=True)
class BaseConfig:
    """The small base and its training; the learning rate was picked by hand for this size."""

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 2
    """More layers learn no faster from the million tokens that a minute and a half allows."""
    heads: int = 4
    context: int = 256
    batch: int = 4
    """Sequences of `context` tokens in one step."""
    steps: int = 950
    learning_rate: float = 4e-3
    spread: float = 0.06
    """Standard deviation of the first weights; transformers' own .02 is for larger models."""
    seed: int = 0


def small_base(documents: Sequence[str], config: BaseConfig, *, cache: Path | None = None) -> Path:
    """Return the folder of a base trained on `documents`, from the cache if it was trained before."""
    if cache is None:
        from huggingface_hub.constants import HF_HOME

        cache = Path(HF_HOME) / "moehub" / "demo-base"
    folder = cache / _key(documents, config)
    if (folder / "config.json").is_file():
        console.print(f"The small base is in the cache: {folder}", markup=False, soft_wrap=True)
        return folder
    with files.new_folder(folder) as building:
        _train(documents, config, building)
    return folder


def copy_base(source: Path, destination: Path) -> None:
    """Put a full copy of a base's configuration, weights and tokenizer at `destination`, whole or not at all."""
    with files.new_folder(destination) as building:
        for path in sorted(source.iterdir()):
            if path.suffix in {".json", ".safetensors", ".model", ".jinja", ".txt"}:
                shutil.copyfile(path, building / path.name)


def bf16_is_quick() -> bool:
    """Return whether this machine computes in bfloat16 rather than imitating it."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def tokenizer_of(documents: Sequence[str], vocabulary: int) -> "PreTrainedTokenizerFast":
    """Return a byte-level tokenizer of that many ids, made for the documents; each digit is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|pad|>", _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token=_END)  # noqa: S106


def _key(documents: Sequence[str], config: BaseConfig) -> str:
    text = hashlib.sha256("\0".join(documents).encode()).hexdigest()
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    parts = [_RECIPE, text, dataclasses.asdict(config), versions, bf16_is_quick()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _train(documents: Sequence[str], config: BaseConfig, output: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments, set_seed

    from moehub.base import quiet_transformers

    tokenizer = tokenizer_of(documents, config.vocabulary)
    blocks = _blocks(documents, tokenizer, config.context)
    set_seed(config.seed)
    architecture = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 11 // 4,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.context,
        initializer_range=config.spread,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(architecture)
    with (
        quiet_transformers(),
        tempfile.TemporaryDirectory() as scratch,
        progress("training the small base", config.steps) as advance,
    ):
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=config.steps,
            per_device_train_batch_size=config.batch,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.steps // 20,
            adam_beta2=0.95,
            weight_decay=0.1,
            seed=config.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=bf16_is_quick(),
            save_strategy="no",
            logging_steps=10,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model, arguments, data_collator=_labelled, train_dataset=blocks, callbacks=[_callback(advance)]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        model.to(torch.bfloat16 if bf16_is_quick() else torch.float32).save_pretrained(output)
    tokenizer.save_pretrained(output)


def _blocks(documents: Sequence[str], tokenizer: "PreTrainedTokenizerFast", context: int) -> "list[Tensor]":
    """Return every document's tokens end to end, each closed by the end mark, cut into int64 [context]."""
    import torch

    encoded = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    stream = torch.tensor([token for ids in encoded for token in (*ids, tokenizer.eos_token_id)])
    return list(stream[: len(stream) // context * context].view(-1, context))


def _labelled(blocks: "list[Tensor]") -> "dict[str, Tensor]":
    import torch

    batch = torch.stack(blocks)
    return {"input_ids": batch, "labels": batch}


def _callback(advance: Advance) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_parts: Any) -> None:
            if logs and "loss" in logs:
                advance(10, f"loss {float(logs['loss']):.2f}")

    return Progress()
