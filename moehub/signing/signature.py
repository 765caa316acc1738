"""Signatures over a published folder: every file of it, the repo it was published as, and nobody else's key.

The only module that knows model_signing, which must be installed only where something is signed or a key is pinned.
A signature is a file in the folder, in the format of model-signing: a Sigstore bundle over an in-toto statement. No log
and no server takes part. What the library would let through is refused here:

* files that it ignores (`.git*`), and those that a statement asks it to ignore
* a statement for another repo: its subject is named after the repo
* statements and bundles of formats from before its version 1.0
"""

import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import files
from moehub.errors import SigningError
from moehub.signing import keys

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_EVERY_FILE = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
_BUNDLE = {"mediaType", "verificationMaterial", "dsseEnvelope"}
_ENVELOPE = {"payload", "payloadType", "signatures"}
_BETWEEN = "--"
"""For the slash of `org/name` in the name of a statement's subject, which is a folder's; no repo holds it."""
_LONGEST = 1 << 20
"""Bytes: a MoE of a thousand experts needs less."""


@dataclass(frozen=True)
class Claim:
    """What a signature says, whether or not it is true."""

    repo: str
    """`org/name` that the folder was signed for."""
    fingerprint: str
    """The key it was signed with."""
    digests: Mapping[str, str]
    """Name of every signed file → sha256 in hex."""


def sign(contents: Mapping[str, Path | bytes], *, repo: str, key: Path, workspace: Path) -> str:
    """Return the text of a signature over files, given by name as paths or as bytes, by the private key `key`.

    `workspace` is a folder that can be written to; on the files' own file system nothing is copied.

    Raises:
        SigningError: the key cannot sign, or model-signing is not installed.
    """
    keys.read_private(key)
    library = _library()
    config = library.signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(_every_file(library))
    with tempfile.TemporaryDirectory(dir=workspace, prefix=".signing.") as place:
        staged, made = Path(place, repo.replace("/", _BETWEEN)), Path(place, "signature")
        for name, content in contents.items():
            _stage(content, staged / name)
        config.sign(staged, made)
        return made.read_text(encoding="utf-8")


def read_claim(path: Path) -> Claim:
    """Return what the signature in a file says.

    Raises:
        SigningError: the file holds no signature over whole files, as `moehub push --sign` makes it.
    """
    try:
        return _parse(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SigningError(f"{path.name} is no signature that `moehub push --sign` made ({error!r:.120})") from error


def _parse(path: Path) -> Claim:
    if path.is_symlink() or path.stat().st_size > _LONGEST:
        raise ValueError(f"a link, or more than {_LONGEST} bytes")
    bundle = json.loads(path.read_text(encoding="utf-8"))
    # No other keys: the library reads some of them under two names, and would verify the one that we did not look at.
    if bundle.keys() != _BUNDLE or bundle["dsseEnvelope"].keys() != _ENVELOPE:
        raise ValueError(f"keys {sorted(bundle)}")
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
    (subject,), predicate = statement["subject"], statement["predicate"]
    kind = statement["_type"], statement["predicateType"], predicate["serialization"]
    if kind != (_STATEMENT, _PREDICATE, _EVERY_FILE):
        raise ValueError(f"statement {kind}")
    digests = {str(one["name"]): str(one["digest"]) for one in predicate["resources"]}
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    return Claim(subject["name"].replace(_BETWEEN, "/"), str(hint), digests)


def faults(folder: Path, signature: str, *, repo: str, key: str) -> list[str]:
    """Return what speaks against the signature file of that name in `folder`; nothing does where it holds.

    Args:
        folder: what was published: the signature covers every other file in it.
        signature: the name of the signature file.
        repo: `org/name` that the folder was published as.
        key: the publisher's public key, in PEM.

    Raises:
        SigningError: model-signing is not installed.
    """
    library = _library()
    if not (folder / signature).exists():
        return [f"it is not signed: there is no {signature}"]
    try:
        claim = read_claim(folder / signature)
    except SigningError as error:
        return [str(error)]
    expected = keys.fingerprint(key)
    if claim.fingerprint != expected:
        return [f"it is signed with the key {claim.fingerprint!r:.80}, expected {expected}"]
    if claim.repo.lower() != repo.lower():
        return [f"its signature was made for {claim.repo!r:.200}, not for {repo}"]
    return list(_uncovered(folder, signature, claim)) or _broken(library, folder, signature, key, claim)


def _uncovered(folder: Path, signature: str, claim: Claim) -> Iterator[str]:
    """Yield what is signed and missing, and what is there and not signed, hidden files and links included."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    links = sorted(name for name in present if (folder / name).is_symlink())
    yield from (f"{name!r:.200} is a link, which no signature covers" for name in links)
    yield from (f"{name!r:.200} was signed and is missing" for name in sorted(claim.digests.keys() - present))
    yield from (f"{name!r:.200} is not signed" for name in sorted(present - claim.digests.keys() - {signature}))


def _broken(library: Any, folder: Path, signature: str, key: str, claim: Claim) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        public = Path(place, "key.pub")
        public.write_text(key, encoding="ascii")
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=public)
        config.set_hashing_config(_every_file(library, signature))
        try:
            config.verify(folder, folder / signature)
        except Exception as error:  # noqa: BLE001 (whatever a stranger's bundle makes it raise: it was not verified)
            changed = [name for name, digest in claim.digests.items() if files.sha256(folder / name) != digest]
            return [f"{name} was changed after it was signed" for name in changed] or [
                f"{signature} is no signature by that key ({type(error).__name__})"
            ]
    return []


def _every_file(library: Any, *ignored: str) -> Any:
    """Return the library's settings for hashing every file of a folder but those that are named."""
    config = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    return config.set_ignored_paths(paths=ignored, ignore_git_paths=False)


def _library() -> Any:
    """Return model_signing.

    Raises:
        SigningError: it is not installed.
    """
    try:
        import model_signing
    except ImportError as error:
        raise SigningError(
            f"signing and verifying need model-signing, which is not installed ({error}): "
            "run `pip install 'moehub[signing]'`"
        ) from error
    return model_signing


def _stage(content: Path | bytes, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    source = content.resolve()
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
