from pathlib import Path
from typing import Any

import pytest

from moehub.demo import steps
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import Corpora, Corpus
from moehub.experts.examples import Text, split


def test_the_base_learns_nothing_that_experts_hold_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No document on which an expert is compared with the base was among the base's."""
    corpus = Corpus("law", tuple(f"document {number} of the law" for number in range(400)), (), ())
    generic = Corpus("generic", ("prose",), (), ())
    seen: list[str] = []

    def trained(documents: Any, _: Any) -> Path:
        seen.extend(documents)
        return Path()

    monkeypatch.setattr("moehub.demo.base.small_base", trained)
    config = DemoConfig()
    steps.small_base(Corpora((corpus,), corpus, generic, (), ""), config)
    _, held = split([Text(document) for document in corpus.train], config.expert.holdout)
    assert held
    assert not {one.text for one in held if isinstance(one, Text)} & set(seen)
    assert len(seen) > 100
