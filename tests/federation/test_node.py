"""What a node decides before and while Flower's SuperNode runs."""

import dataclasses
import os
from pathlib import Path

import pytest

from moehub import base as bases
from moehub.errors import BaseModelError, ConfigError, FederationError
from moehub.federation.deploy import certificates, contributor_node, invitation, keys, place
from moehub.federation.deploy.address import Address
from moehub.federation.deploy.contributor_node import Contribution, Follower, hopeless
from moehub.federation.deploy.enlisting import enlist
from moehub.federation.deploy.invitation import Invitation
from moehub.federation.deploy.reach import Way
from moehub.federation.settings import NodeConfig

SERVER = Address("fed.example.org", 8443)


@pytest.fixture
def node(tmp_path: Path) -> NodeConfig:
    (tmp_path / "text.txt").write_text("text")
    return NodeConfig(domain="law", data=(tmp_path / "text.txt",), name="North")


@pytest.fixture
def contribution(node: NodeConfig, tmp_path: Path) -> Contribution:
    return Contribution(node, Way(SERVER, tmp_path / "ca.crt"), tmp_path / "key")


def invited(path: Path, made: Invitation) -> Path:
    invitation.write(path, made)
    return path


def test_an_invitation_is_all_that_a_node_needs(node: NodeConfig, tmp_path: Path) -> None:
    """Its authority lies in the node's folder then, for Flower to read."""
    tls = certificates.own(tmp_path / "tls", ["localhost"])
    file = invited(tmp_path / "i.json", Invitation(str(SERVER), tls.authority.read_text()))
    found = enlist(node, tmp_path / "state", invited=file)
    assert found == Contribution(
        node, Way(SERVER, tmp_path / "state" / "authority.crt"), tmp_path / "state" / "key", None
    )
    assert (tmp_path / "state" / "authority.crt").read_text() == tls.authority.read_text()


def test_what_is_said_counts_more_than_the_invitation(node: NodeConfig, tmp_path: Path) -> None:
    """Address, authority and key."""
    tls = certificates.own(tmp_path / "tls", ["localhost"])
    file = invited(tmp_path / "i.json", Invitation("old.example.org:1", "not even a certificate"))
    found = enlist(node, tmp_path, superlink=str(SERVER), invited=file, key=tmp_path / "mine", authority=tls.authority)
    assert found.way == Way(SERVER, tls.authority)
    assert found.key == tmp_path / "mine"


def test_a_server_with_a_public_certificate_needs_no_authority(node: NodeConfig, tmp_path: Path) -> None:
    """Then this machine's own decide."""
    assert enlist(node, tmp_path, superlink=str(SERVER)).way == Way(SERVER, None)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {}, "where is the server"),
        ({"domain": "../law"}, {"superlink": "a:1"}, "domain"),
        ({"name": "", "credit": True}, {"superlink": "a:1"}, "it has none: add --name"),
        ({}, {"superlink": "https://a:1"}, "is no address"),
        (
            {},
            {"superlink": "fed.example.org:1", "insecure": True},
            "for a server on this machine, and fed.example.org:1",
        ),
        ({}, {"superlink": "10.0.0.1:1", "insecure": True}, "leave out --insecure"),
        ({}, {"superlink": "127.0.0.1:1", "insecure": True, "key": Path("key")}, "leave out --key"),
    ],
)
def test_contradictions_are_refused(
    node: NodeConfig, tmp_path: Path, changes: dict[str, object], options: dict[str, object], said: str
) -> None:
    """Before anything is made."""
    changed = dataclasses.replace(node, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said):
        enlist(changed, tmp_path / "state", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "state").exists()


def test_an_insecure_invitation_leads_nowhere_else(node: NodeConfig, tmp_path: Path) -> None:
    """Whatever it says, a node speaks without TLS to its own machine alone."""
    near = invited(tmp_path / "near.json", Invitation("localhost:1", insecure=True))
    assert enlist(node, tmp_path, invited=near) == Contribution(node, Way(Address("localhost", 1), None, True), None)
    far = invited(tmp_path / "far.json", Invitation("fed.example.org:1", insecure=True))
    with pytest.raises(ConfigError, match="is for a server on this machine"):
        enlist(node, tmp_path, invited=far)


def test_an_authority_that_is_none_is_refused(node: NodeConfig, tmp_path: Path) -> None:
    """Flower would say it in twenty lines."""
    with pytest.raises(FederationError, match="holds no certificate"):
        enlist(node, tmp_path, superlink=str(SERVER), authority=tmp_path / "text.txt")


def test_a_new_key_is_shown_with_the_way_to_register_it(contribution: Contribution) -> None:
    """The node is not started: nobody could know it yet. The second time it is."""
    said: list[str] = []
    assert not contributor_node.prepare(contribution, say=said.append)
    assert len(said) == 1
    assert 'moehub federate register key.pub --name "North" --domain law' in said[0]
    assert contributor_node.prepare(contribution, say=said.append)
    assert len(said) == 1


def test_the_base_of_the_invitation_is_checked(contribution: Contribution, tmp_path: Path, base_folder: Path) -> None:
    """Here and now, not when the server refuses the node in the first round."""
    keys.ensure(tmp_path / "key")
    pin = bases.find(str(base_folder)).pin()
    node = dataclasses.replace(contribution.node, base=str(base_folder))
    assert contributor_node.prepare(dataclasses.replace(contribution, node=node, base=pin), say=lambda _: None)
    other = dataclasses.replace(contribution, node=node, base=dataclasses.replace(pin, digest="0" * 64))
    with pytest.raises(BaseModelError, match=r"it is not .*, which the federation trains on; name the right one"):
        contributor_node.prepare(other, say=lambda _: None)
    with pytest.raises(ConfigError, match="is a folder and on no hub: name your copy of it with --base"):
        contributor_node.prepare(dataclasses.replace(contribution, base=pin), say=lambda _: None)


UNREGISTERED = """ERROR :     Exit Code: 305
Failed to initialize the connection to the SuperLink.
[code: 2004] {}
The SuperNode could not establish a connection to the SuperLink.
"""
"""As Flower 1.41 says it."""


@pytest.mark.parametrize("reason", ["this key is not registered", "Failed to activate SuperNode."])
def test_a_key_that_is_not_registered_is_one_sentence(contribution: Contribution, reason: str) -> None:
    """Whether the gateway says so, or behind a proxy the SuperLink."""
    said = hopeless(UNREGISTERED.format(reason), contribution)
    assert said.startswith(
        f"fed.example.org:8443 does not let the key {contribution.key} in: have {contribution.key}.pub"
    )
    assert "`moehub federate register key.pub --name NAME --domain law`" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (UNREGISTERED.format("the clock of this machine is wrong"), "set the clock"),
        ("[code: 2001] SuperNode authentication is enabled.", "leave out --insecure"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate", "--root-certificates"),
        ("Exit Code: 606\nUpgrade your Flower version", "install the moehub that its operator has"),
        ("Exit Code: 302\nUnable to parse the private key file.", "ssh-keygen"),
    ],
)
def test_what_waiting_cannot_cure_is_one_sentence(contribution: Contribution, said: str, expected: str) -> None:
    """Each with its cure."""
    assert expected in hopeless(said, contribution)
    assert "\n" not in hopeless(said, contribution)


@pytest.mark.parametrize("said", ["", "SuperNode terminated gracefully.", "Connection attempt failed, retrying"])
def test_what_may_pass_is_waited_for(contribution: Contribution, said: str) -> None:
    """A node whose server was restarted comes back by itself."""
    assert hopeless(said, contribution) == ""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def follower(contribution: Contribution, tmp_path: Path, said: list[str]) -> Follower:
    """The second start of a node, whose first one wrote something."""
    for name in ("supernode.log", "worker.log"):
        (tmp_path / name).write_text(UNREGISTERED.format("this key is not registered"))
    return Follower(contribution, tmp_path / "supernode.log", tmp_path / "worker.log", said.append)


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_nodes_owner_sees_what_it_does(follower: Follower, said: list[str]) -> None:
    """In plain lines; half a line waits for its other half, and what came before is not repeated."""
    write(follower.supernode, "INFO :      SuperNode ID: 123\nINFO: Application startup complete.\n")
    write(follower.supernode, "Receiving: train message (ID: 9)\nReceiving: train message (ID: 10)\n")
    write(follower.worker, "round 1/2: training law on 9 rows: 0/3\nround 1/2: trai")
    follower.look()
    assert said == [
        "worker: round 1/2: training law on 9 rows: 0/3",
        "connected to fed.example.org:8443 as node 123",
        "asked to train",
        "asked to train",
    ]
    said.clear()
    write(follower.worker, "ning\n")
    follower.look()
    follower.look()
    assert said == ["worker: round 1/2: training"]


def test_a_server_that_is_away_is_told_once(follower: Follower, said: list[str]) -> None:
    """Flower tries every few seconds, for hours if need be."""
    write(follower.supernode, "WARNING :   Connection attempt failed, retrying in 0.5 seconds\n" * 5)
    write(follower.supernode, "Connection successful after 9.31 seconds and 5 tries.\n")
    follower.look()
    assert said == ["the server does not answer; trying again", "fed.example.org:8443 answers again"]


def test_a_node_that_died_is_started_again(follower: Follower, said: list[str]) -> None:
    """Its owner is told; what an earlier start said is no reason to give up."""
    follower.fell("supernode", -9, 0.5)
    follower.fell("worker", 1, 2.0)
    assert said == [
        "the supernode ended with exit code -9; it is started again in 0.5 s",
        "the worker ended with exit code 1; it is started again in 2 s",
    ]


def test_a_node_that_was_shut_out_gives_up(follower: Follower) -> None:
    """With the sentence that says what to do."""
    write(follower.supernode, UNREGISTERED.format("this key is not registered"))
    with pytest.raises(FederationError, match="does not let the key"):
        follower.fell("supernode", 1, 0.5)


def test_a_log_that_is_not_there_yet_is_waited_for(contribution: Contribution, tmp_path: Path) -> None:
    """The first start makes it."""
    lines: list[str] = []
    follower = Follower(contribution, tmp_path / "supernode.log", tmp_path / "worker.log", lines.append)
    follower.look()
    write(tmp_path / "supernode.log", f"SuperNode ID: 5{os.linesep}")
    follower.look()
    assert lines == ["connected to fed.example.org:8443 as node 5"]


def test_one_node_in_a_folder(contribution: Contribution, tmp_path: Path) -> None:
    """Two would be one key in two places."""
    with place.held(tmp_path / "state" / place.PLACE), pytest.raises(FederationError, match="a node is running in"):
        contributor_node.run(contribution, tmp_path / "state", say=lambda _: None)
