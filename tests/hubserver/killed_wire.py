"""Pull from, push to and serve a hub again and again, each time killed one step later; print what was left.

python -m tests.hubserver.killed_wire pull|push|serve WORKSPACE OLD NEW EVERY

OLD and NEW are folders of one expert. EVERY: of how many steps one is tried.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WORKSPACE = Path(sys.argv[2] if len(sys.argv) > 2 else "/nowhere")
os.environ["HF_HOME"] = str(WORKSPACE / "place" / "home")  # huggingface_hub reads it once; its cache is looked at, too

from moehub import files  # noqa: E402 (after HF_HOME is set)
from moehub.hub import open_hub  # noqa: E402
from moehub.hubserver.serve import serve  # noqa: E402
from moehub.hubserver.settings import ServerSettings  # noqa: E402
from tests.hubserver import faults, wire  # noqa: E402
from tests.hubserver.conftest import Served  # noqa: E402
from tests.hubserver.killed import apart, litter, made, published, sick  # noqa: E402

PATIENCE = 30.0
CONTENT = b"weights" * 1000
GIT_ATTRIBUTES = ".gitattributes"
"""The server's own first commit of a repo."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def forked(action: Callable[[], object]) -> int:
    """Begin an action in a child, and return its process id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def settings(place: Path, port: int) -> ServerSettings:
    return ServerSettings(place / "hub", port=port, open=True, gate=False)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.005)
    raise TimeoutError


@contextlib.contextmanager
def serving(place: Path, port: int) -> Iterator[str]:
    """Serve the hub of a place, in a process of its own."""
    server = forked(lambda: serve(settings(place, port)))
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(server, signal.SIGTERM)
        ended(server)


def send(port: int) -> None:
    """Make a repo, send a large file, and commit it with a small one, request by request."""
    wait_for(port)
    hub = Served(f"http://127.0.0.1:{port}", None, "", "", "")  # type: ignore[arg-type]
    if wire.create(hub).status_code not in (200, 409):
        raise RuntimeError
    if "actions" in wire.batch(hub, CONTENT)[0]:
        wire.upload(hub, CONTENT)
    wire.committed(hub, wire.file("README.md", b"---\nlicense: mit\n---\n"), wire.large("x.safetensors", CONTENT))


def sent(place: Path) -> dict[str, object]:
    """Return what was pushed to each repo: nothing, or a list of its licence and its files."""
    found: dict[str, object] = {}
    for repo, said in (published(place / "hub") or {}).items():
        tree = {path: sha256 for path, sha256 in (said[1] if said else {}).items() if path != GIT_ATTRIBUTES}
        found[repo] = [said[0], tree] if tree else None
    return found


def steps(every: int) -> Iterator[int]:
    """Yield the steps that are tried: not the same ones for every folder of the pushed files."""
    yield from range(1 + every // 2, 10_000, every)


def pulls(old: Path, new: Path, every: int) -> dict[str, object]:
    """Kill a pull over an older copy."""
    place, template, port = WORKSPACE / "place", WORKSPACE / "template", free_port()
    apart(lambda where: bool(made(where)), WORKSPACE / "served")
    with serving(WORKSPACE / "served", port) as url:

        def pull(where: Path) -> None:
            open_hub(url).pull("acme/law", None, where / "law")

        def look(where: Path) -> object:
            return files.tree_digest(where / "law")

        def publish(folder: Path) -> None:
            open_hub(url).push(folder, "acme/law", message="new")

        place.mkdir()
        apart(lambda _: publish(old), place)
        apart(pull, place)
        place.rename(template)
        shutil.copytree(template, place)
        apart(lambda _: publish(new), place)
        before = apart(look, place)
        apart(pull, place)
        after = apart(look, place)
        outcomes: list[object] = []
        for step in steps(every):
            shutil.rmtree(place)
            shutil.copytree(template, place)
            done = faults.run(lambda: pull(place), [place], die_at=step)
            if done.code != -signal.SIGKILL:
                break
            left = apart(look, place)
            apart(pull, place)
            outcomes.append([done.steps[-1].replace(str(place), ""), [], left, [], apart(look, place), []])
    return {"before": before, "after": after, "code": done.code, "outcomes": outcomes}


def pushes(new: Path, every: int) -> dict[str, object]:
    """Kill a push, at what it sends; each time to another repo, which has to get all of it."""
    place, port = WORKSPACE / "place", free_port()
    place.mkdir()
    apart(lambda where: bool(made(where)), place)
    outcomes: list[object] = []
    with serving(place, port) as url:

        def push(repo: str) -> None:
            open_hub(url).push(new, repo, message="new")

        def look(repo: str) -> object:
            return apart(lambda where: sent(where).get(repo), place)

        apart(lambda _: push("acme/whole"), place)
        after = look("acme/whole")
        for step in steps(every):
            repo = f"acme/law{step}"
            done = faults.run(lambda: push(repo), [place], die_at=step, sends=True)  # noqa: B023 (run at once)
            if done.code != -signal.SIGKILL:
                break
            left = [apart(sick, place), look(repo)]
            apart(lambda _: push(repo), place)  # noqa: B023
            outcomes.append([done.steps[-1].replace(str(place), ""), *left, apart(sick, place), look(repo), []])
    return {"before": None, "after": after, "code": done.code, "outcomes": outcomes}


def serves(every: int) -> dict[str, object]:
    """Kill the server while a client pushes; start it again, and let the client try again."""
    place, template, port = WORKSPACE / "place", WORKSPACE / "template", free_port()
    told = WORKSPACE / "server"
    apart(lambda where: bool(made(where)), template)

    def traced() -> None:
        told.write_text(str(os.getpid()))
        serve(settings(place, port))

    def client() -> None:
        send(port)
        os.kill(int(told.read_text()), signal.SIGTERM)

    def retry() -> int:
        with serving(place, port):
            return ended(forked(lambda: send(port)))

    shutil.copytree(template, place)
    before = apart(sent, place)
    outcomes: list[object] = []
    code = retry()
    after = apart(sent, place)
    for step in steps(every):
        shutil.rmtree(place)
        shutil.copytree(template, place)
        pushing = forked(client)
        done = faults.run(traced, [place], die_at=step)
        if done.code != -signal.SIGKILL:
            ended(pushing)
            break
        os.kill(pushing, signal.SIGKILL)
        ended(pushing)
        left = [apart(sick, place), apart(sent, place)]
        code = code or retry()
        healed = [apart(sick, place), apart(sent, place), apart(litter, place)]
        outcomes.append([done.steps[-1].replace(str(place), ""), *left, *healed])
    return {"before": before, "after": after, "code": code, "outcomes": outcomes}


def main(mode: str, old: Path, new: Path, every: int) -> None:
    """Print before and after, and (step, faults, state, faults, state, litter) for each step that was tried."""
    told = {"pull": lambda: pulls(old, new, every), "push": lambda: pushes(new, every), "serve": lambda: serves(every)}
    print(json.dumps(told[mode]()))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
