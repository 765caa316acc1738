"""The whole road, much reduced: every step is the real one, on little text and a very small base."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import close_session, constants

from benchmarks import road as benchmark
from moehub import files
from moehub.base import find
from moehub.card import Federated
from moehub.cli import main
from moehub.demo import base as small
from moehub.demo import config as demo_config
from moehub.demo import corpora, road
from moehub.demo.base import BaseConfig
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import Sizes
from moehub.demo.hub import running_hub
from moehub.demo.road import Demonstration
from moehub.errors import BaseModelError, FederationError
from moehub.experts.folder import open_expert
from moehub.experts.settings import TrainConfig
from moehub.federation import client_app
from moehub.federation.deploy.launch import Outcome
from moehub.federation.form import form_of
from moehub.federation.journal import GaveUp
from moehub.federation.node.contributor import to_flower
from moehub.federation.server.run import run
from moehub.federation.settings import Gathering
from moehub.hub import seen
from moehub.hub.remote import RemoteHub
from moehub.hubserver import serve
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.store import open_store
from tests.federation.grid import Clock, LocalGrid, app_node

# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TINY_BASE = BaseConfig(vocabulary=512, hidden=32, layers=1, heads=2, context=128, batch=4, steps=20)
TINY = DemoConfig(
    sizes=Sizes(train=12_000, tune=1_000, test=1_500, generic=30_000, passage=200, turns=8, glance=60),
    base=TINY_BASE,
    base_share=2_000,
    expert=TrainConfig(rank=2, alpha=4, learning_rate=5e-3, max_steps=8, batch_size=4, holdout=0.05, pair_bits=10),
)
DOMAINS = {"python", "cpp", "legal", "arithmetic", "json"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    return road.walk(tmp_path_factory.mktemp("demo") / "out", TINY)


def test_the_road_ends_where_it_should(shown: Demonstration) -> None:
    """After a fifth expert came and went, the model is what it was, to the last byte."""
    assert shown.report.hash_restored is True
    assert json.loads(shown.place.json.read_text())["hash_restored"] is True


def test_every_model_is_measured_on_every_text(shown: Demonstration) -> None:
    """Base, five experts and the mixture have a loss on each domain, on generic prose and on switching text."""
    assert set(shown.report.losses) == {*DOMAINS, "generic", "switching"}
    for losses in shown.report.losses.values():
        assert set(losses.experts) == DOMAINS
        assert all(0 < loss < 10 for loss in (losses.base, losses.moe, *losses.experts.values()))


def test_the_newcomer_is_routed_to_only_while_it_is_there(shown: Demonstration) -> None:
    """The mixture of four knows four experts and null; on the newcomer's text it was the mixture of five."""
    for text, shares in shown.report.routing.items():
        expected = DOMAINS if text == "json" else DOMAINS - {"json"}
        assert set(shares) == {*expected, "null"}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


def test_every_step_was_timed(shown: Demonstration) -> None:
    """The seconds of adding and removing are those of their steps."""
    seconds = shown.report.seconds
    assert list(seconds)[:2] == ["text", "base"]
    assert {f"train {name}" for name in DOMAINS} < set(seconds)
    assert (shown.report.add_seconds, shown.report.remove_seconds) == (seconds["add"], seconds["remove"])


def test_everything_a_person_would_look_at_is_there(shown: Demonstration) -> None:
    """A full base, the experts as published, and the page."""
    assert find(str(shown.place.base)).pin().digest
    assert {open_expert(shown.place.expert(name)).card.domain for name in DOMAINS} == DOMAINS
    assert "<!doctype html>" in shown.place.html.read_text()


def test_the_hub_can_be_served_again(shown: Demonstration) -> None:
    """Its folder is one that `moehub hub serve --open` opens; the token of the demo is worthless."""
    with serve.running(ServerSettings(shown.place.hub, port=0, open=True)) as url:
        assert {listing.name for listing in RemoteHub(url).experts()} == DOMAINS
    store = open_store(shown.place.hub)
    assert store.tokens.list() == []
    store.database.close()


def test_the_hub_is_reached_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on this machine: neither offline mode nor a proxy stands between, and both stay as they were."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    close_session()
    with running_hub(tmp_path / "hub") as hub:
        assert hub.check(5.0).endswith("knows us as demo")
        assert hub.experts() == []
    close_session()
    assert constants.HF_HUB_OFFLINE is True
    assert os.environ["NO_PROXY"] == "example.org"


def test_nothing_of_the_hub_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions seen at its address mean nothing to whoever listens there tomorrow."""
    monkeypatch.setenv(seen.VARIABLE, str(tmp_path / "state"))
    with running_hub(tmp_path / "hub") as hub:
        seen.remember(hub.location, "demo/python", 7)
        assert seen.highest(hub.location, "demo/python") == 7
    assert seen.highest(hub.location, "demo/python") is None
    assert not (tmp_path / "state").exists()


def test_the_passage_is_test_text_with_a_name_for_each_token(shown: Demonstration) -> None:
    """It is longer than the base's context, and its tokens go to founders or to nobody."""
    assert len(shown.passage) > TINY_BASE.context
    assert sum(len(token.text) for token in shown.passage) == len(corpora.gather(TINY.sizes).glance)
    assert {token.expert for token in shown.passage} <= (DOMAINS - {"json"}) | {"null"}


def test_no_text_of_a_contributor_is_published(shown: Demonstration) -> None:
    """The hub holds adapters, counts and cards: no line of anybody's text."""
    published = b"".join((shown.place.hub / path).read_bytes() for path in files.files_below(shown.place.hub))
    for word in (b"Question:", b"#include", b"WARRANT", b"import os"):
        assert word not in published


def test_a_second_run_reuses_the_base_and_nothing_else(
    shown: Demonstration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The base comes from the cache; the experts, trained anew, come out the same to the byte."""

    def forbidden(*_: object) -> None:
        raise AssertionError("the base was trained again")

    monkeypatch.setattr(small, "_train", forbidden)
    again = road.walk(tmp_path / "again", TINY)
    assert files.tree_digest(again.place.base) == files.tree_digest(shown.place.base)
    for name in DOMAINS:
        ours, theirs = (place.expert(name) / "adapter_model.safetensors" for place in (again.place, shown.place))
        assert files.sha256(ours) == files.sha256(theirs)
    assert again.report.losses == shown.report.losses


def test_the_command_prints_the_report_and_replaces_an_earlier_demo(
    shown: Demonstration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` prints what `report.json` holds, `--base` takes the place of the small base, and nothing stale stays."""
    monkeypatch.setattr(demo_config, "DemoConfig", lambda: TINY)
    # Its tokenizer tells the domains' words apart, as the gate wants it.
    given, output = Path(shutil.copytree(shown.place.base, tmp_path / "given")), tmp_path / "out"
    (output / "experts" / "stale").mkdir(parents=True)
    (output / ".moehub-demo").write_text("")
    ran = CliRunner().invoke(main, ["demo", "--output", str(output), "--base", str(given), "--seed", "3", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == json.loads((output / "report.json").read_text())
    assert {path.name for path in (output / "experts").iterdir()} == DOMAINS
    assert find(str(output / "base")).pin().digest == find(str(given)).pin().digest


def in_one_process(gathering: Gathering, output: Path, **_: object) -> Outcome:
    """Run a federation with the real server and the real nodes, without Flower's processes."""
    base = find(gathering.federation.base)
    desk = output.parent / "desk"
    nodes = {
        number: app_node(client_app.app, to_flower(dataclasses.replace(node, base=str(base.folder)), desk), number)
        for number, node in enumerate(gathering.nodes, 1)
    }
    form, sleep = form_of(base, gathering.federation.train), Clock().sleep
    run(LocalGrid(nodes), gathering.federation, form, output, resume=False, expected=len(nodes), sleep=sleep)
    return Outcome((), (), 0.0, "")


def test_experts_that_nodes_train_together_go_the_same_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes for each domain, each with half of its documents; the cards that are published say so."""
    monkeypatch.setattr("moehub.federation.deploy.launch.up", in_one_process)
    shown = road.walk(tmp_path / "out", TINY, federated=True)
    assert "federate" in shown.report.seconds
    assert not any(step.startswith("train ") for step in shown.report.seconds)
    for name in DOMAINS:
        card = open_expert(shown.place.expert(name)).card
        assert card.federation == Federated(nodes=2, rounds=2, aggregation="product")
        corpus = next(one for one in corpora.gather(TINY.sizes).contributors if one.name == name)
        assert 0 < card.stages[0].examples <= len(corpus.train)
    assert shown.report.hash_restored is True


def test_a_domain_that_gives_up_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason, and without a report."""

    def given_up(*_: object, **__: object) -> Outcome:
        return Outcome((), (GaveUp(1, "legal", "no node of legal replied"),), 1.0, "")

    monkeypatch.setattr("moehub.federation.deploy.launch.up", given_up)
    with pytest.raises(FederationError, match="no node of legal replied"):
        road.walk(tmp_path / "out", TINY, federated=True)
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_base_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    """It is refused in one sentence, and no report is left behind."""
    with pytest.raises(BaseModelError, match=r"is no base: it has no config\.json"):
        road.walk(tmp_path / "out", TINY, base=str(tmp_path))
    assert not (tmp_path / "out" / "report.json").exists()


def test_the_cache_knows_text_and_settings_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other text, another seed or another size is another base; the same is trained once."""
    trained = []

    def train(documents: list[str], config: BaseConfig, output: Path) -> None:
        trained.append((documents, config))
        (output / "config.json").write_text("{}")

    monkeypatch.setattr(small, "_train", train)
    first = small.small_base(["a text"], TINY_BASE, cache=tmp_path)
    assert small.small_base(["a text"], TINY_BASE, cache=tmp_path) == first
    others = {
        small.small_base(["another text"], TINY_BASE, cache=tmp_path),
        small.small_base(["a text"], dataclasses.replace(TINY_BASE, seed=1), cache=tmp_path),
        small.small_base(["a text"], dataclasses.replace(TINY_BASE, hidden=64), cache=tmp_path),
    }
    assert len({first, *others}) == len(trained) == 4


def test_an_interrupted_base_is_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds whole bases only."""

    def interrupted(_documents: list[str], _config: BaseConfig, output: Path) -> None:
        (output / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(small, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small.small_base(["a text"], TINY_BASE, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_of_the_small_base_loses_nothing() -> None:
    """Any text comes back from its tokens, and digits are tokens of their own."""
    tokenizer = small.tokenizer_of(["def f(x):\n    return x + 1 # Größe\n"] * 20, 400)
    for text in ("def f(x):\n\treturn 12345  # 中文 😀", "  leading and trailing  "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("12345")["input_ids"]) == 5


def test_the_benchmark_shows_where_the_seconds_go(shown: Demonstration, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step of a demo that was run has its line, the slowest first, with its share of the whole."""
    benchmark.main([str(shown.place.folder)])
    lines = capsys.readouterr().out.splitlines()
    steps = {line.split("|")[1].strip(): float(line.split("|")[2]) for line in lines if line.startswith("| ")}
    assert set(shown.report.seconds) < set(steps)
    timed = [seconds for step, seconds in steps.items() if step in shown.report.seconds]
    assert timed == sorted(timed, reverse=True)
    assert steps["all"] == pytest.approx(sum(shown.report.seconds.values()), abs=0.1)


def test_the_benchmark_keeps_its_table(shown: Demonstration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--write` puts the section in place of the last one and leaves the others."""
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## The road\n\nold\n\n## The layer\n\nkept\n")
    monkeypatch.setattr(benchmark, "RESULTS", results)
    benchmark.main([str(shown.place.folder), "--write"])
    benchmark.main([str(shown.place.folder), "--write"])
    written = results.read_text()
    assert written.count("## The road") == written.count("## The layer") == 1
    assert "old" not in written
    assert "kept" in written
    assert "train python" in written


def test_the_benchmark_says_what_it_expects(tmp_path: Path) -> None:
    """A folder without a report is refused in a sentence."""
    with pytest.raises(SystemExit, match=r"has no report\.json, expected the output of a demo"):
        benchmark.main([str(tmp_path)])
