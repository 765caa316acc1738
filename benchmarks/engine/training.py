"""Training one expert beside a loop written by hand and the Trainers of others, on the same texts.

The model is a Llama with random weights: hidden 1024, intermediate 2816, 16 heads of which 8 hold keys, vocabulary
8192, and 4 layers of 16, so that the run is short. Texts of 94 tokens on average, ragged, are packed into rows of
512; a step takes four rows. Each way is a training of four steps whose first one warms up and does not count.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import Row, interleaved
from benchmarks.engine.loops import Meter, by_hand, padded_trainer, sft_trainer
from moehub.experts import adaptation, loop
from moehub.experts.packing import Row as PackedRow
from moehub.experts.packing import pack
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens

_CONTEXT = 512
_GOAL = 0.97
_LAYERS = 4
_MEAN = 94
_SPREAD = 0.6
"""Of the logarithm of a text's length."""
_TEXTS = 200
_VOCABULARY = 8192
_CONFIG = TrainConfig(batch_size=4, max_steps=4, context_length=_CONTEXT)
_PEERS_TURNS = 1
"""The others take a minute each; they are measured in bfloat16 alone."""


def measure(turns: int) -> list[Row]:
    """Return a row for each dtype and way: how many times as many tokens per second of processor time ours learns."""
    torch.set_num_threads(1)
    texts = _texts()
    rows = pack(texts, _CONTEXT)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        model, meter = _model(dtype), Meter()
        hand = _hand(model, rows, meter)
        found += _compared(dtype, {"ours": _ours(model, rows, meter), **hand}, meter, turns)
        if dtype == torch.float32:
            continue  # the others take too long in it
        peers = {
            "TRL's SFTTrainer, packed (bfd)": lambda model=model, meter=meter: sft_trainer(
                model, texts, _CONFIG, meter=meter
            ),
            "transformers' Trainer, padded": lambda model=model, meter=meter: padded_trainer(
                model, texts, _CONFIG, meter=meter
            ),
        }
        found += _compared(dtype, {"ours": _ours(model, rows, meter), **peers}, meter, _PEERS_TURNS)
    return found


def _compared(dtype: torch.dtype, works: Mapping[str, Callable[[], object]], meter: Meter, turns: int) -> list[Row]:
    """Return a row for each work but ours, which the others are compared with."""
    with adaptation.quiet():
        ratios, seconds = interleaved(works, against="ours", turns=turns, clock=meter.read)
    return [
        Row(
            "training one expert",
            f"{str(dtype).removeprefix('torch.')}, ours ÷ {name}",
            f"{ratio} × its tokens; ours {1 / seconds:,.0f} tokens/s",
            f"≥ {_GOAL}" if name == "by hand" else "",
            f"{1 / (seconds * ratio.median):,.0f} tokens/s",
        )
        for name, ratio in ratios.items()
        if name != "ours"
    ]


def _ours(model: Any, rows: list[PackedRow], meter: Meter) -> Callable[[], None]:
    """Return what `moehub train-expert` does between the reading of the texts and the writing of the expert."""

    def work() -> None:
        adapted = adaptation.adapt(model, _CONFIG)
        watch = meter.watch()
        with tempfile.TemporaryDirectory() as folder:
            settings = loop.arguments(Path(folder), _CONFIG)
            done = loop.run(adapted, rows, _CONFIG, settings, title="ours", on_step=lambda *_: watch.tick())
        watch.done(done.tokens / done.step)
        adapted.unload()

    return work


def _hand(model: Any, rows: list[PackedRow], meter: Meter) -> dict[str, Callable[[], None]]:
    """Return the loops by hand: the best one, the same without a mask, and with adapters in float32."""
    ways: dict[str, dict[str, bool]] = {"by hand": {}, "by hand, texts see each other": {"masked": False}}
    if next(model.parameters()).dtype != torch.float32:
        ways["by hand, adapter in float32"] = {"exact": True}
    return {
        name: lambda options=options: by_hand(model, rows, _CONFIG, meter=meter, **options)  # type: ignore[misc]
        for name, options in ways.items()
    }


def _model(dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=1024,
        num_hidden_layers=_LAYERS,
        intermediate_size=2816,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=2 * _CONTEXT,
    )
    return LlamaForCausalLM(config).to(dtype)


def _texts() -> list[Tokens]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(_TEXTS, generator=generator) * _SPREAD).exp()
    lengths = (drawn * _MEAN / drawn.mean()).round().long().clamp(2, _CONTEXT).tolist()
    return [
        Tokens(
            torch.randint(_VOCABULARY, (length,), generator=generator),
            torch.ones(length, dtype=torch.bool),
            divisible=True,
            closed=True,
            origin="a text",
        )
        for length in lengths
    ]
