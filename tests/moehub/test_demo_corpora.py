"""The demo's text: what is tested on was never trained on, and every run reads the same."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest

from moehub.demo import corpora, sources
from moehub.demo.corpora import Corpora, Sizes
from moehub.demo.overlap import Shingles
from moehub.errors import DataError

SMALL = Sizes(train=30_000, tune=4_000, test=6_000, generic=60_000, turns=16)


@pytest.fixture(scope="module")
def text() -> Corpora:
    return corpora.gather(SMALL)


def lines(documents: tuple[str, ...]) -> set[str]:
    """The long lines of documents: short ones, like `return None`, belong to everybody."""
    return {line.strip() for document in documents for line in document.splitlines() if len(line.split()) >= 10}


def test_there_are_four_founders_and_a_newcomer_with_enough_text(text: Corpora) -> None:
    """Every contributor has the text that was asked for, on each side of the split."""
    assert [corpus.name for corpus in text.founders] == ["python", "cpp", "legal", "arithmetic"]
    assert text.newcomer.name in ("json", "css")
    for corpus in text.contributors:
        assert sum(map(len, corpus.train)) >= SMALL.train
        assert sum(map(len, corpus.tune)) >= SMALL.tune
        assert sum(map(len, corpus.test)) >= SMALL.test


def test_no_document_is_on_both_sides_of_a_split(text: Corpora) -> None:
    """What is trained on, tuned on and tested on are different documents, of every contributor against every other."""
    everyone = [*text.contributors, text.generic]
    trained = {document for corpus in everyone for document in corpus.train}
    tuned = {document for corpus in everyone for document in corpus.tune}
    tested = {document for corpus in everyone for document in corpus.test}
    assert not trained & tested
    assert not trained & tuned
    assert not tuned & tested


def test_nothing_that_is_trained_on_nearly_repeats_what_is_tested_on(text: Corpora) -> None:
    """At most a fifth of the runs of eight words of any training document stand in a test document."""
    tested = Shingles()
    everyone = [*text.contributors, text.generic]
    for corpus in everyone:
        for document in corpus.test:
            tested.add(document)
    assert max(tested.share(document) for corpus in everyone for document in corpus.train) <= 0.2


def test_no_licence_paragraph_is_on_both_sides(text: Corpora) -> None:
    """Licences repeat one another, so the split of legal text is by paragraph and knows near copies."""
    legal = next(corpus for corpus in text.founders if corpus.name == "legal")
    shared = lines(legal.train) & lines(legal.test)
    assert len(shared) <= 0.01 * len(lines(legal.test))


def test_gathering_is_the_same_in_another_process(text: Corpora) -> None:
    """Neither the order of folders nor the seed of string hashes decides what is read."""
    program = (
        "import hashlib; from moehub.demo import corpora; from tests.moehub.test_demo_corpora import SMALL;"
        "print(hashlib.sha256(repr(corpora.gather(SMALL)).encode()).hexdigest())"
    )
    import hashlib

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(repr(text).encode()).hexdigest()


def test_switching_documents_are_made_of_test_text_and_change_domain_each_turn(text: Corpora) -> None:
    """Every long line of a switching document is a line of some founder's test text, and all founders take part."""
    tested = {corpus.name: "\n".join(corpus.test) for corpus in text.founders}
    met = set()
    for line in lines(text.switching):
        owners = [name for name, held in tested.items() if line in held]
        assert owners
        met.update(owners)
    assert met == set(tested)


def test_turns_never_repeat_a_domain_or_a_passage(text: Corpora) -> None:
    """Of two neighbouring turns, no two are from one domain, and each domain has its share."""
    turns = corpora._turns(text.founders, 300, 12, 0)
    owners = [next(c.name for c in text.founders if any(turn in document for document in c.test)) for turn in turns]
    assert all(one != next_ for one, next_ in pairwise(owners))
    assert len(set(turns)) == 12
    assert {owners.count(name) for name in set(owners)} == {3}


def test_the_seed_draws_other_exercises_and_turns_but_the_same_files() -> None:
    """`--seed` changes the arithmetic and the order of passages; the files of this machine are what they are."""
    first, second = corpora.gather(SMALL, seed=0), corpora.gather(SMALL, seed=1)
    assert first.founders[0] == second.founders[0]
    assert first.founders[3] != second.founders[3]
    assert first.switching != second.switching


def test_missing_text_is_a_sentence_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without its sources is refused before anything is trained."""
    monkeypatch.setattr(sources, "python", lambda: iter([]))
    with pytest.raises(DataError, match=r"holds 0 characters of python text .* expected at least .* install"):
        corpora.gather(SMALL)


def test_css_takes_the_place_of_json_where_there_is_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer brings what the machine's packages hold."""

    def sheets() -> Iterator[str]:
        yield from (f"p.c{number} {{ margin: {number}px {number + 1}px }}\n" * 30 for number in range(2000))

    monkeypatch.setattr(sources, "json", lambda: iter([]))
    monkeypatch.setattr(sources, "css", sheets)
    assert corpora.gather(SMALL).newcomer.name == "css"


def test_python_sources_come_without_their_licences() -> None:
    """A licence above the code is legal text, not Python."""
    source = "# Copyright (C) 2001 by Somebody.\n# Licensed to PSF under a Contributor Agreement.\n\nimport os\n"
    assert sources._without_licence(source) == "import os\n"


def test_headers_come_without_their_licences() -> None:
    """A licence comment goes, other comments and preprocessor lines stay."""
    header = (
        "/* Copyright (c) 2020\n * All rights reserved.\n */\n#pragma once\n// Adds two numbers.\nint add(int, int);\n"
    )
    assert sources._without_licence(header) == "#pragma once\n// Adds two numbers.\nint add(int, int);\n"


def test_a_file_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    """One file of another encoding does not stop the demo."""
    (tmp_path / "a.py").write_bytes(b"\xff\xfe" + b"x = 1\n" * 100)
    (tmp_path / "b.py").write_text("y = 2\n" * 100, encoding="utf-8")
    assert list(sources._read(tmp_path, sorted(tmp_path.iterdir()))) == ["y = 2\n" * 100]


def test_no_file_makes_up_a_domain() -> None:
    """Long files are cut at the end of a line."""
    assert all(len(document) <= 4_000 for document in islice(sources.python(), 30))
