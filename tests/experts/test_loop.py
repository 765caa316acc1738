import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moehub import base as bases
from moehub.experts import adaptation, batches, checkpoints, loop, packing
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.packing import Row
from tests.experts.trainings import Interrupted, interrupt_at, settings


def _rows(count: int, *, length: int = 12) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(count):
        ids = torch.randint(2, 300, (length - index % 5,), generator=generator)
        rows.append(Row(ids, torch.cat([torch.tensor([-100, -100]), ids[2:]]), (len(ids),)))
    return rows


@pytest.fixture
def model(base_folder: Path) -> Any:
    config = settings()
    with adaptation.quiet():
        return adaptation.adapt(bases.find(str(base_folder)).load_model(dtype=torch.float32), config)


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (9, {"max_steps": 3}),
        (9, {"epochs": 1}),
        (9, {"epochs": 0.5}),
        (9, {"epochs": 1.5, "batch_size": 4}),
        (9, {"epochs": 2, "batch_size": 4, "accumulation": 4}),
        (1, {"epochs": 2, "batch_size": 4, "accumulation": 2}),
    ],
)
def test_number_of_steps_is_the_trainers(tmp_path: Path, model: Any, rows: int, changes: dict[str, Any]) -> None:
    """What the bar and the dry run promise is what is done."""
    config = settings(**{"max_steps": None, **changes})
    with adaptation.quiet():
        done = loop.run(model, _rows(rows), config, loop.arguments(tmp_path, config), title="training")
    assert done.step == loop.steps(rows, config)


def test_steps_are_shared_by_processes() -> None:
    """Two processes take half the steps of one."""
    config = settings(max_steps=None, batch_size=4)
    assert [loop.steps(80, config, processes=count) for count in (1, 2, 3)] == [20, 10, 7]


@pytest.mark.parametrize(("steps", "proximal"), [(1, 0.0), (3, 0.0), (3, 10.0)])
def test_training_equals_a_loop_by_hand(
    tmp_path: Path, model: Any, base_folder: Path, steps: int, proximal: float
) -> None:
    """AdamW on the mean loss of all learned tokens of a step, pulled to the start by FedProx's μ, then clipped."""
    config = settings(max_steps=steps, batch_size=20, schedule="constant", warmup=0, weight_decay=0.1, clip=0.5)
    rows = _rows(20)
    with adaptation.quiet():
        loop.run(model, rows, config, loop.arguments(tmp_path, config), title="training", proximal=proximal)
        plain = adaptation.adapt(bases.find(str(base_folder)).load_model(dtype=torch.float32), config)
    plain.train()
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    starts = [parameter.detach().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        _mean_loss(plain, rows).backward()
        for parameter, start in zip(trained, starts, strict=True):
            assert parameter.grad is not None
            parameter.grad += proximal * (parameter.detach() - start)
        torch.nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
    ours = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(ours[name], parameter, atol=1e-5, rtol=1e-3)


def _mean_loss(model: Any, rows: list[Row]) -> torch.Tensor:
    total, tokens = torch.zeros(()), 0
    for row in rows:
        log = model(row.ids[None]).logits[0].log_softmax(-1)
        total = total - log[1:-1].gather(1, row.ids[2:, None]).sum()
        tokens += len(row.ids) - 2
    return total / tokens


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_parts_of_a_training_have_the_rates_of_the_whole(tmp_path: Path, model: Any, schedule: str) -> None:
    """Three parts of four steps warm up and decay once, as one training of twelve."""
    config = settings(max_steps=12, schedule=schedule, warmup=0.4, save_every=50)
    rows = _rows(24)
    with adaptation.quiet():
        loop.run(model, rows, config, loop.arguments(tmp_path / "whole", config), title="whole")
        for first in (0, 4, 8):
            part = settings(max_steps=4, schedule=schedule, warmup=0.4, save_every=50)
            folder = tmp_path / f"part-{first}"
            loop.run(model, rows[:8], part, loop.arguments(folder, part), title="part", span=loop.Span(first, total=12))
    parts = [rate for first in (0, 4, 8) for rate in _rates(tmp_path / f"part-{first}" / "checkpoint-4")]
    assert parts == _rates(tmp_path / "whole" / "checkpoint-12")
    assert len(set(parts)) > 4


def test_first_step_of_a_part_is_as_long_as_its_rate(tmp_path: Path, model: Any) -> None:
    """Adam's first step moves each weight by the rate: half of it, in the middle of a linear decay."""
    config = settings(max_steps=1, schedule="linear", warmup=0, clip=0)
    before = {name: tensor.clone() for name, tensor in adaptation.state(model).items()}
    with adaptation.quiet():
        loop.run(model, _rows(2), config, loop.arguments(tmp_path, config), title="part", span=loop.Span(6, 12))
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in adaptation.state(model).items())
    assert moved == pytest.approx(config.learning_rate / 2, rel=1e-3)


def _rates(checkpoint: Path) -> list[float]:
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]


def test_a_part_takes_its_rows_in_their_order(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rows a part learns is up to the caller, so which of them share a step is too."""
    seen: list[list[int]] = []

    def flatten(rows: list[Row]) -> Any:
        seen.extend(row.ids.tolist() for row in rows)
        return packing.flatten(rows)

    monkeypatch.setattr(batches, "flatten", flatten)
    config, rows = settings(max_steps=4), _rows(8)
    with adaptation.quiet():
        loop.run(model, rows, config, loop.arguments(tmp_path, config), title="part", span=loop.Span(0, 8))
    assert seen[-len(rows) :] == [row.ids.tolist() for row in rows]  # the model was tried on a row of its own before


@pytest.mark.parametrize("proximal", [0.0, 1.0])
def test_interrupted_part_goes_on_as_if_undisturbed(tmp_path: Path, base_folder: Path, proximal: float) -> None:
    """The same weights to the bit, the same loss and rates; what was frozen stays, and the start is the part's own."""
    config = settings(max_steps=6, save_every=2, dropout=0.1)
    results = []
    for name, at in (("undisturbed", None), ("interrupted", 3)):
        settings_of_run = loop.arguments(tmp_path / name, config)
        checkpoints.begin(tmp_path / name, {})
        with contextlib.suppress(Interrupted):
            results.append(_part(base_folder, config, settings_of_run, proximal, on_step=at and interrupt_at(at)))
        since = checkpoints.last(tmp_path / name, {})
        if at is not None:
            assert since is not None
            assert since.step == 2
            results.append(_part(base_folder, config, settings_of_run, proximal, since=since))
    (undisturbed, whole), (interrupted, resumed) = results
    assert undisturbed.keys() == interrupted.keys()
    assert [name for name in undisturbed if not torch.equal(undisturbed[name], interrupted[name])] == []
    assert (whole.tokens, whole.nats) == (resumed.tokens, resumed.nats)
    assert _rates(whole.path) == _rates(resumed.path)
    with adaptation.quiet():
        fresh = adaptation.adapt(bases.find(str(base_folder)).load_model(dtype=torch.float32), config)
    for name, tensor in adaptation.state(fresh).items():
        assert torch.equal(tensor, interrupted[name]) == (".lora_A." in name)


def _part(folder: Path, config: Any, arguments: Any, proximal: float, **more: Any) -> Any:
    with adaptation.quiet():
        model = adaptation.adapt(bases.find(str(folder)).load_model(dtype=torch.float32), config)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(requires_grad=False)
        done = loop.run(
            model, _rows(12), config, arguments, title="part", span=loop.Span(6, 18), proximal=proximal, **more
        )
    return adaptation.state(model), done


def test_mean_loss_is_that_of_the_learned_tokens(tmp_path: Path, model: Any) -> None:
    """Every token weighs the same, also where steps hold different numbers of them."""
    config = settings(max_steps=2, batch_size=2, learning_rate=1e-9, clip=0)
    rows = [*_rows(3, length=40), *_rows(1, length=8)]
    with adaptation.quiet():
        done = loop.run(model, rows, config, loop.arguments(tmp_path, config), title="part", span=loop.Span(0, 2))
    expected, tokens = evaluate_loss(model, rows)
    assert done.tokens == tokens
    assert done.nats / done.tokens == pytest.approx(expected, rel=1e-5)


def test_learned_tokens_are_counted_exactly(tmp_path: Path, model: Any) -> None:
    """Labels that are ignored, and padding, do not count; every epoch does."""
    config = settings(max_steps=None, epochs=2, batch_size=4, accumulation=2)
    rows = _rows(9)
    with adaptation.quiet():
        done = loop.run(model, rows, config, loop.arguments(tmp_path, config), title="training")
    assert done.tokens == 2 * sum(len(row.ids) - 2 for row in rows)


def test_interruption_by_hand_says_how_to_go_on(tmp_path: Path, model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Control-C is passed on after a word about --resume."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    config = settings()
    with adaptation.quiet(), pytest.raises(KeyboardInterrupt):
        loop.run(model, _rows(4), config, loop.arguments(tmp_path, config), title="training", on_step=interrupt)
    assert "--resume goes on from the last checkpoint" in capfd.readouterr().err


def test_the_only_process_is_the_first() -> None:
    """Without a launcher, this process writes and speaks."""
    assert loop.first_process()
