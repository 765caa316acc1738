from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import (
    handover,
    logs,
    status,
)
from moehub.federation.deploy.overseer import FINISHED
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.journal import Ended, Joined, Journal, Published, Refused, RoundBegan
from moehub.federation.server.roster import Registered
from moehub.federation.settings import read_federation
from tests.federation.served import BEGAN, DONE, Flower


def test_commands_say_where_there_is_no_server(tmp_path: Path) -> None:
    """With the command that starts one."""
    with pytest.raises(FederationError, match=f"start one with `moehub federate server --state {tmp_path}`"):
        status.read(tmp_path)


def test_the_status_tells_nodes_run_and_rounds(folder: ServerFolder, settings: Path) -> None:
    """From the folder alone where the server does not run."""
    Registry(folder.registry, folder.keys).add(11, Registered("North", "law"), "key")
    assert status.read(folder.path).run is None
    job = handover.hand_over(folder, Flower(), read_federation(settings))
    journal = Journal(Path(job.output))
    events = (
        BEGAN,
        Joined("North", "law", "cpu"),
        Refused(0, "South", "law", "its base is another one"),
        RoundBegan(1, {"law": 1}),
        DONE,
        RoundBegan(2, {"law": 1}),
    )
    for event in events:
        journal.write(event)
    found = status.read(folder.path)
    assert found.nodes == (status.Node(11, "North", "law", "registered"),)
    assert found.run is not None
    assert found.run.done == (status.Round("law", 1, 2, 1.5, 300, 3.0),)
    assert found.run.domains == {"law": "training round 2 on 1 node(s)"}
    assert found.run.problems == ("South was refused: its base is another one",)
    assert (found.running, found.run.state) == (False, "interrupted: the server does not run")
    folder.close(job, FINISHED)
    journal.write(Published("law", "experts/law", 1, 2.0, 1.0, 9))
    after = status.read(folder.path).run
    assert after is not None
    assert (after.state, after.domains) == (FINISHED, {"law": "finished"})


def test_the_status_of_one_machines_federation_is_told_too(tmp_path: Path) -> None:
    """Its output holds the journal itself."""
    Journal(tmp_path).write(BEGAN)
    Journal(tmp_path).write(Ended(0, 1.0, "the disk is full"))
    found = status.read(tmp_path)
    assert found.run is not None
    assert (found.address, found.run.base, found.run.state) == ("", "org/base", "failed: the disk is full")


def test_logs_are_shown_from_their_end(tmp_path: Path) -> None:
    """The run's own where no other is named."""
    folder = tmp_path / ".flower" / "logs"
    folder.mkdir(parents=True)
    (folder / "serverapp.log").write_text("\n".join(map(str, range(100))) + "\n")
    (folder / "gateway.log").touch()
    assert list(logs.read(tmp_path, lines=2, follow=False)) == ["98", "99"]
    with pytest.raises(FederationError, match=r"there is no log of other in .*; there are gateway, serverapp"):
        list(logs.read(tmp_path, "other", lines=2, follow=False))
    following = logs.read(tmp_path, lines=1, follow=True)
    assert next(following) == "99"
    with (folder / "serverapp.log").open("a") as file:
        file.write("news\n")
    assert next(following) == "news"
