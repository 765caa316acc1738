from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hub import check_repo, open_hub, split_reference


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://hub.example.org/", "https://hub.example.org"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("/srv/experts", "file:/srv/experts"),
        ("file:/srv/experts", "file:/srv/experts"),
        ("file:///srv/experts", "file:/srv/experts"),
    ],
)
def test_a_location_says_which_hub_it_is(location: str, expected: str) -> None:
    """URLs are servers; paths, with or without file:, are folders."""
    assert open_hub(location).location == expected


def test_a_relative_path_is_a_folder_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path need not be absolute."""
    monkeypatch.chdir(tmp_path)
    assert open_hub("experts").location == f"file:{tmp_path}/experts"


def test_without_a_location_it_is_the_hub_huggingface_hub_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT decides, as it does for every other tool."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.example.org")
    assert open_hub(None).location == "https://hub.example.org"


@pytest.mark.parametrize("location", ["", "ftp://hub.example.org", "s3://bucket/hub"])
def test_other_kinds_of_locations_are_refused(location: str) -> None:
    """A mistyped URL is not taken for a folder."""
    with pytest.raises(HubError, match="expected a URL beginning with https://"):
        open_hub(location)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("acme/law", ("acme/law", None)),
        ("acme/law@v1.0", ("acme/law", "v1.0")),
        ("acme/law@exp/1", ("acme/law", "exp/1")),
    ],
)
def test_a_reference_is_a_repo_and_perhaps_a_revision(reference: str, expected: tuple[str, str | None]) -> None:
    """What follows the @ is a branch, a tag or a commit."""
    assert split_reference(reference) == expected


def test_a_reference_that_ends_in_an_at_sign_is_refused() -> None:
    """An empty revision is a slip of the keyboard."""
    with pytest.raises(HubError, match="expected a branch, tag or commit"):
        split_reference("acme/law@")


@pytest.mark.parametrize(
    "repo",
    ["law", "acme/law/x", "../law", "acme/..", "/law", "acme/", "acme/.law", "acme/la w", "acme/l--w", "acme/law.git",
     "acme\\x/law", "acme/law\n", "acme/" + "x" * 97],
)  # fmt: skip
def test_names_that_no_repo_can_have_are_refused(repo: str) -> None:
    """Nothing that could lead out of a folder, or that some hub would refuse, names a repo."""
    with pytest.raises(HubError, match="expected org/name"):
        check_repo(repo)
