"""Attacks of whoever may write to a hub but has no publisher's key. What they change, they make consistent again."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.card import ADAPTER_WEIGHTS, README, SIGNATURE_FILE, STATISTICS_FILE, read_card
from moehub.experts.folder import seal
from moehub.signing.keyring import Keyring
from tests.attacks import Attack
from tests.signing.signed import REPO, Publisher, publisher
from tests.world import World

_VERSION = 3
"""Of the newest that was seen."""


def at_hand(world: World) -> AtHand:
    """Return what is at hand where the publisher's key is pinned and the newest version was seen."""
    keyring = Keyring(world.base.parent / "keyring")
    keyring.pin("acme", _acme(world).public)
    return AtHand(repo=REPO, keyring=keyring, least_version=_VERSION)


def _acme(world: World) -> Publisher:
    return publisher(world.base.parent / "keys of acme" / "key")


def _copy(folder: Path, world: World, *, expert: str = "law", version: int = _VERSION) -> Path:
    """Copy a good expert."""
    shutil.copytree(world.experts[expert], folder)
    seal(folder, dataclasses.replace(read_card(folder), version=version))
    return folder


def _signed(folder: Path, world: World) -> Path:
    """Copy a good expert, signed by its publisher."""
    return _acme(world).sign(_copy(folder, world))


def _changed(change: Callable[[Path], object]) -> Callable[[Path, World], Path]:
    """Return what makes a signed expert with this change, whose card pins the files as they are then."""

    def make(folder: Path, world: World) -> Path:
        change(_signed(folder, world))
        seal(folder, read_card(folder))
        return folder

    return make


def _flip(folder: Path) -> None:
    """Turn the sign of the last number in the adapter."""
    content = bytearray((folder / ADAPTER_WEIGHTS).read_bytes())
    content[-1] ^= 0x80
    (folder / ADAPTER_WEIGHTS).write_bytes(content)


def _change_readme(folder: Path) -> None:
    with (folder / README).open("a", encoding="utf-8") as file:
        file.write("\nSend your own text to the address below, and it will answer better.\n")


def _added_file(folder: Path, world: World) -> Path:
    """Give statistics to an expert that was signed without any."""
    _copy(folder, world)
    statistics = (folder / STATISTICS_FILE).read_bytes()
    (folder / STATISTICS_FILE).unlink()
    seal(folder, read_card(folder))
    _acme(world).sign(folder)
    (folder / STATISTICS_FILE).write_bytes(statistics)
    seal(folder, read_card(folder))
    return folder


def _wrong_key(folder: Path, world: World) -> Path:
    return publisher(world.base.parent / "keys of a thief" / "key").sign(_copy(folder, world))


def _replayed(folder: Path, world: World) -> Path:
    """Hand out an old one as its publisher signed it."""
    return _acme(world).sign(_copy(folder, world, version=_VERSION - 1))


def _signature_of_another(folder: Path, world: World) -> Path:
    """Take the signature from another expert of the same publisher."""
    other = _acme(world).sign(_copy(folder.with_name(f"{folder.name}-other"), world, expert="code"))
    _copy(folder, world)
    shutil.move(other / SIGNATURE_FILE, folder / SIGNATURE_FILE)
    shutil.copyfile(other / README, folder / README)
    shutil.rmtree(other)
    return folder


def _under_another_name(folder: Path, world: World) -> Path:
    """Hand out what was signed for another repo."""
    return _acme(world).sign(_copy(folder, world), "acme/medicine")


ATTACKS = (
    Attack("flipped-byte", "signature", _changed(_flip), at_hand),
    Attack("changed-readme", "signature", _changed(_change_readme), at_hand),
    Attack("added-file", "signature", _added_file, at_hand),
    Attack("dropped-file", "signature", _changed(lambda folder: (folder / STATISTICS_FILE).unlink()), at_hand),
    Attack("dropped-signature", "signature", _changed(lambda folder: (folder / SIGNATURE_FILE).unlink()), at_hand),
    Attack("wrong-key", "signature", _wrong_key, at_hand),
    Attack("signature-of-another-expert", "signature", _signature_of_another, at_hand),
    Attack("signed-for-another-repo", "signature", _under_another_name, at_hand),
    Attack("replayed-version", "version", _replayed, at_hand),
)
