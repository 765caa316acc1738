import json
from pathlib import Path

import pytest

from moehub import files
from moehub.errors import HubError
from moehub.hub.model_card import render_expert
from moehub.hub.parcel import check_destination, kind_of, pack, travels, verify
from tests.published import paper_card, paper_expert, paper_moe

EXPERT_FILES = ["adapter_config.json", "adapter_model.safetensors", "expert.json", "router_stats.safetensors"]


def test_an_expert_travels_with_its_five_files(tmp_path: Path) -> None:
    """The four files and a model card that is written where there is none."""
    packed = pack(paper_expert(tmp_path / "law"))
    assert (packed.kind, packed.name, list(packed.files)) == ("expert", "law", EXPERT_FILES)
    assert packed.readme.split("---\n")[2] == render_expert(paper_card()).split("---\n")[2]


def test_the_digests_of_a_parcel_are_those_of_the_folder_it_becomes(tmp_path: Path) -> None:
    """So that a commit's name can be known before anything is copied."""
    folder = paper_expert(tmp_path / "law")
    packed = pack(folder)
    (folder / "README.md").write_text(packed.readme, encoding="utf-8")
    assert files.digest_of(packed.digests()) == files.tree_digest(folder)
    assert packed.size == sum(path.stat().st_size for path in folder.iterdir())


def test_a_moe_travels_with_its_experts_tables_and_tokenizer(tmp_path: Path) -> None:
    """Everything that `moehub merge` writes, and nothing that is hidden."""
    folder = paper_moe(tmp_path / "moe")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "junk").write_text("x")
    packed = pack(folder)
    mine = {"config.json", "merge.lock", "router.safetensors", "tokenizer.json"}
    theirs = {f"experts/{name}/{file}" for name in ("code", "law") for file in EXPERT_FILES}
    assert (packed.kind, set(packed.files)) == ("moe", mine | theirs)


def test_every_stranger_in_a_folder_is_named(tmp_path: Path) -> None:
    """Pickles, code and training state do not travel, and one run says so of all of them."""
    folder = paper_expert(tmp_path / "law")
    for name in ("training_args.bin", "modeling.py"):
        (folder / name).write_text("x")
    with pytest.raises(HubError, match=r"(?s)modeling\.py does not belong.*training_args\.bin does not belong"):
        pack(folder)
    moe = paper_moe(tmp_path / "moe")
    (moe / "pytorch_model.bin").write_text("x")
    with pytest.raises(HubError, match=r"pytorch_model\.bin does not belong in a MoE folder"):
        pack(moe)


def test_a_folder_that_is_neither_expert_nor_moe_is_refused_with_the_cure(tmp_path: Path) -> None:
    """The sentence says which commands make one."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HubError, match="moehub train-expert"):
        pack(tmp_path)


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    """One flipped byte in the weights is enough."""
    folder = paper_expert(tmp_path / "law")
    (folder / "adapter_model.safetensors").write_bytes(b"Weights")
    with pytest.raises(HubError, match=r"adapter_model\.safetensors was changed after publication"):
        verify(folder)


def test_a_damaged_card_is_a_hub_error(tmp_path: Path) -> None:
    """Whatever arrives damaged from a hub is reported in the same way."""
    folder = paper_expert(tmp_path / "law")
    (folder / "expert.json").write_text("{")
    with pytest.raises(HubError, match=r"expert\.json is damaged"):
        verify(folder)


def test_a_changed_file_in_a_moes_expert_is_found(tmp_path: Path) -> None:
    """Each expert of a MoE is checked by its own card."""
    folder = paper_moe(tmp_path / "moe")
    (folder / "experts" / "law" / "adapter_config.json").write_text("[]")
    with pytest.raises(HubError, match=r"experts/law: adapter_config\.json was changed"):
        verify(folder)


def test_an_expert_swapped_for_another_valid_one_is_found(tmp_path: Path) -> None:
    """An expert that fits its own card is not enough: the MoE pins the card."""
    folder = paper_moe(tmp_path / "moe")
    paper_expert(folder / "experts" / "law", weights=b"another law")
    with pytest.raises(HubError, match="experts/law is not the expert that was merged"):
        verify(folder)


def test_an_expert_that_is_missing_from_a_moe_is_found(tmp_path: Path) -> None:
    """The configuration and the folder name the same experts."""
    folder = paper_moe(tmp_path / "moe")
    paper_expert(folder / "experts" / "extra")
    with pytest.raises(HubError, match=r"lists the experts \['code', 'law'\], but the folder holds"):
        verify(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "llama"}', '{"model_type": "moehub", "experts": [1]}'])
def test_a_damaged_or_foreign_configuration_is_refused(tmp_path: Path, text: str) -> None:
    """A MoE is known by its configuration, whatever a stranger wrote there."""
    folder = paper_moe(tmp_path / "moe")
    (folder / "config.json").write_text(text)
    with pytest.raises(HubError, match=r"config\.json"):
        verify(folder)


def test_a_moe_whose_base_nobody_else_has_is_not_published(tmp_path: Path) -> None:
    """The sentence says how to merge it so that others can use it."""
    folder = paper_moe(tmp_path / "moe", location="/home/me/base")
    with pytest.raises(HubError, match="/home/me/base, which nobody else has: merge with `--embed-base`"):
        pack(folder)
    assert verify(folder) == "moe"


def test_a_lock_that_names_folders_of_this_machine_is_noted(tmp_path: Path) -> None:
    """It leaks a path and cannot be used by others, but the MoE works."""
    assert pack(paper_moe(tmp_path / "clean")).notes == ()
    (note,) = pack(paper_moe(tmp_path / "local", source="/home/me/law")).notes
    assert "merge from the hub" in note


def test_a_moe_without_readme_is_not_published(tmp_path: Path) -> None:
    """Hubs find and show models by it."""
    folder = paper_moe(tmp_path / "moe")
    (folder / "README.md").unlink()
    with pytest.raises(HubError, match=r"README\.md is missing: merge again"):
        pack(folder)


def test_a_damaged_lock_is_not_published(tmp_path: Path) -> None:
    """The lock is how others make the MoE again."""
    folder = paper_moe(tmp_path / "moe")
    (folder / "merge.lock").write_text(json.dumps({"experts": 3}))
    with pytest.raises(HubError, match=r"merge\.lock is damaged"):
        pack(folder)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("expert", "expert.json", True),
        ("expert", "adapter_model.bin", False),
        ("expert", "sub/expert.json", False),
        ("expert", ".gitattributes", False),
        ("moe", "tokenizer.json", True),
        ("moe", "base/model-00001-of-00002.safetensors", True),
        ("moe", "null/router_stats.safetensors", True),
        ("moe", "experts/law/expert.json", True),
        ("moe", "experts/law/evil.json", False),
        ("moe", "experts/../config.json", False),
        ("moe", "../config.json", False),
        ("moe", "base/../config.json", False),
        ("moe", "/etc/x.json", False),
        ("moe", "code.py", False),
        ("moe", "base/pytorch_model.bin", False),
        ("moe", "elsewhere/config.json", False),
    ],
)
def test_the_allow_list_decides_by_name(kind: str, name: str, expected: bool) -> None:
    """What is not on it is neither sent nor fetched, whatever a repo lists."""
    assert travels(kind, name) is expected  # type: ignore[arg-type]


def test_the_card_decides_what_a_repo_is() -> None:
    """A repo that was a MoE once and holds an expert now is an expert."""
    assert kind_of(["expert.json", "config.json", "merge.lock"], "acme/law") == "expert"
    assert kind_of(["config.json", "merge.lock"], "acme/law") == "moe"


def test_only_an_expert_or_a_moe_is_replaced(tmp_path: Path) -> None:
    """A pull into the wrong folder loses nothing."""
    check_destination(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty")
    check_destination(paper_expert(tmp_path / "law"))
    check_destination(paper_moe(tmp_path / "moe"))
    (tmp_path / "file").write_text("mine")
    for precious in (tmp_path, tmp_path / "file"):
        with pytest.raises(HubError, match="choose another folder"):
            check_destination(precious)
