"""Texts that an export is made or measured with, as rows of tokens.

Shapes: T tokens of a row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from moehub.base import Base, context_length
from moehub.experts import data, tokens
from moehub.experts.packing import Row, pack

Texts = Mapping[str, Sequence[Path]]
"""Name → files."""
LONGEST = 512
"""Tokens of a window where the base's context is longer."""


def rows_of(base: Base, texts: Texts) -> dict[str, list[Row]]:
    """Return each text as rows, one example or window a row.

    Raises:
        DataError: a file cannot be used.
    """
    tokenizer, config = base.load_tokenizer(), base.load_config()
    longest = context_length(config)
    window = min(longest, LONGEST)
    found = {}
    for name, paths in texts.items():
        encoded = tokens.encode(tokenizer, data.read(paths))
        kept, _ = tokens.fit(encoded, window, too_long="cut", longest=longest)
        found[name] = pack(kept, window, join=False)
    return found
