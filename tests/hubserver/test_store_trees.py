"""What a commit holds: the names that files may have, and what git would call them."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.trees import Entry

HEX = st.text("0123456789abcdef", min_size=40, max_size=64)
ENTRIES = st.builds(Entry, HEX, st.integers(0, 1 << 50), HEX, st.booleans())


@given(st.dictionaries(st.text(), ENTRIES))
def test_a_tree_survives_its_json(tree: dict[str, Entry]) -> None:
    """And equal trees are equal text, in whatever order they were made."""
    assert trees.from_json(trees.to_json(tree)) == tree
    assert trees.to_json(dict(reversed(tree.items()))) == trees.to_json(tree)


def test_files_are_called_what_git_calls_them() -> None:
    """Small ones by their bytes, large ones by the pointer that git would hold."""
    entry = trees.regular(b"the lessee\n", "ab" * 32)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 7\n".encode()
    assert trees.large("ab" * 32, 7).oid == trees.regular(pointer, "").oid
    assert trees.large("ab" * 32, 7).pointer_size == len(pointer)
    git = subprocess.run(["git", "hash-object", "--stdin"], input=b"the lessee\n", capture_output=True, check=False)  # noqa: S607
    if git.returncode == 0:
        assert entry.oid == git.stdout.decode().strip()


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../x", "a/../b", "a/./b", ".git/config", "a/.GIT/hooks",
        "a\\b", "c:x", "a\0b", "a\nb", "a\u202eb", "a\ud800", "x ", "x.", "a?b", "con", "AUX.json", "a/com1.txt",
        "x" * 256, "/".join(["x" * 200] * 6), "é" * 128,
    ],
)  # fmt: skip
def test_a_path_that_some_system_cannot_store_is_refused(path: str) -> None:
    """Or that leads out of the folder it is put into."""
    with pytest.raises(RefusedError, match="cannot be a file's name") as refused:
        trees.check_path(path)
    assert refused.value.status == 400


@pytest.mark.parametrize("path", ["README.md", ".gitattributes", "a/b.c/d", "é.json", "..a", "a b.txt", "common.txt"])
def test_other_paths_stand(path: str) -> None:
    """As they are."""
    assert trees.check_path(path) == path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a/training_args.BIN", "x.pt", "x.pkl", "weights.ckpt", "x.npz"])
def test_pickles_are_refused_unless_they_are_wanted(name: str) -> None:
    """Loading one runs whatever code it holds."""
    with pytest.raises(RefusedError, match="is a pickle by its name"):
        trees.check_path(name)
    assert trees.check_path(name, pickles=True) == name


@pytest.mark.parametrize(
    "names", [["a", "A"], ["a", "a/b"], ["A", "a/b"], ["x/a", "X/b"], ["é", "e\u0301"], ["é", "e\u0301/b"], ["ß", "SS"]]
)
def test_files_that_cannot_stand_in_one_folder_are_refused(names: list[str]) -> None:
    """By case, by the way an accent is written, or because one is a file and a folder."""
    with pytest.raises(RefusedError) as refused:
        trees.check_tree(names)
    assert refused.value.status == 400


def test_other_files_stand_in_one_folder() -> None:
    """Also where one's name begins another's."""
    trees.check_tree(["a", "ab", "b/a", "b/c/a", "b.d/a", "B2/x"])
