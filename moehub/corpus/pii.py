"""Personal data and secrets in text, by their form, and by their checksum where they have one.

What is found is a pattern and no proof, and names, addresses and the like have none: nothing found does not mean
nothing there. Numbers that are reserved for examples are left alone, as are addresses of private networks.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 2
"""Characters of what was found that a report shows."""
_SMALL = 64
"""A dotted quad of numbers below this is more likely a version than an address."""


@dataclass(frozen=True)
class Finding:
    """Something private in a text."""

    kind: str
    value: str

    @property
    def masked(self) -> str:
        """Its first two characters and its length."""
        return f"{self.value[:_SHOWN]}… ({len(self.value)} characters)"


def find(text: str) -> Iterator[Finding]:
    """Yield what looks private in a text, kind by kind."""
    for needed, forms in _FORMS.items():
        if needed.search(text):
            for kind, pattern, holds in forms:
                yield from (Finding(kind, match.group()) for match in pattern.finditer(text) if holds(match.group()))


def strings(value: Any) -> Iterator[str]:
    """Yield all texts of a record, whatever field they stand in."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def luhn(digits: str) -> bool:
    """Return whether a number has the check digit of credit cards (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def iban(text: str) -> bool:
    """Return whether a text is an IBAN: its country's length, and 1 modulo 97 (ISO 13616)."""
    packed = re.sub(r"[ -]", "", text).upper()
    if _IBAN_LENGTHS.get(packed[:2]) != len(packed):
        return False
    return int("".join(str(int(character, 36)) for character in packed[4:] + packed[:4])) % 97 == 1


def _is_mail(text: str) -> bool:
    local, _, domain = text.lower().rpartition("@")
    reserved = re.search(r"(^|\.)(example(\.(com|net|org))?|test|invalid|local(host|domain)?)$", domain)
    return reserved is None and "noreply" not in (local + "." + domain).replace("no-reply", "noreply")


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(set(digits)) > 2 and luhn(digits)


def _is_address(text: str) -> bool:
    parts = text.split(".")
    values = [int(part) for part in parts]
    if max(values) > 255 or max(values) < _SMALL or values[-1] in (0, 255) or len(set(values)) == 1:
        return False
    counted = text.startswith("1.2.3.") or "123456789".startswith("".join(parts))
    if counted or text != ".".join(map(str, values)):
        return False
    address = ipaddress.IPv4Address(text)
    return address.is_global and not address.is_multicast


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    fictional = re.search(r"555\D?01\d\d$", text) is not None
    least = 11 if text[1:] == digits else 9  # A sign before a whole number is no country code.
    return least <= len(digits) <= 13 and len(set(digits)) > 3 and not fictional


def _is_secret(text: str) -> bool:
    """Return whether a token looks drawn at random: no placeholder of few characters or of words."""
    if "EXAMPLE" in text.upper() or len(set(text)) < 10:
        return False
    return any(character.isdigit() for character in text) and any(character.isalpha() for character in text)


def _holds(text: str) -> bool:
    return bool(text)


_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FO FI GL NL", "19": "MK SI", "20": "AT BA EE KZ LT LU XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR", "27": "FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HU LB PL SV", "29": "BR EG PS QA UA", "30": "JO KW MU", "31": "MT SC", "32": "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip
_CARDS = (
    r"(?<![\w.,/-])(?:"
    r"(?:4\d{3}|5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|6011|65\d\d|35[2-8]\d)(?:[ -]?\d{4}){3}"
    r"|3[47]\d\d[ -]?\d{6}[ -]?\d{5}|3(?:0[0-5]|[68]\d)\d[ -]?\d{6}[ -]?\d{4}"
    r")(?![\w/-]|[.,]\d)"
)
_PHONES = (
    r"(?<![\w+./-])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{2,5}\)?){2,6}|\(\d{3}\) ?\d{3}-\d{4}|[2-9]\d\d-[2-9]\d\d-\d{4}"
    r"|(?<=(?i:tel[.:] |one: |bil: ))0[\d /-]{7,14}\d)(?![\w/-]|[.,]\d)"
)
_ADDRESSES = r"(?<![\w+.-])[a-z][a-z0-9+.-]{1,15}://[^\s:/@<>{}$]{1,64}:[^\s:/@<>{}$*]{6,64}@[\w.-]+"
_TOKENS = (
    r"(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|[rs]k_live_[0-9A-Za-z]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])"
)
_FORMS: Mapping[re.Pattern[str], tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]] = {
    re.compile(r"@(?<=\S@)\w"): (
        ("e-mail", re.compile(r"(?<![\w.+-])\w[\w.+-]{0,63}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"), _is_mail),
        ("secret", re.compile(_ADDRESSES), _is_secret),
    ),
    re.compile(r"\d[\d .()/-]{5,}\d"): (
        ("phone", re.compile(_PHONES), _is_phone),
        ("card", re.compile(_CARDS), _is_card),
        ("ipv4", re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"), _is_address),
        ("ssn", re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"), _holds),
    ),
    re.compile(r"[A-Z]{2}\d\d"): (
        ("iban", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?!\w)"), iban),
    ),
    re.compile("AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|sk-|k_live_|xox|AIza|eyJ"): (
        ("secret", re.compile(_TOKENS), _is_secret),
    ),
    re.compile("-----BEGIN "): (
        ("secret", re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?=\s*[\w+/=:])"), _holds),
    ),
}
"""What a text has to have, which is looked for quickly → forms with that in them."""
KINDS = tuple(dict.fromkeys(kind for forms in _FORMS.values() for kind, _, _ in forms))
