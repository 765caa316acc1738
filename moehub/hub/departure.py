"""What happens to a folder before it leaves for a hub: its version grows, and its signature is made or checked.

Both are written into the publisher's own folder, so that it holds what was published.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from moehub import console, files
from moehub.card import CARD_FILE, README, SIGNATURE_FILE, Card, parse_card, read_card
from moehub.errors import ExpertError, HubError, SigningError
from moehub.hub import Hub, parcel, seen
from moehub.hub.model_card import with_front_matter
from moehub.signing import keys, signature


def make_ready(hub: Hub, folder: Path, repo: str, *, key: Path | None) -> parcel.Parcel:
    """Return what of `folder` is to be published as `repo`, with a version newer than the hub's, signed by `key`.

    Raises:
        HubError: the folder may not travel, its signature is not over what would travel, or the hub cannot be asked.
        SigningError: the key cannot sign, or nothing to sign with is installed.
    """
    packed = parcel.pack(folder)
    name = parcel.SIGNATURES[packed.kind]
    fingerprint = None if key is None else keys.fingerprint(keys.read_private(key))
    if packed.kind == "expert" and _settle_version(hub, packed, repo, signing=key is not None):
        packed = parcel.pack(folder)
    if key is not None and not _is_signed(packed, repo, fingerprint):
        text = signature.sign(packed.contents(), repo=repo, key=key, workspace=folder)
        files.write_text(folder / name, text)
        _say(f"signed {repo} with the key {fingerprint}")
        packed = parcel.pack(folder)
    if name in packed.files and not _is_signed(packed, repo, fingerprint):
        raise HubError(_stale(folder / name, repo))
    return packed


def _settle_version(hub: Hub, packed: parcel.Parcel, repo: str, *, signing: bool) -> bool:
    """Give the folder a version above the hub's, unless it is what the hub holds; return whether it was changed.

    Raises:
        HubError: the hub cannot be asked, or a signature would no longer hold.
    """
    held = hub.peek(repo, (CARD_FILE, README, SIGNATURE_FILE))
    if SIGNATURE_FILE in held and SIGNATURE_FILE not in packed.files and not signing:
        _say(f"note: {repo} was signed until now; whoever pinned its key refuses what is not: push with --sign")
    card, readme = read_card(packed.folder), packed.readme
    version = _next_version(card, readme, _held_card(held), held, seen.highest(hub.location, repo) or 0)
    if version == card.version:
        return False
    if not signing and SIGNATURE_FILE in packed.files:
        raise HubError(_stale(packed.folder / SIGNATURE_FILE, repo))
    raised, text = _with_version(card, readme, version)
    if (packed.folder / README).is_file():
        files.write_text(packed.folder / README, text)
    files.write_text(packed.folder / CARD_FILE, raised.to_json())
    _say(f"{packed.folder / CARD_FILE} is version {version} now, was {card.version}: {repo} has been published before")
    return True


def _next_version(card: Card, readme: str, theirs: Card | None, held: Mapping[str, bytes], known: int) -> int:
    """Return the version to publish under: as it is where it is newer, the hub's where it is the same expert."""
    newest = theirs.version if theirs else 0
    if card.version > newest:
        return card.version if card.version >= known else known + 1
    same, text = _with_version(card, readme, newest)
    if newest >= known and same == theirs and text.encode() == held.get(README):
        return newest
    return max(newest, known) + 1


def _with_version(card: Card, readme: str, version: int) -> tuple[Card, str]:
    """Return the card and its README as they are under another version."""
    changed = dataclasses.replace(card, version=version)
    text = readme.replace(f"| version | {card.version} |", f"| version | {version} |", 1)
    return changed, with_front_matter(changed, text)


def _held_card(held: Mapping[str, bytes]) -> Card | None:
    """Return the card that the hub holds; a stranger's may be none, and then no version of it counts."""
    if CARD_FILE not in held:
        return None
    try:
        return parse_card(json.loads(held[CARD_FILE]), source=CARD_FILE)
    except (ValueError, RecursionError, ExpertError):
        return None


def _is_signed(packed: parcel.Parcel, repo: str, fingerprint: str | None) -> bool:
    """Say whether the folder's signature is over just what travels, for this repo, and by this key, if one is named."""
    name = parcel.SIGNATURES[packed.kind]
    if name not in packed.files:
        return False
    try:
        claim = signature.read_claim(packed.folder / name)
    except SigningError:
        return False
    digests = {file: digest for file, digest in packed.digests().items() if file != name}
    return (claim.repo, claim.digests) == (repo, digests) and fingerprint in (None, claim.fingerprint)


def _stale(path: Path, repo: str) -> str:
    return (
        f"{path} does not sign what would be published as {repo} (something was changed after it was signed, or it was "
        "signed for another repo): push with --sign, or remove the signature"
    )


def _say(what: str) -> None:
    console.console.print(what, markup=False)
