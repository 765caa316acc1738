"""Train an expert through every stage with the public command, and print what the card says each was worth.

`python -m benchmarks.stages --data medical.train.jsonl --base FOLDER [--work DIR]`; the part `packing` compares `sft`
with a plain script of transformers and PEFT on the same text.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.stages import material
from benchmarks.stages.packing import compare
from moehub import models
from moehub.answering.answerer import Sampling
from moehub.answering.local import Local
from moehub.chat import Message

_SETTINGS = """\
rank: 16
context_length: 512
holdout: 0.15
too_long: skip
save_every: 20
seed: {seed}
stages:
"""
_IMITATION = """\
  - {stage: pretrain, data: pretrain.txt, max_steps: 60, learning_rate: 2e-3, batch_size: 4}
  - {stage: sft, data: sft.jsonl, max_steps: 40, learning_rate: 1e-3, batch_size: 4}
"""
_JUDGEMENT = """\
  - {stage: reward, data: preferences.jsonl, epochs: 1, learning_rate: 1e-3, batch_size: 16}
  - {stage: dpo, data: preferences.jsonl, epochs: 1, learning_rate: 2e-4, batch_size: 16}
  - stage: rl
    data: prompts.jsonl
    rewards: {reward-model: 1.0, length: {weight: 4.0, least: 120, most: 400, slack: 120}}
    max_steps: 40
    learning_rate: 2e-4
    batch_size: 32
    generations: 8
    max_new_tokens: 64
    holdout_prompts: 100
"""
_ANSWER = Sampling(max_new_tokens=64, temperature=1.0, seed=0)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Questions and answers.")
@click.option("--base", required=True, help="The base.")
@click.option("--part", type=click.Choice(["stages", "packing"]), multiple=True, help="[default: both]")
@click.option("--seeds", default=3, show_default=True, help="How often the chain is trained, on other draws.")
@click.option("--turns", default=5, show_default=True, help="Of packing.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the experts here, and use those that are there.")
def main(data: Path, base: str, part: Sequence[str], seeds: int, turns: int, work: Path | None) -> None:
    """Print the tables."""
    questions = material.read(data)
    with tempfile.TemporaryDirectory() as temporary:
        if not part or "stages" in part:
            for seed in range(seeds):
                _show(_train(questions, base, (work or Path(temporary)) / f"seed-{seed}", seed))
        if not part or "packing" in part:
            print(compare(questions, base, turns=turns))


def _train(questions: Sequence[material.Question], base: str, folder: Path, seed: int) -> Path:
    """Return the folder of the expert; its reward model stands beside it."""
    imitating, output = folder / "imitating", folder / "expert"
    if not (folder / "chosen.jsonl").is_file():
        print(f"seed {seed}: {material.write(questions, folder, seed=seed)}", flush=True)
    if not (imitating / "expert.json").is_file():
        _command(base, folder / "imitation.yaml", _SETTINGS.format(seed=seed) + _IMITATION, imitating)
    if not (folder / "preferences.jsonl").is_file():
        opened = models.open_model(str(imitating), base=base)
        asked = Local(opened.model, opened.tokenizer, opened.name)
        material.reject(folder / "chosen.jsonl", lambda texts: _answers(asked, texts), folder / "preferences.jsonl")
    if not (output / "expert.json").is_file():
        start = ["--from", str(imitating)]
        _command(base, folder / "judgement.yaml", _SETTINGS.format(seed=seed) + _JUDGEMENT, output, *start)
    return output


def _answers(asked: Local, texts: Sequence[str]) -> list[str]:
    return [one.text for one in asked.answer([(Message("user", text),) for text in texts], _ANSWER)]


def _command(base: str, chain: Path, stages: str, output: Path, *start: str) -> None:
    """Train through the public command."""
    chain.write_text(stages.replace("rank: 16\n", "") if start else stages, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "moehub",
        "train-expert",
        "--base",
        base,
        "--domain",
        "medical",
        "--resume",
        *start,
    ]
    subprocess.run([*command, "--config", str(chain), "--output", str(output)], check=True)  # noqa: S603 (our own)


def _show(output: Path) -> None:
    print("| stage | examples | steps | seconds | held out | before | after | KL |\n|---|--:|--:|--:|---|--:|--:|--:|")
    expert, rating = (json.loads((folder / "expert.json").read_text()) for folder in (output, _reward(output)))
    for stage in [*expert["stages"], rating["stages"][-1]]:
        one = stage["measured"]
        kl = "" if one["kl"] is None else f"{one['kl']:.4f}"
        print(
            f"| {stage['kind']} | {stage['examples']:,} | {stage['steps']} | {stage['seconds']:.0f} | "
            f"{one['metric']} ({one['count']:,}) | {one['before']:.4f} | {one['after']:.4f} | {kl} |"
        )


def _reward(output: Path) -> Path:
    return output.with_name(f"{output.name}.reward")


if __name__ == "__main__":
    main()
