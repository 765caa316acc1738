"""Small bases and experts made on the spot: real files, no download, no training."""

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from moehub import base as bases
from moehub.card import Card, Metrics, Stage
from moehub.experts import folder as expert_folder
from moehub.experts import statistics

VOCABULARY = 320
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
TEXT = "the court finds that the lessee shall pay the rent. def add(a, b): return a + b. 12 + 30 = 42. "


@cache
def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT * 20], trainer)
    return tokenizer


def tiny_base(folder: Path, *, architecture: str = "llama", seed: int = 0, **changes: object) -> Path:
    """Save a causal LM of about 30k parameters with a byte-level tokenizer of at most 320 ids."""
    torch.manual_seed(seed)
    settings = {**_SMALL, **changes}
    if architecture == "gpt_neox":
        settings.pop("num_key_value_heads")
        settings.pop("head_dim")
    config = AutoConfig.for_model(architecture, **settings)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer().to_str()),
        pad_token="<pad>",
        eos_token="<|end|>",
    ).save_pretrained(folder)
    return folder


def tiny_expert(
    folder: Path,
    base: Path,
    *,
    name: str = "law",
    rank: int = 4,
    alpha: float = 8,
    targets: Sequence[str] | str = ("q_proj", "v_proj", "down_proj"),
    text: str = TEXT,
    seed: int = 1,
    license: str = "apache-2.0",  # noqa: A002 (the card's own word)
    pair_bits: int = 10,
    triple_bits: int = 10,
    **lora: object,
) -> Path:
    """Save an expert with random adapter weights and the true statistics of `text`."""
    torch.manual_seed(seed)
    found = bases.find(str(base))
    tokenizer = found.load_tokenizer()
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        **lora,
    )
    with warnings.catch_warnings():
        # PEFT still asks transformers under an old name.
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(found.load_model(dtype=torch.float32), config)
    for parameter_name, parameter in model.named_parameters():
        if "lora_magnitude_vector" in parameter_name:
            parameter.data *= torch.empty_like(parameter).uniform_(0.7, 1.3)
        elif "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.peft_config["default"].base_model_name_or_path = found.reference
    # False: PEFT need not look the base up on a hub to see whether its vocabulary grew.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    counted = statistics.count(
        [ids],
        tokenizer=bases.tokenizer_digest(tokenizer),
        vocabulary=len(tokenizer),
        pair_bits=pair_bits,
        triple_bits=triple_bits,
    )
    counted.save(folder / statistics.STATISTICS_FILE)
    chosen = model.peft_config["default"].target_modules
    card = Card(
        name=name,
        domain=name,
        base=found.pin(),
        rank=rank,
        alpha=alpha,
        targets=(chosen,) if isinstance(chosen, str) else tuple(sorted(chosen)),
        license=license,
        stages=(Stage("pretrain", tokens=len(ids), steps=1, examples=1, seconds=0.1),),
        metrics=Metrics(base_loss=5.0, expert_loss=4.0, tokens=100),
        files={},
    )
    expert_folder.seal(folder, card)
    return folder
