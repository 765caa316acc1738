"""PEFT and transformers, as they are, with everything on this hub: online, offline, and without links."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub.hub.remote import RemoteHub
from moehub.hubserver import serve
from moehub.hubserver.settings import ServerSettings
from moehub.merge import merging
from tests.hubserver.loading import SENTENCE
from tests.world import World

pytestmark = [
    # huggingface_hub uploads with an argument that httpx2 renamed.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    # PEFT still asks transformers under an old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
CHECKOUT = Path(__file__).parents[2]


def program(home: Path, url: str, *arguments: object, **variables: str) -> dict[str, float]:
    """Run the program that loads and pushes; return what it printed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = plain | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_TOKEN": "anybody",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.hubserver.loading", *map(str, arguments)],
        cwd=CHECKOUT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def here(model: torch.nn.Module, base: Path) -> float:
    """Return what a model answers in this process."""
    ids = AutoTokenizer.from_pretrained(base)(SENTENCE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return round(float(model.eval()(ids).logits.sum()), 3)


@pytest.fixture(scope="module")
def expected(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, dict[str, float]]]:
    """A hub with a base and an adapter from `push_to_hub`, an expert and a MoE from moehub, and what each answers."""
    folder = tmp_path_factory.mktemp("loaders")
    recipe = merging.Recipe(str(world.base), world.references(), str(world.null), embed_base=True)
    with merging.prepare(recipe) as prepared:
        prepared.write(folder / "moe")
    settings = ServerSettings(folder / "root", port=0, open=True, gate=False)
    with serve.running(settings) as url:
        answers = program(folder / "home", url, "push", world.base)
        hub = RemoteHub(url)
        hub.push(world.experts["law"], "acme/law", message="first")
        hub.push(folder / "moe", "acme/moe", message="first")
        base = AutoModelForCausalLM.from_pretrained(world.base)
        answers["moe"] = here(AutoModelForCausalLM.from_pretrained(folder / "moe"), world.base)
        answers["law"] = here(PeftModel.from_pretrained(base, str(world.experts["law"])), world.base)
        yield url, folder, answers


def test_everything_loads_by_its_name(expected: tuple[str, Path, dict[str, float]]) -> None:
    """A model, a tokenizer, adapters with their base on the same hub and a MoE answer as they did where they were.

    And again offline, from the cache that this filled, with nobody listening.
    """
    url, folder, answers = expected
    assert len(set(answers.values())) == 4
    assert program(folder / "loaded", url, "load") == answers
    assert program(folder / "loaded", "http://127.0.0.1:9", "load", HF_HUB_OFFLINE="1") == answers


def test_everything_loads_without_links(expected: tuple[str, Path, dict[str, float]]) -> None:
    """On a disk that has none the cache holds plain files."""
    url, folder, answers = expected
    assert program(folder / "plain", url, "load", HF_HUB_DISABLE_SYMLINKS="1") == answers
    assert [path for path in (folder / "plain").rglob("*") if path.is_symlink()] == []
