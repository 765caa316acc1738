import base64
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing
import pytest

from moehub import files
from moehub.card import SIGNATURE_FILE
from moehub.errors import SigningError
from moehub.signing import keys, signature
from tests.moehub.test_imports import imported, sources
from tests.published import paper_expert
from tests.signing.signed import REPO, Publisher, publisher


def faults(folder: Path, acme: Publisher, repo: str = REPO) -> list[str]:
    return signature.faults(folder, SIGNATURE_FILE, repo=repo, key=acme.public)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the signature's bundle."""
    path = folder / SIGNATURE_FILE
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


def restate(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a signature states, without being able to sign it."""

    def inside(bundle: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    rewrite(folder, inside)


def sign_with_the_library(folder: Path, acme: Publisher, *ignored: str, git: bool = False) -> None:
    """Sign as a publisher would who calls model-signing."""
    staged = folder.parent / REPO.replace("/", "--")
    shutil.copytree(folder, staged)
    (staged / SIGNATURE_FILE).unlink()
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=git)
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=acme.key)
    config.set_hashing_config(hashing).sign(staged, folder / SIGNATURE_FILE)


def test_a_signature_holds_for_what_was_signed(law: Path, acme: Publisher) -> None:
    """Also under another folder's name."""
    assert faults(law, acme) == []
    assert faults(law.rename(law.with_name("elsewhere")), acme) == []


def test_a_signature_says_what_it_covers(law: Path, acme: Publisher) -> None:
    """Every file but itself, the model card included; for which repo; by which key."""
    claim = signature.read_claim(law / SIGNATURE_FILE)
    digests = {path.name: files.sha256(path) for path in law.iterdir() if path.name != SIGNATURE_FILE}
    assert (claim.repo, claim.fingerprint, claim.digests) == (REPO, keys.fingerprint(acme.public), digests)
    assert {"README.md", "expert.json"} < claim.digests.keys()


def test_signing_leaves_nothing_behind(tmp_path: Path, acme: Publisher) -> None:
    """And changes no file."""
    folder = paper_expert(tmp_path / "law")
    before = files.tree_digest(folder)
    contents: dict[str, Path | bytes] = {path.name: path for path in folder.iterdir()}
    signature.sign({**contents, "README.md": b"hello"}, repo=REPO, key=acme.key, workspace=folder)
    assert files.tree_digest(folder) == before


@pytest.mark.parametrize("name", ["README.md", "expert.json", "adapter_model.safetensors", "router_stats.safetensors"])
def test_one_flipped_bit_is_noticed(law: Path, acme: Publisher, name: str) -> None:
    """In any file, and the file is named."""
    content = bytearray((law / name).read_bytes())
    content[-1] ^= 1
    (law / name).write_bytes(content)
    assert faults(law, acme) == [f"{name} was changed after it was signed"]


@pytest.mark.parametrize("name", ["notes.txt", ".gitattributes", ".git/config", ".github/x.yml", ".gitignore", "a/b"])
def test_an_added_file_is_noticed(law: Path, acme: Publisher, name: str) -> None:
    """Also a hidden one, and one that model-signing would ignore."""
    (law / name).parent.mkdir(exist_ok=True)
    (law / name).write_text("x")
    assert faults(law, acme) == [f"{name!r} is not signed"]


def test_a_dropped_file_is_noticed(law: Path, acme: Publisher) -> None:
    """By its name."""
    (law / "router_stats.safetensors").unlink()
    assert faults(law, acme) == ["'router_stats.safetensors' was signed and is missing"]


def test_a_link_is_noticed(law: Path, acme: Publisher) -> None:
    """Even one to the same bytes: they can change afterwards."""
    (law / "README.md").rename(law.parent / "README.md")
    (law / "README.md").symlink_to(law.parent / "README.md")
    assert faults(law, acme) == ["'README.md' is a link, which no signature covers"]


def test_a_dropped_signature_is_noticed(law: Path, acme: Publisher) -> None:
    """No signature is no excuse."""
    (law / SIGNATURE_FILE).unlink()
    assert faults(law, acme) == ["it is not signed: there is no expert.sig"]


def test_the_key_of_another_is_noticed(tmp_path: Path, acme: Publisher) -> None:
    """A good signature by the wrong key, also where it says that it is by the right one."""
    thief = publisher(tmp_path / "thief" / "key")
    folder = thief.sign(paper_expert(tmp_path / "law"))
    expected = keys.fingerprint(acme.public)
    assert faults(folder, acme) == [
        f"it is signed with the key '{keys.fingerprint(thief.public)}', expected {expected}"
    ]
    rewrite(folder, lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=expected))
    assert faults(folder, acme) == ["expert.sig is no signature by that key (InvalidSignature)"]


def test_the_signature_of_another_expert_is_noticed(tmp_path: Path, law: Path, acme: Publisher) -> None:
    """Of the same publisher, for the same repo."""
    other = acme.sign(paper_expert(tmp_path / "other", weights=b"other weights"))
    shutil.copyfile(other / SIGNATURE_FILE, law / SIGNATURE_FILE)
    assert sorted(faults(law, acme)) == [
        f"{name} was changed after it was signed" for name in ("README.md", "adapter_model.safetensors", "expert.json")
    ]


def test_an_expert_is_not_accepted_in_place_of_another(law: Path, acme: Publisher) -> None:
    """A hub cannot hand out acme/law under the name of acme/medicine, though acme signed every byte."""
    assert faults(law, acme, "acme/medicine") == ["its signature was made for 'acme/law', not for acme/medicine"]
    assert faults(law, acme, "Acme/Law") == []


def test_what_a_signature_states_cannot_be_changed(law: Path, acme: Publisher) -> None:
    """Neither the repo nor a digest: the statement itself is what is signed."""
    restate(law, lambda statement: statement["subject"][0].update(name="acme--medicine"))
    assert faults(law, acme, "acme/medicine") == ["expert.sig is no signature by that key (InvalidSignature)"]


def test_a_changed_file_with_a_matching_statement_is_noticed(law: Path, acme: Publisher) -> None:
    """Whoever changes both has no key to sign with."""
    (law / "README.md").write_text("changed")

    def adapt(statement: dict[str, Any]) -> None:
        for resource in statement["predicate"]["resources"]:
            resource["digest"] = files.sha256(law / resource["name"])

    restate(law, adapt)
    assert faults(law, acme) == ["expert.sig is no signature by that key (InvalidSignature)"]


def test_a_publisher_cannot_leave_files_out(law: Path, acme: Publisher) -> None:
    """A statement that asks for files to be ignored is none of ours: what it does not cover could be anything."""
    sign_with_the_library(law, acme, "README.md")
    (said,) = faults(law, acme)
    assert said.startswith("expert.sig is no signature that `moehub push --sign` made")


def test_a_signature_by_the_library_over_every_file_holds(law: Path, acme: Publisher) -> None:
    """It is model-signing's format, and nothing of our own."""
    sign_with_the_library(law, acme)
    assert faults(law, acme) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"dsseEnvelope": 3}', b" " * (1 << 21)],
)
def test_what_is_no_signature_is_said_to_be_none(law: Path, acme: Publisher, content: bytes) -> None:
    """Whatever a stranger put in its place."""
    (law / SIGNATURE_FILE).write_bytes(content)
    (said,) = faults(law, acme)
    assert said.startswith("expert.sig is no signature that `moehub push --sign` made")


def test_a_bundle_of_megabytes_is_not_read(law: Path, acme: Publisher) -> None:
    """Though it would be a good one: blanks mean nothing in JSON."""
    path = law / SIGNATURE_FILE
    path.write_text(path.read_text() + " " * (1 << 20))
    (said,) = faults(law, acme)
    assert "more than 1048576 bytes" in said


def test_a_second_envelope_under_another_name_is_refused(law: Path, acme: Publisher) -> None:
    """We would look at one, and the library verify the other."""
    rewrite(law, lambda bundle: bundle.update(dsse_envelope=bundle["dsseEnvelope"]))
    (said,) = faults(law, acme)
    assert said.startswith("expert.sig is no signature that `moehub push --sign` made")


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"].update(signatures=None),
        lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
        lambda bundle: bundle["verificationMaterial"].update(tlogEntries=3),
        lambda bundle: bundle.update(mediaType="text/plain"),
    ],
)
def test_a_bundle_that_the_library_stumbles_over_is_no_signature(
    law: Path, acme: Publisher, change: Callable[[dict[str, Any]], object]
) -> None:
    """Whatever the library raises, nothing was verified."""
    rewrite(law, change)
    (said,) = faults(law, acme)
    assert said.startswith("expert.sig is no signature by that key")


def test_nothing_is_sent_anywhere(tmp_path: Path, acme: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log, no time stamp, no server: no socket is opened to sign or to verify."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert faults(acme.sign(paper_expert(tmp_path / "law")), acme) == []


def test_without_the_library_nothing_passes(law: Path, acme: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a key is pinned, an expert that cannot be verified is not taken for a good one."""
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(SigningError, match=r"pip install 'moehub\[signing\]'"):
        faults(law, acme)
    with pytest.raises(SigningError, match=r"pip install 'moehub\[signing\]'"):
        acme.sign(law)


def test_one_module_knows_the_library() -> None:
    """So that an upgrade touches one file."""
    users = {name for name, path in sources() if any(one.split(".")[0] == "model_signing" for one in imported(path))}
    assert users == {"moehub.signing.signature"}
