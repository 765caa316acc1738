from pathlib import Path
from typing import Any

import pytest
import torch

from moehub import base as bases
from moehub.experts import adaptation, loop
from moehub.experts.packing import Row
from tests.experts.trainings import settings


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


def test_training_equals_a_loop_by_hand(tmp_path: Path, model: Any, base_folder: Path) -> None:
    """AdamW on the mean loss of all learned tokens of a step, clipped, in an order that the seed decides."""
    config = settings(
        max_steps=None, epochs=1, batch_size=20, schedule="constant", warmup=0, weight_decay=0.1, clip=0.5
    )
    rows = _rows(20)
    with adaptation.quiet():
        loop.run(model, rows, config, loop.arguments(tmp_path, config), title="training")
        plain = adaptation.adapt(bases.find(str(base_folder)).load_model(dtype=torch.float32), config)
    plain.train()
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.1)
    total, tokens = torch.zeros(()), 0
    for row in rows:
        log = plain(row.ids[None]).logits[0].log_softmax(-1)
        total = total - log[1:-1].gather(1, row.ids[2:, None]).sum()
        tokens += len(row.ids) - 2
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(trained, 0.5)
    optimizer.step()
    ours = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(ours[name], parameter, atol=1e-6, rtol=1e-4)


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
