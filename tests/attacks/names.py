"""Step 1: files that do not belong in an expert's folder."""

import os
import pickle
from pathlib import Path

from moehub.card import ADAPTER_CONFIG, CARD_FILE, README
from tests.attacks import Attack
from tests.attacks.forging import changed


def _dropped(name: str) -> Attack:
    return Attack(f"missing {name}", "missing-file", changed(lambda folder: (folder / name).unlink(), sealed=False))


def _added(attack: str, code: str, name: str, content: bytes = b"x") -> Attack:
    return Attack(attack, code, changed(lambda folder: (folder / name).write_bytes(content), sealed=False))


def _git_folder(folder: Path) -> None:
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh\n", encoding="utf-8")


def _link(folder: Path) -> None:
    (folder / README).unlink(missing_ok=True)
    (folder / README).symlink_to("/etc/hostname")


def _link_inside(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).rename(folder.parent / f"{folder.name}.aside")
    (folder / ADAPTER_CONFIG).symlink_to(folder.parent / f"{folder.name}.aside")


def _pipe(folder: Path) -> None:
    (folder / README).unlink(missing_ok=True)
    os.mkfifo(folder / README)


def _folder(folder: Path) -> None:
    (folder / README).unlink(missing_ok=True)
    (folder / README).mkdir()


ATTACKS = (
    _dropped(CARD_FILE),
    _dropped(ADAPTER_CONFIG),
    _dropped("adapter_model.safetensors"),
    _added("code beside the adapter", "stray-file", "modeling_law.py", b"import os\n"),
    _added("tokenizer beside the adapter", "stray-file", "tokenizer.json", b"{}"),
    _added("file that a terminal obeys", "stray-file", "\x1b[2J.txt"),
    Attack("folder of files", "stray-file", changed(lambda folder: (folder / "sub").mkdir(), sealed=False)),
    _added("git attributes", "hidden-file", ".gitattributes", b"* filter=evil\n"),
    Attack("git folder", "hidden-file", changed(_git_folder, sealed=False)),
    _added("pickled weights", "pickle-file", "adapter_model.bin", pickle.dumps({"a": 1})),
    _added("pickled training arguments", "pickle-file", "training_args.PT", pickle.dumps([1])),
    Attack("link that leads outside", "linked-file", changed(_link, sealed=False)),
    Attack("link in place of a pinned file", "linked-file", changed(_link_inside, sealed=False)),
    Attack("pipe that never ends", "special-file", changed(_pipe, sealed=False)),
    Attack("folder in place of a file", "special-file", changed(_folder, sealed=False)),
)
