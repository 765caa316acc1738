"""What counts as the same text: words in lower case, whatever white space stands between them.

Punctuation belongs to its word, so that `3 + 4` and `3 - 4` differ. Scripts that put no spaces between words (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) have one word a character.
"""

import hashlib
import re
import unicodedata

_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_NO_LETTERS = re.compile(r"[\W_]+")


def canonical(text: str) -> str:
    """Return the text in lower case and compatibility form (NFKC), its words apart by white space of ASCII."""
    if text.isascii():
        return text.lower()
    return " ".join(_UNSPACED.sub(r" \1 ", unicodedata.normalize("NFKC", text).casefold()).split())


def bare(text: str) -> str:
    """Return the `canonical` text without punctuation: runs of letters and digits, one space between them."""
    return _NO_LETTERS.sub(" ", canonical(text)).strip()


def fingerprint(text: str) -> str:
    """Return the sha256 of the words, in hex: equal for texts that are the same but for case and white space."""
    return hashlib.sha256(" ".join(canonical(text).split()).encode("utf-8", "surrogatepass")).hexdigest()
