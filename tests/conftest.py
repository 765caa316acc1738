"""Shared fixtures: one small base for the whole session, and a cache that is nobody's own."""

import atexit
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

# Set before huggingface_hub is imported anywhere: tests never touch a person's cache or the network.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="moehub-tests-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
# Nor a person's keys, nor what a person has seen of hubs.
os.environ["MOEHUB_KEYS"] = str(Path(os.environ["HF_HOME"]) / "keys")
os.environ["MOEHUB_STATE"] = str(Path(os.environ["HF_HOME"]) / "state")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Triton interprets our programs on a CPU; read when it is imported. `TRITON_INTERPRET=0` compiles them, for a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Several test processes share the cores, and small models gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_TESTS = itertools.count()


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test remember what another saw: hubs of tests share addresses and names of repos."""
    monkeypatch.setenv("MOEHUB_STATE", str(Path(os.environ["HF_HOME"]) / "state" / str(next(_TESTS))))


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with a byte-level tokenizer."""
    from tests.builders import tiny_base

    return tiny_base(tmp_path_factory.mktemp("base") / "tiny-llama")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """A base, three experts, generic text, made once."""
    from tests.world import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """A base and three experts that publish sums of hidden states beside their counts, made once."""
    from tests.world import make_described_world

    return make_described_world(tmp_path_factory.mktemp("described"))
