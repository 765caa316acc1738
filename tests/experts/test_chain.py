import json
from pathlib import Path
from typing import Any

import pytest

from moehub.base import Base
from moehub.errors import ConfigError, TrainingError
from moehub.experts import chain
from moehub.experts.chain import Link
from moehub.experts.stages.settings import PreferenceConfig
from tests.experts.stages.practice import SMALL, small_base
from tests.experts.trainings import Interrupted, ignore_peft, same

pytestmark = ignore_peft
STAGES = [
    {"stage": "pretrain", "data": "law.txt"},
    {"stage": "sft", "data": ["sums.jsonl"]},
    {"stage": "reward", "data": "better.jsonl"},
    {"stage": "dpo", "data": "better.jsonl", "beta": 0.2},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return small_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stages learn from."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "law.txt").write_text("<|endoftext|>".join(f"the rent of {n} rooms is {n * 7}. " for n in range(40)))
    sums = [{"instruction": f"{n}+{n}?", "output": f"{2 * n}."} for n in range(40)]
    better = [{"instruction": f"{n}+{n}?", "chosen": f"{2 * n}.", "rejected": f"no {n}"} for n in range(40)]
    for name, records in (("sums", sums), ("better", better)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


def _links(texts: Path, **changes: Any) -> tuple[Link, ...]:
    return chain.read({**SMALL, "stages": STAGES, **changes}, folder=texts, source="stages.yaml")


def test_settings_above_the_stages_are_every_stages(texts: Path) -> None:
    """A stage's own come first, and what only some stages know is passed over by the others."""
    links = _links(texts, loss="ipo")
    assert [link.stage for link in links] == ["pretrain", "sft", "reward", "dpo"]
    assert {link.config.rank for link in links} == {4}
    last = links[-1].config
    assert isinstance(last, PreferenceConfig)
    assert (last.beta, last.loss) == (0.2, "ipo")
    assert links[1].data == (texts / "sums.jsonl",)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stages": []}, "expected a list of stages"),
        ({"stages": ["sft"]}, "stage 1 is 'sft', expected a mapping with stage and data"),
        ({"stages": [{"stage": "ppo", "data": "a"}]}, "there is no stage 'ppo'"),
        ({"stages": [{"stage": "sft", "data": 3}]}, "expected a file or a list of files"),
        ({"stages": [{"stage": "sft", "data": "a", "beta": 1}]}, "unknown key 'beta'"),
        ({"rnak": 3, "stages": [{"stage": "sft", "data": "a"}]}, "unknown key 'rnak'"),
        ({"stages": [{"stage": "reward", "data": "a"}]}, "the last stage is a reward model"),
    ],
)
def test_what_is_no_chain_is_refused(values: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=sentence):
        chain.read(values, folder=tmp_path, source="stages.yaml")


def test_a_chain_that_is_killed_in_each_stage_goes_on(base: Base, texts: Path, tmp_path: Path) -> None:
    """The expert is the one of an undisturbed chain, to the bit; so is the reward model that branched off."""
    links = _links(texts)
    whole = chain.train_all(base, "sums", links, tmp_path / "whole")
    calls = [0]

    def once_a_stage(step: int, _: float) -> None:
        calls[0] += 1
        if step == 5:
            raise Interrupted

    killed = 0
    for _ in range(len(links)):
        with pytest.raises(Interrupted):
            chain.train_all(base, "sums", links, tmp_path / "cut", resume=killed > 0, on_step=once_a_stage)
        killed += 1
        assert not (tmp_path / "cut").exists()
        cut_off = _finish_one_stage(base, links, tmp_path / "cut")
    assert killed == len(links)
    assert cut_off is not None
    assert same(whole.folder, cut_off)
    assert same(tmp_path / "whole.reward", tmp_path / "cut.reward")
    assert [stage.kind for stage in whole.card.stages] == ["pretrain", "sft", "dpo"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "cut.reward", "whole", "whole.reward"]


def _finish_one_stage(base: Base, links: tuple[Link, ...], output: Path) -> Path | None:
    """Go on until the next stage begins, or the chain ends."""
    finished = len(list(output.with_name(f"{output.name}.stages").glob("[0-9]-*[a-z]/expert.json")))

    def until_the_next(step: int, _: float) -> None:
        now = len(list(output.with_name(f"{output.name}.stages").glob("[0-9]-*[a-z]/expert.json")))
        if now > finished and step == 1:
            raise Interrupted

    try:
        return chain.train_all(base, "sums", links, output, resume=True, on_step=until_the_next).folder
    except Interrupted:
        return None


def test_another_chain_is_not_gone_on_with(base: Base, texts: Path, tmp_path: Path) -> None:
    """The stages that differ are named; begun anew, nothing of the old one is left."""

    def stop(step: int, _: float) -> None:
        if step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        chain.train_all(base, "sums", _links(texts), tmp_path / "x", on_step=stop)
    with pytest.raises(TrainingError, match=r"(?s)these stages are others.*4-dpo"):
        chain.train_all(base, "sums", _links(texts, loss="ipo"), tmp_path / "x", resume=True)
    expert = chain.train_all(base, "sums", _links(texts)[:2], tmp_path / "x")
    assert [stage.kind for stage in expert.card.stages] == ["pretrain", "sft"]
