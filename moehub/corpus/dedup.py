"""Leaving duplicates out: the first of several that are alike stays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import files
from moehub.corpus import items, near, signatures, sketches, writing
from moehub.corpus.items import Item
from moehub.corpus.near import Match
from moehub.corpus.signatures import OPEN, Secret, Signatures
from moehub.errors import DataError


@dataclass(frozen=True)
class Others:
    """Contributors whose texts are compared by their signatures."""

    before: Sequence[Path] = ()
    """Files of those who came first: what is like theirs is dropped."""
    among: Sequence[Path] = ()
    """Files of equals, who all follow the rule of `signatures.not_mine`."""
    secret: Secret = OPEN


@dataclass(frozen=True)
class Dropped:
    """A record that was left out."""

    item: Item
    why: str
    """`exact` or `near` for one that repeats a record here, `theirs` for one that another contributor keeps."""
    kept: str | None = None
    """Where the record stands that it repeats."""
    similarity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for a report, without any text."""
        found = {"record": self.item.record.origin, "why": self.why, "kept": self.kept, "similarity": self.similarity}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """What stays, and what does not."""

    kept: Sequence[Item]
    dropped: Sequence[Dropped]
    signatures: Signatures
    """Of what is no duplicate here, so that others can compare; what they keep is in it too."""

    def to_dict(self) -> dict[str, int]:
        """Return the counts."""
        reasons = [one.why for one in self.dropped]
        return {
            "records": len(self.kept) + len(self.dropped),
            "kept": len(self.kept),
            **{why: reasons.count(why) for why in ("exact", "near", "theirs")},
        }

    def write(self, output: Path | None, signed: Path | None = None, report: Path | None = None) -> None:
        """Write what stays, the signatures, and what was dropped as JSON lines: whatever has a place.

        Raises:
            DataError: the records do not fit into the output's format.
        """
        if output is not None:
            writing.write(output, [item.record for item in self.kept])
        if signed is not None:
            with files.new_file(signed) as place:
                place.write_bytes(self.signatures.to_bytes())
        if report is not None:
            files.write_text(report, "".join(f"{json.dumps(one.to_dict())}\n" for one in self.dropped))


def dedup(sources: Sequence[Path], threshold: float = near.THRESHOLD, others: Others | None = None) -> Outcome:
    """Return the records of files without those that repeat one before them, or one of other contributors.

    Raises:
        DataError: a file cannot be read or has records that are none to learn from, or signatures do not fit.
        ConfigError: the threshold is not above 0 and at most 1.
    """
    seen = near.Seen(threshold)
    others = others or Others()
    before, among = (
        [signatures.read(path, others.secret) for path in paths] for paths in (others.before, others.among)
    )
    found = items.read(sources)
    if not found:
        raise DataError(f"there are no records in {', '.join(map(str, sources))}: expected at least one")
    sketched = sketches.sketch(item.text for item in found)
    matches = seen.add_sketches(sketched)
    dropped = {number: _repeats(found, number, match) for number, match in enumerate(matches) if match is not None}
    mine = [number for number in range(len(found)) if number not in dropped]
    rows = signatures.enciphered(sketched.signatures[mine], others.secret)
    signed = signatures.sign(sketched.signatures[mine], others.secret)
    theirs = signatures.not_mine(signed, rows, among, threshold)
    for file in before:
        theirs |= signatures.alike(rows, file.rows, threshold)
    for number, elsewhere in zip(mine, theirs.tolist(), strict=True):
        if elsewhere:
            dropped[number] = Dropped(found[number], "theirs")
    kept = [item for number, item in enumerate(found) if number not in dropped]
    return Outcome(kept, [dropped[number] for number in sorted(dropped)], signed)


def _repeats(found: Sequence[Item], number: int, match: Match) -> Dropped:
    why = "exact" if match.exact else "near"
    return Dropped(found[number], why, found[match.number].record.origin, round(match.similarity, 4))
