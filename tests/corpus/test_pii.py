import pytest

from moehub.corpus.pii import Finding, find, iban, luhn, strings

KEY = "sk-" + "proj-" + "a8Fk2LmQ9xZr7TbWc4Vn"
TOKEN = "gh" + "p_" + "a8Fk2LmQ9xZr7TbWc4VnA8fK2lMq9XzR7tBw"
AWS = "AKIA" + "Q3EGRIJ7LMNOP2ZX"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to jane.doe+law@mail.acme.co.uk, please", "e-mail", "jane.doe+law@mail.acme.co.uk"),
        ("call +49 170 4839271 now", "phone", "+49 170 4839271"),
        ("(718) 234-1816", "phone", "(718) 234-1816"),
        ("718-234-1816.", "phone", "718-234-1816"),
        ("Tel. 030 4839271", "phone", "030 4839271"),
        ("+31641044153", "phone", "+31641044153"),
        ("to DE89 3704 0044 0532 0130 00 today", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
        ("card 4539 1488 0343 6467", "card", "4539 1488 0343 6467"),
        ("371449635398431", "card", "371449635398431"),
        ("from 93.184.216.34:443", "ipv4", "93.184.216.34"),
        ("SSN 536-90-4399", "ssn", "536-90-4399"),
        (f"key={AWS}", "secret", AWS),
        (f"token: {TOKEN}", "secret", TOKEN),
        (f"'{KEY}'", "secret", KEY),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "secret", "-----BEGIN RSA PRIVATE KEY-----"),
        ("postgres://app:hx7Kd92mQ@db.acme.io/main", "secret", "postgres://app:hx7Kd92mQ@db.acme.io"),
    ],
)
def test_private_data_is_found_by_its_form(text: str, kind: str, value: str) -> None:
    """Whole, whatever stands around it."""
    assert Finding(kind, value) in list(find(text))


@pytest.mark.parametrize(
    "text",
    [
        "@decorator and a @ b, user@host, name@example.com, a@b.test, no-reply@acme.io",
        "2**32 = +4294967296, +35236450.6, 2024-11-30 12:30:45, 2001-03-04",
        "555-0123, (212) 555-0199, 1234567890, 12-34-56",
        "DE89 3704 0044 0532 0130 01, XX12 ABCD EFGH IJKL",
        "4539 1488 0343 6468, 4444444444444448, 3.141592653589793, 0.4539148803436467",
        "127.0.0.1, 10.0.0.7, 192.168.1.20, 255.255.255.255, 1.2.3.4, v2.31.0.4, 300.1.2.3, 1.2.3.4.5, 224.1.1.200",
        "000-12-3456, 666-12-3456, 912-34-5678, 123-00-4567, 123-45-0000, 1123-45-67890",
        "AKIAIOSFODNN7EXAMPLE, sk-your-key-goes-here-please, sk-aaaaaaaaaaaaaaaaaaaaaaaa, hf_" + "x" * 34,
        "-----BEGIN PUBLIC KEY-----\nMIIB, '-----BEGIN PRIVATE KEY-----' in line",
        "https://user:password@host, https://user:{password}@host.io, http://acme.io:8080/a@b",
        "def f(x): return x[1:-1] + 0x4539148803436467",
    ],
)
def test_what_only_looks_private_is_left_alone(text: str) -> None:
    """Numbers, versions, placeholders, and what is reserved for examples."""
    assert list(find(text)) == []


def test_what_is_shown_cannot_be_used() -> None:
    """Two characters and the length."""
    assert Finding("ssn", "536-90-4399").masked == "53… (11 characters)"


def test_check_digits() -> None:
    """A digit that is wrong, or two that changed places, are noticed."""
    assert luhn("4539148803436467")
    assert not luhn("4539148803436476")
    assert iban("NL91 ABNA 0417 1643 00")
    assert not iban("NL91 ABNA 0417 1634 00")
    assert not iban("NL91 ABNA 0417 1643 001")


def test_every_field_of_a_record_is_read() -> None:
    """Lists and records in it too."""
    value = {"a": "one", "b": [{"c": "two"}, "three", 4, None]}
    assert list(strings(value)) == ["one", "two", "three"]
