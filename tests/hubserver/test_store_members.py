"""Which experts a MoE holds, which MoEs hold an expert, and what heads keep for lists."""

import json

import pytest

from moehub.card import CARD_FILE
from moehub.hub.measured import MEASURED_FILE
from moehub.hubserver.candidates import candidates
from moehub.hubserver.store import kin
from moehub.hubserver.store.fsck import check
from moehub.hubserver.store.heads import Head, Question
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY, STRANGER, Visitor
from tests.hubserver import showcase
from tests.hubserver.pushes import push, repo_of, upload

LAW = showcase.expert_files(showcase.card_of("law"))
CODE = showcase.expert_files(showcase.card_of("code"))
OTHER_LAW = showcase.expert_files(showcase.card_of("law", version=2))
BOTH = {"code": CODE, "law": LAW}
SOURCES = {"code": "acme/code", "law": "Acme/Law"}


def head(store: Store, repo: str) -> Head:
    found = store.heads.get(store.repos.get(repo, EVERYBODY))
    assert found is not None
    return found


def holders(store: Store, repo: str, visitor: Visitor = STRANGER, limit: int = 9) -> list[tuple[str, str]]:
    found = kin.holders(store.database, head(store, repo), visitor, limit=limit)
    return [(moe.repo.id, member.name) for moe, member in found]


def test_a_moes_members_are_read_from_its_files(store: Store) -> None:
    """Name, card, domain, licence, source, commit and shares come from its configuration, lock and evaluation."""
    push(store, "acme/both", showcase.moe_files(BOTH, SOURCES, showcase.texts_of("code", "law")))
    code, law = head(store, "acme/both").members
    assert (code.name, law.name) == ("code", "law")
    assert law.card == showcase.sha256(LAW[CARD_FILE])
    assert (law.domain, law.license, law.source, law.commit) == ("law", "apache-2.0", "Acme/Law", "ab" * 20)
    assert law.shares == pytest.approx({"code": 0.08, "generic": 0.03, "law": 0.87})


def test_an_expert_from_a_folder_has_no_source(store: Store) -> None:
    """A path of somebody's machine is not kept, and neither is the commit of one."""
    push(store, "acme/both", showcase.moe_files(BOTH))
    assert [(one.source, one.commit) for one in head(store, "acme/both").members] == [(None, None)] * 2


def test_members_that_are_not_in_the_moe_are_left_out(store: Store) -> None:
    """What the configuration names has to lie there; the card that counts is the one that does."""
    files = showcase.moe_files(BOTH, SOURCES)
    del files[f"experts/code/{CARD_FILE}"]
    push(store, "acme/both", files)
    assert [one.name for one in head(store, "acme/both").members] == ["law"]
    push(store, "acme/both", {f"experts/law/{CARD_FILE}": OTHER_LAW[CARD_FILE]})
    assert [one.card for one in head(store, "acme/both").members] == [showcase.sha256(OTHER_LAW[CARD_FILE])]


def test_an_evaluation_of_another_moe_does_not_count(store: Store) -> None:
    """Once config.json changes, what was measured before is no longer shown."""
    files = showcase.moe_files(BOTH, SOURCES, showcase.texts_of("code", "law"))
    push(store, "acme/both", files)
    assert head(store, "acme/both").members[0].shares != {}
    config = json.loads(files["config.json"])
    push(store, "acme/both", {"config.json": json.dumps({**config, "null": False}).encode()})
    assert MEASURED_FILE in files
    assert [one.shares for one in head(store, "acme/both").members] == [{}, {}]


def test_an_expert_finds_the_moes_that_hold_it(store: Store) -> None:
    """By its card, whatever the lock says; and by the source that a MoE names, in any case, after those."""
    push(store, "acme/law", LAW)
    push(store, "acme/code", CODE)
    push(store, "acme/same", showcase.moe_files({"jura": LAW}))
    push(store, "acme/older", showcase.moe_files({"law": OTHER_LAW}, {"law": "ACME/law@v1"}))
    push(store, "acme/none", showcase.moe_files({"code": CODE}))
    assert holders(store, "acme/law") == [("acme/same", "jura"), ("acme/older", "law")]
    assert holders(store, "acme/law", limit=1) == [("acme/same", "jura")]
    assert holders(store, "acme/code") == [("acme/none", "code")]


def test_a_moe_that_changed_is_no_longer_found(store: Store) -> None:
    """The members of the newest commit count; a deleted MoE has none."""
    push(store, "acme/law", LAW)
    push(store, "acme/moe", showcase.moe_files({"law": LAW}))
    push(store, "acme/gone", showcase.moe_files({"law": LAW}))
    assert len(holders(store, "acme/law")) == 2
    push(store, "acme/moe", showcase.moe_files({"code": CODE}))
    store.repos.delete(store.repos.get("acme/gone", EVERYBODY))
    assert holders(store, "acme/law") == []


def test_moes_that_a_visitor_may_not_read_are_not_found(store: Store) -> None:
    """Private and gated ones are for those who may read them."""
    push(store, "acme/law", LAW)
    for name in ("hidden", "gated"):
        push(store, f"lab/{name}", showcase.moe_files({"law": LAW}))
    store.repos.set(store.repos.get("lab/hidden", EVERYBODY), private=True)
    store.repos.set(store.repos.get("lab/gated", EVERYBODY), gated="auto")
    assert holders(store, "acme/law") == []
    assert holders(store, "acme/law", Visitor("eve", frozenset({"acme"}))) == []
    granted = Visitor("eve", grants=frozenset({"lab/gated"}))
    assert holders(store, "acme/law", granted) == [("lab/gated", "law")]
    assert len(holders(store, "acme/law", Visitor("ada", frozenset({"lab"})))) == 2


def test_a_moe_finds_where_its_experts_are_published(store: Store) -> None:
    """The source that it names counts; else the oldest repo with the same card; private ones are not named."""
    push(store, "acme/law", OTHER_LAW)
    push(store, "old/code", CODE)
    push(store, "new/code", CODE)
    push(store, "acme/both", showcase.moe_files(BOTH, {"law": "acme/law", "code": "far/away"}))
    members = head(store, "acme/both").members
    assert kin.published(store.database, members, STRANGER) == {"law": "acme/law", "code": "old/code"}
    store.repos.set(store.repos.get("old/code", EVERYBODY), private=True)
    store.repos.set(store.repos.get("acme/law", EVERYBODY), private=True)
    assert kin.published(store.database, members, STRANGER) == {"code": "new/code"}
    assert kin.published(store.database, members, EVERYBODY) == {"law": "acme/law", "code": "old/code"}


def test_many_members_are_looked_up_together(store: Store) -> None:
    """A MoE of hundreds of experts asks the database a handful of times."""
    names = [f"e{number:03}" for number in range(1001)]
    push(store, "acme/law", LAW)
    repo = repo_of(store, "acme/many")
    card = upload(store, repo, CARD_FILE, LAW[CARD_FILE])
    cards = {f"experts/{name}/{CARD_FILE}": card for name in names}
    described = showcase.moe_files({name: {CARD_FILE: LAW[CARD_FILE]} for name in names})
    own = {path: upload(store, repo, path, content) for path, content in described.items() if "/" not in path}
    store.history.commit(repo, "main", Change({**cards, **own}), title="many", author="ada")
    members = head(store, "acme/many").members
    assert len(members) == 1000
    asked: list[str] = []
    store.database.reading().set_trace_callback(asked.append)
    assert set(kin.published(store.database, members, STRANGER).values()) == {"acme/law"}
    assert len(asked) < 6


def test_heads_keep_size_and_verdict(store: Store) -> None:
    """A head knows how large its files are, and whether the gate admitted what is in it now."""
    push(store, "acme/law", LAW)
    push(store, "acme/any", {"a": b"12345", "b": b"12345"})
    assert head(store, "acme/law").size == sum(map(len, LAW.values()))
    assert (head(store, "acme/any").size, head(store, "acme/any").admitted) == (10, None)
    assert head(store, "acme/law").admitted is False
    showcase.judge(store, "acme/law")
    assert head(store, "acme/law").admitted is True
    push(store, "acme/law", {"README.md": b"another"})
    assert head(store, "acme/law").admitted is False


def test_a_moe_is_admitted_with_all_of_its_experts(store: Store) -> None:
    """One that the gate did not see is enough."""
    push(store, "acme/both", showcase.moe_files(BOTH))
    tree = store.history.tree(head(store, "acme/both").repo, head(store, "acme/both").oid)
    for candidate in candidates("acme/both", tree):
        assert head(store, "acme/both").admitted is False
        store.verdicts.put(candidate.key, {"admitted": True, "refusals": [], "skipped": [], "seconds": {}})
    assert head(store, "acme/both").admitted is True


def test_kinds_and_bases_are_counted(store: Store) -> None:
    """Counts are of what the question asks for and the visitor may see; the base of the most comes first."""
    push(store, "acme/law", LAW)
    push(store, "acme/moe", showcase.moe_files({"law": LAW}))
    push(store, "acme/other", {"README.md": b"---\nbase_model: a/b\n---\n"})
    push(store, "acme/hidden", CODE)
    store.repos.set(store.repos.get("acme/hidden", EVERYBODY), private=True)
    assert store.heads.tally(Question(), STRANGER) == {"expert": 1, "moe": 1, "other": 1}
    assert store.heads.tally(Question(), EVERYBODY) == {"expert": 2, "moe": 1, "other": 1}
    assert store.heads.tally(Question(base="acme/base"), STRANGER) == {"expert": 1, "moe": 1}
    assert store.heads.bases(Question(), STRANGER, limit=9) == [("acme/base", 2), ("a/b", 1)]
    assert store.heads.bases(Question(kind="expert"), EVERYBODY, limit=9) == [("acme/base", 2)]
    assert store.heads.bases(Question(), STRANGER, limit=1) == [("acme/base", 2)]


def test_lists_say_what_this_version_says(store: Store) -> None:
    """What heads keep of MoEs is the same when it is read again."""
    push(store, "acme/law", LAW)
    push(store, "acme/both", showcase.moe_files(BOTH, SOURCES, showcase.texts_of("code", "law")))
    assert (check(store).faults, check(store).notes) == ([], [])
