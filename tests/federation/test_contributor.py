from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flwr.common.config import parse_config_args

from moehub.errors import ConfigError, FederationError
from moehub.federation.node.contributor import base_of, from_flower, to_flower
from moehub.federation.settings import NodeConfig

MINIMAL: dict[str, Any] = {"domain": "law", "data": "/text/law.txt", "desk": "/desk"}


@pytest.mark.parametrize(
    "node",
    [
        NodeConfig("law", (Path("/text/law.txt"),)),
        NodeConfig(
            "law",
            (Path("/text/a b.txt"), Path('/text/it\'s "quoted" = \\ x.jsonl'), Path("/text/Größe 😀 [1].txt")),
            name="Kanzlei „Müller“ & Sons",
            credit=True,
            base="/bases/my base",
            rank=4,
            accumulation=2,
            gradient_checkpointing=True,
            suppress_below=7,
        ),
    ],
)
def test_what_a_supernode_is_told_is_what_its_apps_read(tmp_path: Path, node: NodeConfig) -> None:
    """Through the file that Flower reads, whatever stands in names and paths."""
    desk = tmp_path / 'the node\'s "desk"'
    file = tmp_path / "node.toml"
    file.write_text(tomli_w.dumps(to_flower(node, desk)), encoding="utf-8")
    assert from_flower(parse_config_args([str(file)])) == (node, desk)


def test_configuration_by_hand_names_one_file() -> None:
    """A list needs quotes inside quotes, which Flower's command line cannot carry; one path needs none."""
    given = parse_config_args(['domain="law" data=\'/my text/law.txt\' desk="/desk" credit=true rank=4'])
    node = NodeConfig("law", (Path("/my text/law.txt"),), credit=True, rank=4)
    assert from_flower(given) == (node, Path("/desk"))


def test_simulations_own_keys_are_passed_over() -> None:
    """Flower adds them to every node."""
    node, _ = from_flower({**MINIMAL, "partition-id": 3, "num-partitions": 10})
    assert node.domain == "law"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"desk": ""}, r"has desk = '', expected the folder that its worker serves: start it with `moehub node`"),
        ({"desk": 3}, "has desk = 3, expected the folder"),
        ({"domain": "Law & Order"}, "domain 'Law & Order' cannot be used"),
        ({"domain": 3}, "domain = 3, expected a text"),
        ({"data": "[]"}, r"has data = '\[\]', expected a file, or files as a JSON list of paths"),
        ({"data": "[1]"}, "expected a file, or files as a JSON list"),
        ({"data": "[/text"}, "expected a file, or files as a JSON list"),
        ({"data": 3}, "has data = 3, expected a file"),
        ({"data": ""}, "has data = '', expected a file"),
        ({"rank": "4"}, "rank = '4', expected an integer"),
        ({"rank": -1}, "has rank = -1, expected 0 or more"),
        ({"suppress_below": -1}, "has suppress_below = -1, expected 0 or more"),
        ({"credits": True}, "unknown key 'credits'"),
    ],
)
def test_faults_are_named(change: dict[str, Any], sentence: str) -> None:
    """The sentence says what is wrong, the value, and what was expected."""
    with pytest.raises(ConfigError, match=sentence):
        from_flower({**MINIMAL, **change})


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_what_every_node_needs_is_asked_for(name: str) -> None:
    """A node without a domain, text or desk is none."""
    with pytest.raises(ConfigError, match=name):
        from_flower({key: value for key, value in MINIMAL.items() if key != name})


def test_base_is_where_the_contributor_keeps_it(base_folder: Path) -> None:
    """Its own folder comes before the name that the federation has for it."""
    node = NodeConfig("law", (), base=str(base_folder))
    assert base_of(node, "tiny", "").folder == base_folder


def test_a_folder_of_the_server_is_not_looked_for_on_a_hub() -> None:
    """Somebody else's model of the same name would be downloaded; the owner has to say where the base is."""
    with pytest.raises(FederationError, match=r"'tiny' comes from no hub, and .* name the folder with --base"):
        base_of(NodeConfig("law", ()), "tiny", "")
