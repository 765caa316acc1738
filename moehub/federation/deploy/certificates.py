"""A server's own certificates, where it was given none: an authority that contributors trust, and what it signs.

The authority stays the same for ten years, so an invitation stays good; it signs the server's certificate anew when
that nears its end or is to hold for other names.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moehub import files
from moehub.errors import FederationError

ALWAYS = ("localhost", "127.0.0.1")
"""Names that every certificate holds for: the server's own processes use them."""
_AUTHORITY_DAYS, _SERVER_DAYS, _EARLY_DAYS = 3650, 730, 30
_CLOCKS = dt.timedelta(hours=1)
"""How far a contributor's clock may be behind."""


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: what the other side trusts, what the server shows, and the key of that."""

    authority: Path
    certificate: Path
    key: Path

    def expiry(self) -> dt.datetime:
        """Return when the server's certificate ends.

        Raises:
            FederationError: it cannot be read.
        """
        return read(self.certificate).not_valid_after_utc


def own(folder: Path, names: Iterable[str]) -> Certificates:
    """Return certificates that hold for `names`, host names or IP addresses; what is missing in `folder` is made.

    Raises:
        FederationError: what stands there cannot be read, or a name is none.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    signing = folder / "ca.key"
    wanted = [_general(name) for name in dict.fromkeys((*names, *ALWAYS))]
    if not (found.authority.exists() and signing.exists()):
        key = ec.generate_private_key(ec.SECP384R1())
        files.write_private(signing, _pem(key), replace=True)
        _write(found.authority, _authority(key))
        found.certificate.unlink(missing_ok=True)
    if not _good(found, wanted):
        key = ec.generate_private_key(ec.SECP384R1())
        signed = _server(key, wanted, read(found.authority), _signing_key(signing))
        found.certificate.unlink(missing_ok=True)  # so that it never stands beside a key that is not its own
        files.write_private(found.key, _pem(key), replace=True)
        _write(found.certificate, signed)
    return found


def read(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM file.

    Raises:
        FederationError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FederationError(
            f"{path} is no certificate in PEM ({error}): name the right file, or remove one that moehub made and it is "
            "made anew"
        ) from error


def _good(found: Certificates, wanted: Sequence[x509.GeneralName]) -> bool:
    """Say whether there is a certificate that holds for these names, by this authority and for a while yet."""
    if not (found.certificate.exists() and found.key.exists()):
        return False
    certificate, authority = read(found.certificate), read(found.authority)
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        set(wanted) <= set(named)
        and certificate.issuer == authority.subject
        and certificate.not_valid_after_utc > _now() + dt.timedelta(days=_EARLY_DAYS)
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # Its own serial number in the name: two authorities of two servers are never taken for one another.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moehub federation {serial:x}"[:64])])
    return (
        _begun(name, name, key.public_key(), _AUTHORITY_DAYS)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA384())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    authority: x509.Certificate,
    signing: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moehub federation server")])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _begun(name, authority.subject, key.public_key(), _SERVER_DAYS)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signing, hashes.SHA384())
    )


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(_now() - _CLOCKS)
        .not_valid_after(_now() + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise FederationError(f"{name!r} is no host name and no IP address: give another --address") from error


def _signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise FederationError(f"{path} is no private key in PEM ({error}): restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FederationError(f"{path} holds a key of another kind than moehub makes: restore it from a backup")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    files.write_text(path, certificate.public_bytes(serialization.Encoding.PEM).decode())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
