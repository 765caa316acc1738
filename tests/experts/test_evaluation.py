import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from moehub import base as bases
from moehub.experts.evaluation import evaluate_loss, summed_loss
from moehub.experts.packing import IGNORED, Row, pack
from moehub.experts.tokens import Tokens
from tests.builders import VOCABULARY


@pytest.fixture(scope="module")
def model(base_folder: Path) -> Any:
    return bases.find(str(base_folder)).load_model(dtype=torch.float32)


@pytest.fixture(scope="module")
def documents() -> list[Tokens]:
    generator = torch.Generator().manual_seed(0)
    return [
        Tokens(
            torch.randint(2, VOCABULARY, (length,), generator=generator), torch.arange(length) >= 3, True, False, "x"
        )
        for length in (5, 40, 17, 23, 9)
    ]


def test_summed_loss_is_the_sum_over_labels() -> None:
    """Each label is predicted from the logits before it; ignored labels and the first one add nothing."""
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[3, 1, IGNORED, 2], [5, IGNORED, 0, IGNORED]])
    log = functional.log_softmax(logits, -1)
    expected = -(log[0, 0, 1] + log[0, 2, 2] + log[1, 1, 0])
    torch.testing.assert_close(summed_loss(logits, labels), expected)


def test_every_token_weighs_the_same(model: Any, documents: list[Tokens]) -> None:
    """The mean is over tokens, not over rows or batches."""
    total, count = 0.0, 0
    with torch.no_grad():
        for one in documents:
            log = functional.log_softmax(model(one.ids[None]).logits[0].double(), -1)
            for at in range(1, len(one.ids)):
                if one.learned[at]:
                    total, count = total - float(log[at - 1, one.ids[at]]), count + 1
    loss, tokens = evaluate_loss(model, pack(documents, 64, join=False))
    assert (tokens, count) == (count, sum(len(one.ids) - 3 for one in documents))
    assert loss == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("join", [False, True])
def test_loss_does_not_depend_on_batches_or_packing(
    model: Any, documents: list[Tokens], batch_tokens: int, join: bool
) -> None:
    """One row at a time or all at once, packed or not: the same number."""
    expected, _ = evaluate_loss(model, pack(documents, 64, join=False))
    loss, _ = evaluate_loss(model, pack(documents, 64, join=join), batch_tokens=batch_tokens)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_loss_of_nothing_is_no_number(model: Any) -> None:
    """No tokens, no mean."""
    loss, tokens = evaluate_loss(model, [])
    assert (math.isnan(loss), tokens) == (True, 0)


def test_measuring_needs_no_gradients_and_leaves_the_mode(model: Any) -> None:
    """Dropout is off while measuring, and the model goes on training afterwards."""
    modes = []
    hook = model.register_forward_hook(
        lambda module, _, output: modes.append((module.training, output.logits.requires_grad))
    )
    model.train()
    ids = torch.arange(2, 12)
    evaluate_loss(model, [Row(ids, ids, (10,))])
    hook.remove()
    assert (modes, model.training) == ([(False, False)], True)
    model.eval()
