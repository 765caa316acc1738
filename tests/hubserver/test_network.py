"""What web pages of others may not do with a hub through a browser that reaches it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moehub.errors import ConfigError
from moehub.hubserver.settings import ServerSettings
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import REPO, create


@pytest.fixture
def open_hub(tmp_path: Path) -> Iterator[Served]:
    """A hub that asks for no tokens."""
    with served(tmp_path / "open", open=True) as found:
        yield found


def test_an_open_hub_is_for_this_machine_alone() -> None:
    """The whole network could write to it otherwise."""
    for host in ("0.0.0.0", "192.168.1.5", "::", "hub.example.org"):  # noqa: S104 (that is refused)
        with pytest.raises(ConfigError, match="--open with --host"):
            ServerSettings(Path("hub"), host=host, open=True)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"):
        assert ServerSettings(Path("hub"), host=host, open=True).host == host


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8731", "127.0.0.1.evil.example", "192.168.1.5", "", "a@b", "x/y"]
)
def test_an_open_hub_answers_to_no_other_name(open_hub: Served, host: str) -> None:
    """A page in a browser here could give its own name this machine's address, and push to it."""
    assert open_hub.ask("GET", "/api/models", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_an_open_hub_answers_to_the_names_of_this_machine(open_hub: Served, host: str) -> None:
    """However a client writes them."""
    assert open_hub.ask("GET", "/api/models", headers={"Host": host}).status_code == 200


def test_a_hub_with_tokens_answers_to_its_own_names(tmp_path: Path) -> None:
    """Addresses, and what it was given with --url; public repos are not for every page that a browser here shows."""
    with served(tmp_path / "hub", url="https://hub.example.org/") as hub:
        ask = lambda host: hub.ask("GET", "/api/models", headers={"Host": host}).status_code  # noqa: E731
        assert [ask(host) for host in ("hub.example.org", "192.168.1.5:8731", "evil.example")] == [200, 200, 421]
        assert create(hub).json()["url"] == f"https://hub.example.org/{REPO}"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "", "https://127.0.0.1.evil.example"]
)
def test_a_page_of_another_site_changes_nothing(open_hub: Served, origin: str) -> None:
    """A browser sends its form without asking, and says where the page is from."""
    for path, body in (("/api/repos/create", {"organization": "a", "name": "b"}), (f"/api/models/{REPO}/tag/main", {})):
        answer = open_hub.ask(
            "POST", path, content=json.dumps(body), headers={"Origin": origin, "Content-Type": "text/plain"}
        )
        assert answer.status_code == 403
    assert open_hub.ask("GET", "/api/models", headers={"Origin": origin}).json() == []


def test_no_page_of_another_site_may_read(open_hub: Served) -> None:
    """The hub never says that one may, also not when a browser asks beforehand."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    answers = [open_hub.ask(method, "/api/models", headers=asked) for method in ("GET", "OPTIONS")]
    assert [name for answer in answers for name in answer.headers if name.startswith("access-control")] == []


def test_the_hubs_own_pages_may_send_forms(open_hub: Served) -> None:
    """What comes from the same place is no stranger."""
    body = {"organization": "a", "name": "b"}
    assert open_hub.ask("POST", "/api/repos/create", json=body, headers={"Origin": open_hub.url}).status_code == 200


def test_every_answer_forbids_guessing(hub: Served) -> None:
    """JSON that a browser takes for a page would be one of the hub's own."""
    for path in ("/api/models", "/api/none", f"/{REPO}/resolve/main/x", "/api/whoami-v2"):
        assert hub.ask("GET", path).headers["x-content-type-options"] == "nosniff"
