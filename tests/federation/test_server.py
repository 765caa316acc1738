"""Where a server may be, and what it may be asked for."""

from pathlib import Path

import pytest

from moehub.errors import ConfigError
from moehub.federation.deploy import (
    server,
)
from moehub.federation.deploy.address import Address, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fed.example.org:443", "fed.example.org", 443),
        ("fed.example.org", "fed.example.org", 8443),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[::1]", "::1", 8443),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, host: str, port: int) -> None:
    """With its port or without; numbers of IPv6 in brackets."""
    assert parse(text, port=8443) == Address(host, port)
    assert parse(str(Address(host, port))) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", "https://a:1", "a:0", "a:65536", "a:b", "a b:1", "::1:5", "-a:1", "a/b:1", "a:1:2"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """It would end on Flower's command line."""
    with pytest.raises(ConfigError, match="is no address"):
        parse(text, port=8443)


def test_an_address_needs_its_port_where_none_is_meant() -> None:
    """A node cannot guess it."""
    with pytest.raises(ConfigError, match=r"expected HOST:PORT without https://"):
        parse("fed.example.org")


def test_only_loopback_is_loopback() -> None:
    """A name may point anywhere, whatever it looks like."""
    outside = ["fed.example.org", "0.0.0.0", "::", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1"]  # noqa: S104 (compared with)
    assert [Address(each, 1).loopback for each in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [Address(each, 1).loopback for each in outside] == [False] * 6


LOOP, OUT = Address("127.0.0.1", 8443), Address("0.0.0.0", 8443)  # noqa: S104 (nothing is bound)
NAMED = (Address("fed.example.org", 8443),)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"listen": OUT, "public": NAMED, "insecure": True}, "can be reached from others: leave out --insecure"),
        ({"listen": OUT, "insecure": True}, "0.0.0.0:8443 can be reached"),
        ({"listen": LOOP, "public": NAMED, "insecure": True}, "fed.example.org:8443 can be reached"),
        ({"listen": LOOP, "insecure": True, "behind_proxy": True}, "leave out the certificate, or --behind-proxy"),
        ({"listen": LOOP, "insecure": True, "certificate": Path("c"), "key": Path("k")}, "leave out the certificate"),
        ({"listen": LOOP, "certificate": Path("c")}, "--certificate and --key belong together"),
        ({"listen": LOOP, "key": Path("k")}, "--certificate and --key belong together"),
        ({"listen": OUT, "public": NAMED, "behind_proxy": True}, "listens to this machine alone"),
        ({"listen": LOOP, "public": NAMED, "behind_proxy": True, "certificate": Path("c"), "key": Path("k")}, "proxy"),
        ({"listen": OUT}, "name it with --address"),
        ({"listen": LOOP, "behind_proxy": True}, "name it with --address"),
    ],
)
def test_an_offer_that_would_open_the_server_is_refused(values: dict[str, object], said: str) -> None:
    """Before anything is started, in a sentence with its cure."""
    with pytest.raises(ConfigError, match=said):
        server.Offer(**values)  # type: ignore[arg-type]


def test_an_offer_for_one_machine_may_be_insecure() -> None:
    """Where every address is loopback."""
    assert server.Offer(LOOP, (Address("localhost", 8443),), insecure=True).address == Address("localhost", 8443)
    assert server.Offer(OUT, NAMED).address == NAMED[0]
