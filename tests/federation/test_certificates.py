import datetime as dt
import ipaddress
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from moehub.errors import FederationError
from moehub.federation.deploy import certificates


def names(path: Path) -> set[str]:
    found = certificates.read(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in found}


def test_a_certificate_holds_for_every_name_and_for_this_machine(tmp_path: Path) -> None:
    """Host names and IP addresses alike; the server's own processes come over loopback."""
    found = certificates.own(tmp_path, ["fed.example.org", "192.0.2.7", "2001:db8::1"])
    assert names(found.certificate) == {"fed.example.org", "192.0.2.7", "2001:db8::1", "localhost", "127.0.0.1"}
    general = certificates.read(found.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert ipaddress.ip_address("192.0.2.7") in general.value.get_values_for_type(x509.IPAddress)


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    """From the first byte on: they are made so, not changed afterwards."""
    certificates.own(tmp_path / "tls", ["localhost"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_a_start_changes_nothing_that_is_still_good(tmp_path: Path) -> None:
    """Contributors keep what they were given."""
    first = certificates.own(tmp_path, ["fed.example.org"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert certificates.own(tmp_path, ["fed.example.org"]) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_name_needs_a_new_certificate_but_no_new_invitation(tmp_path: Path) -> None:
    """The authority stays."""
    found = certificates.own(tmp_path, ["old.example.org"])
    authority, certificate = found.authority.read_bytes(), found.certificate.read_bytes()
    certificates.own(tmp_path, ["new.example.org"])
    assert found.authority.read_bytes() == authority
    assert found.certificate.read_bytes() != certificate
    assert "new.example.org" in names(found.certificate)


def test_a_certificate_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty days early, by the same authority."""
    found = certificates.own(tmp_path, ["localhost"])
    ends = found.expiry()
    now = dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=729) < ends - now < dt.timedelta(days=731)
    monkeypatch.setattr(certificates, "_now", lambda: ends - dt.timedelta(days=31))
    assert certificates.own(tmp_path, ["localhost"]).expiry() == ends
    monkeypatch.setattr(certificates, "_now", lambda: ends - dt.timedelta(days=29))
    assert certificates.own(tmp_path, ["localhost"]).expiry() > ends


def test_a_start_that_was_killed_leaves_no_certificate_beside_another_key(tmp_path: Path) -> None:
    """What is half there is made anew, and fits together."""
    found = certificates.own(tmp_path, ["localhost"])
    found.key.unlink()
    certificates.own(tmp_path, ["localhost"])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(found.certificate, found.key)  # raises on a mismatch


def test_another_authority_does_not_vouch_for_it(tmp_path: Path) -> None:
    """A certificate that was copied from another server is made anew."""
    mine = certificates.own(tmp_path / "mine", ["localhost"])
    other = certificates.own(tmp_path / "other", ["localhost"])
    for name in ("server.crt", "server.key"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "mine" / name)
    certificates.own(tmp_path / "mine", ["localhost"])
    assert certificates.read(mine.certificate).issuer == certificates.read(mine.authority).subject
    assert certificates.read(mine.certificate) != certificates.read(other.certificate)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to ask")
def test_openssl_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    """Even where it is strict, for the purpose and the name."""
    found = certificates.own(tmp_path, ["fed.example.org"])
    options = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", "fed.example.org"]
    command = ["openssl", "verify", *options, "-CAfile", str(found.authority), str(found.certificate)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "server.crt"])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    """Which says what to do; nothing is thrown away unasked."""
    certificates.own(tmp_path, ["old.example.org"])
    (tmp_path / name).write_text("nothing")
    with pytest.raises(FederationError, match=rf"{name} is no .*: (name|restore)"):
        certificates.own(tmp_path, ["new.example.org"])


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    """DNS knows no umlauts of its own."""
    with pytest.raises(FederationError, match="is no host name and no IP address"):
        certificates.own(tmp_path, ["bücher.example"])
