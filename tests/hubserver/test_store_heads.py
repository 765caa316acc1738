"""What lists and search know of a repo: what its newest commit says, whoever wrote it."""

import time

import pytest

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.heads import Head, Question, front_matter
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY, STRANGER, Visitor
from tests.hubserver.pushes import push

CARD = b"""---
license: apache-2.0
base_model: org/base
library_name: peft
tags: [lora, "domain:law"]
date: 2026-01-02
loss: .nan
---
# An expert
"""


def pushed(store: Store, files: dict[str, bytes]) -> Head:
    push(store, "acme/law", files)
    head = store.heads.get(store.repos.get("acme/law", EVERYBODY))
    assert head is not None
    return head


def test_the_card_says_what_a_repo_is(store: Store) -> None:
    """As JSON can hold it: dates are text, and numbers that are none are nothing."""
    head = pushed(store, {"README.md": CARD, "adapter_config.json": b"{}", "x.safetensors": b"x"})
    assert (head.license, head.base, head.domain, head.kind) == ("apache-2.0", "org/base", "law", "other")
    assert (head.card["date"], head.card["loss"]) == ("2026-01-02", None)
    assert head.tags == [
        "peft",
        "safetensors",
        "lora",
        "domain:law",
        "base_model:org/base",
        "base_model:adapter:org/base",
        "license:apache-2.0",
    ]


def test_without_a_card_the_adapter_says_what_its_base_is(store: Store) -> None:
    """PEFT's own pushes have none."""
    head = pushed(store, {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}'})
    assert (head.base, head.tags) == ("org/base", ["peft", "base_model:org/base", "base_model:adapter:org/base"])


ALIASES = b"---\na: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (96 + n, 96 + n, b", ".join([b"*%c" % (95 + n)] * 8)) for n in range(2, 12)
)


@pytest.mark.parametrize(
    "readme",
    [
        b"", b"---", b"---\n- a\n---\n", b"---\n{\n---\n", b"---\nx: \xff\xfe\n---\n", b"---\n? [a]\n: b\n---\n",
        b'---\nbase_model: "\\ud800"\nlicense: mit\n---\n', ALIASES + b"---\n", b"---\n" + b"[" * 5000 + b"\n---\n",
        b"---\nx: " + b"[1, 2], " * 20000 + b"\n---\n", b"---\nn: " + b"9" * 5000 + b"\n---\n",
    ],
)  # fmt: skip
def test_a_card_that_nobody_can_read_says_nothing(store: Store, readme: bytes) -> None:
    """Broken, bottomless, or a few lines that stand for gigabytes: the commit is made, soon."""
    begun = time.process_time()
    head = pushed(store, {"README.md": readme, "a": b"1"})
    assert (head.base, head.license) == (None, None)
    assert time.process_time() - begun < 1.0


def test_front_matter_is_what_stands_between_the_lines() -> None:
    """At the very beginning."""
    assert front_matter("---\na: 1\n---\ntext") == {"a": 1}
    assert front_matter("text\n---\na: 1\n---\n") == {}


def test_a_later_commit_replaces_what_an_earlier_one_said(store: Store) -> None:
    """Also in the index of tags."""
    pushed(store, {"README.md": CARD})
    head = pushed(store, {"README.md": b"---\nlicense: mit\n---\n"})
    assert (head.license, head.tags, head.base) == ("mit", ["license:mit"], None)
    assert store.heads.find(Question(tags=("domain:law",)), STRANGER, limit=9) == []


def test_lists_show_what_a_visitor_may_see(store: Store) -> None:
    """The newest first, whatever the case of the words."""
    for name in ("acme/law", "acme/code", "eve/law"):
        push(store, name, {"README.md": CARD})
    store.repos.set(store.repos.get("eve/law", EVERYBODY), private=True)
    seen = {}
    for visitor in (STRANGER, Visitor("eve", frozenset({"eve"})), EVERYBODY):
        found = store.heads.find(Question(search="LAW"), visitor, limit=9)
        seen[visitor] = [head.repo.id for head in found]
    assert list(seen.values()) == [["acme/code", "acme/law"], *[["eve/law", "acme/code", "acme/law"]] * 2]


def test_pages_of_a_list_join_without_a_gap(store: Store) -> None:
    """Each begins after the last one of the page before."""
    for number in range(7):
        push(store, f"acme/x{number}", {"README.md": CARD})
    found: list[str] = []
    after = None
    while page := store.heads.find(Question(author="ACME"), STRANGER, limit=3, after=after):
        found += [head.repo.id for head in page]
        after = page[-1].place
    assert found == [f"acme/x{number}" for number in reversed(range(7))]
    assert store.heads.find(Question(author="acm"), STRANGER, limit=3) == []


@pytest.mark.parametrize("after", ["", "x", "x~", "x~y", "2020~-1", "2020~1e9"])
def test_a_place_that_is_none_is_refused(store: Store, after: str) -> None:
    """A forged cursor is no failure of the hub."""
    with pytest.raises(RefusedError, match="is no place in a list") as refused:
        store.heads.find(Question(), STRANGER, limit=3, after=after)
    assert refused.value.status == 400
