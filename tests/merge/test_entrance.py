import dataclasses
import shutil
from pathlib import Path

import pytest

from moehub import files
from moehub.admission.at_hand import AtHand
from moehub.admission.gate import examine
from moehub.card import ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE, read_card
from moehub.errors import AdmissionError, HubError, MergeError
from moehub.experts.folder import seal
from moehub.experts.statistics import Statistics
from moehub.hub import open_hub, seen
from moehub.merge.entrance import admitted
from moehub.merge.lock import read_lock
from moehub.merge.merging import Recipe, prepare, prepare_again, prepare_change
from moehub.signing.keyring import Keyring
from tests import attacks
from tests.signing.signed import publisher
from tests.world import World


@pytest.fixture
def moe(world: World, tmp_path: Path) -> Path:
    """A MoE of two experts, with a null."""
    with prepare(_recipe(world, world.experts["law"], world.experts["math"])) as prepared:
        prepared.write(tmp_path / "moe")
    return tmp_path / "moe"


def _recipe(world: World, *experts: Path | str, canary: Path | None = None) -> Recipe:
    return Recipe(base=str(world.base), experts=tuple(map(str, experts)), null=str(world.null), canary=canary)


def _bad(name: str, folder: Path, world: World) -> tuple[Path, str]:
    attack = next(one for one in attacks.registered() if one.name == name)
    return attack.make(folder, world), attack.code


NAMES = ("header bomb", "alpha bomb", "NaN", "pickled weights", "statistics of another tokenizer", "wrong base")


def test_every_expert_that_is_refused_is_named_with_its_code(world: World, tmp_path: Path) -> None:
    """One run tells what is wrong with all of them, and nothing is written."""
    bad = [_bad(name, tmp_path / str(number), world) for number, name in enumerate(NAMES)]
    with prepare(_recipe(world, world.experts["code"], *(folder for folder, _ in bad))) as prepared:
        plan = prepared.plan
        assert [fault.split("] ")[0] for fault in plan.faults] == [f"{folder}: [{code}" for folder, code in bad]
        assert [source.expert.name for source in plan.sources] == ["code"]
        with pytest.raises(MergeError, match=r"\[header-length\]"):
            prepared.write(tmp_path / "moe")
    assert not (tmp_path / "moe").exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_added_is_checked(world: World, moe: Path, tmp_path: Path, name: str) -> None:
    """A MoE that exists stays as it was where the newcomer is refused."""
    folder, code = _bad(name, tmp_path / "bad", world)
    before = files.tree_digest(moe)
    with prepare_change(moe, add=[str(folder)]) as change:
        assert [fault.split("] ")[0] for fault in change.plan.faults] == [f"{folder}: [{code}"]
        with pytest.raises(MergeError):
            change.write()
    assert files.tree_digest(moe) == before


def test_who_is_in_already_is_not_checked_again(world: World, moe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding looks at the newcomer alone: its cost does not grow with the files of the others."""
    looked = []
    before = examine

    def remember(folder: Path, *arguments: object, **options: object) -> object:
        looked.append(folder)
        return before(folder, *arguments, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("moehub.merge.entrance.examine", remember)
    with prepare_change(moe, add=[str(world.experts["code"])]) as change:
        assert change.plan.faults == ()
    assert set(looked) == {world.experts["code"]}


def test_the_others_statistics_stand_beside_a_newcomer(
    world: World, moe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate's last step is given the null and the residents, but never the newcomer itself."""
    given: list[AtHand] = []
    before = examine

    def remember(folder: Path, at_hand: AtHand, **options: object) -> object:
        given.append(at_hand)
        return before(folder, at_hand, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("moehub.merge.entrance.examine", remember)
    with prepare_change(moe, add=[str(world.experts["code"])]):
        pass
    assert [sorted(one.others) for one in given] == [[], ["law", "math"]]
    assert [one.null is None for one in given] == [True, False]


def test_no_statistics_are_read_before_the_first_look(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics that would fill the memory are refused before anybody counts the null as they were counted."""
    folder, _ = _bad("2^28 pairs", tmp_path / "bad", world)
    loaded = []
    before = Statistics.load

    def remember(path: Path) -> Statistics:
        loaded.append(path)
        return before(path)

    monkeypatch.setattr(Statistics, "load", remember)
    with prepare(_recipe(world, folder)) as prepared:
        assert "[statistics-metadata]" in prepared.plan.faults[0]
    assert loaded == []


def test_a_canary_has_to_be_there(world: World, tmp_path: Path) -> None:
    """A text that is not there is named before anything is measured."""
    recipe = _recipe(world, world.experts["code"], canary=tmp_path / "nowhere")
    with pytest.raises(MergeError, match=r"--canary .*nowhere is no file"), prepare(recipe):
        pass


def test_the_base_is_at_hand_where_there_is_a_canary(
    world: World, moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward passes are made where public text was given, also for a change, and only there."""
    text = tmp_path / "public.txt"
    text.write_text("the court finds that the lessee shall pay the rent. " * 50, encoding="utf-8")
    given: list[AtHand] = []
    before = examine

    def remember(folder: Path, at_hand: AtHand, **options: object) -> object:
        given.append(at_hand)
        return before(folder, at_hand, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("moehub.merge.entrance.examine", remember)
    for canary in (None, text):
        with prepare(_recipe(world, world.experts["code"], canary=canary)):
            pass
        with prepare_change(moe, add=[str(world.experts["code"])], canary=canary):
            pass
    looks = [(one.canary, one.base is None) for one in given]
    assert set(looks[: len(looks) // 2]) == {(None, True)}
    assert set(looks[len(looks) // 2 :]) == {(text, False)}


def test_a_lock_lets_nobody_in_unchecked(world: World, moe: Path, tmp_path: Path) -> None:
    """Making a MoE again looks at its experts again: a folder may have changed since."""
    folder = Path(shutil.copytree(world.experts["law"], tmp_path / "law"))
    with prepare(_recipe(world, folder)) as prepared:
        prepared.write(tmp_path / "one")
    content = bytearray((folder / ADAPTER_WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / ADAPTER_WEIGHTS).write_bytes(content)
    with prepare_again(tmp_path / "one" / "merge.lock") as again:
        assert again.plan.faults[0].startswith(f"{folder}: [pinned-files] adapter_model.safetensors was changed")
    assert read_lock(moe / "merge.lock").experts[0].name == "law"


def test_an_old_version_is_refused_where_a_newer_was_seen(world: World, tmp_path: Path) -> None:
    """A merge remembers the versions that it took in, as a pull does, and refuses a replay of an older one."""
    hub, folder = open_hub(str(tmp_path / "hub")), Path(shutil.copytree(world.experts["law"], tmp_path / "law"))
    seal(folder, dataclasses.replace(read_card(folder), version=3))
    old = hub.push(world.experts["code"], "acme/law", message="old").commit
    hub.push(folder, "acme/law", message="new")
    with prepare(_recipe(world, "acme/law"), hub=str(tmp_path / "hub")) as prepared:
        assert prepared.plan.faults == ()
    assert seen.highest(hub.location, "acme/law") == 3
    files.write_text(tmp_path / "hub" / "acme" / "law" / "refs" / "main", old + "\n")
    with prepare(_recipe(world, "acme/law"), hub=str(tmp_path / "hub")) as prepared:
        assert "acme/law: [version] it is version 1, but version 3 was seen before" in prepared.plan.faults[0]
    with prepare(_recipe(world, f"acme/law@{old}"), hub=str(tmp_path / "hub")) as prepared:
        assert prepared.plan.faults == ()


def test_what_a_pinned_publisher_did_not_sign_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a key is pinned, a merge takes in nothing else."""
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "keys"))
    Keyring.open_default().pin("acme", publisher(tmp_path / "acme" / "key").public)
    open_hub(str(tmp_path / "hub")).push(world.experts["law"], "acme/law", message="unsigned")
    with prepare(_recipe(world, "acme/law"), hub=str(tmp_path / "hub")) as prepared:
        assert prepared.plan.faults[0].startswith("acme/law: [signature] it is not signed")


def test_a_null_from_a_hub_is_checked_too(world: World, tmp_path: Path) -> None:
    """Its statistics decide all routes, so they pass the gate as any expert's do."""
    bad, _ = _bad("2^60 pairs", tmp_path / "bad", world)
    hub = tmp_path / "hub"
    commit = files.tree_digest(bad)
    shutil.copytree(bad, hub / "acme" / "null" / "commits" / commit)
    files.write_text(hub / "acme" / "null" / "refs" / "main", commit + "\n")
    files.write_text(hub / "hub.json", files.to_json({"kind": "moehub folder hub", "format": 1}))
    recipe = dataclasses.replace(_recipe(world, world.experts["law"]), null="acme/null")
    with pytest.raises(AdmissionError, match=r"acme/null: \[statistics-metadata\]"), prepare(recipe, hub=str(hub)):
        pass


def test_an_expert_without_statistics_stands_beside_nobody(world: World, tmp_path: Path) -> None:
    """Arrow needs no statistics, and the gate compares none."""
    folder = Path(shutil.copytree(world.experts["law"], tmp_path / "law"))
    (folder / STATISTICS_FILE).unlink()
    seal(folder, read_card(folder))
    assert admitted(str(folder), hub=None, workspace=tmp_path).statistics is None


def test_a_repo_is_fetched_unopened(world: World, tmp_path: Path) -> None:
    """A hub's `fetch` brings a card that nobody could parse; `pull` refuses it."""
    bad, code = _bad("card nested without end", tmp_path / "bad", world)
    hub, commit = tmp_path / "hub", files.tree_digest(bad)
    shutil.copytree(bad, hub / "acme" / "law" / "commits" / commit)
    files.write_text(hub / "acme" / "law" / "refs" / "main", commit + "\n")
    files.write_text(hub / "hub.json", files.to_json({"kind": "moehub folder hub", "format": 1}))
    assert open_hub(str(hub)).fetch("acme/law", None, tmp_path / "fetched") == commit
    assert (tmp_path / "fetched" / CARD_FILE).read_bytes() == (bad / CARD_FILE).read_bytes()
    with pytest.raises(HubError, match="is damaged"):
        open_hub(str(hub)).pull("acme/law", None, tmp_path / "pulled")
    with pytest.raises(AdmissionError, match=rf"acme/law: \[{code}\]"):
        admitted("acme/law", hub=str(hub), workspace=tmp_path / "w")
