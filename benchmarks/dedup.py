"""Near-duplicates: how many planted ones are found, what is dropped by mistake, and how many documents a second.

    python -m benchmarks.dedup [FILE ...] [--documents 20000] [--repeats 5]

Documents of about 120 words are cut from FILEs, or from Python's own library as it is installed here. To them come
near-duplicates, 30 % of all: a document with its lines wrapped anew and perhaps words before it, and words swapped,
removed or replaced as long as its Jaccard similarity to the original, of word trigrams, stays above a number drawn from
.8 to 1. And near misses, 10 %, made likewise, which end between .6 and .8. CPU seconds of this process, one thread.
"""

import argparse
import os
import platform
import random
import statistics as stats
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np
from rensa import RMinHashDeduplicator

from moehub.corpus import checking, dedup, signatures, writing
from moehub.corpus.near import THRESHOLD, Seen
from moehub.corpus.sketches import PLACES, sketch
from moehub.corpus.words import canonical
from moehub.experts.records import Record

_WORDS = 120
_PLANTED, _MISSES = 0.3, 0.1
_LEAST_OF_A_MISS = 0.6
_TWIN = 500
"""Documents that the plain twin is given: it would take minutes for all."""
_PRIME = (1 << 61) - 1


@dataclass(frozen=True)
class Copy:
    """A document that was made of another."""

    text: str
    original: int
    similarity: float


def main() -> None:
    """Make the corpus, measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--documents", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    draw = random.Random(0)  # noqa: S311 (edits, not secrets)
    wanted = round(chosen.documents * (1 - _PLANTED - _MISSES))
    originals = list(_originals(chosen.files, wanted))
    if len(originals) < wanted:
        sys.exit(f"the files make {len(originals)} documents, expected {wanted}: name more, or lower --documents")
    made = [_copy(originals, draw, miss=False) for _ in range(round(chosen.documents * _PLANTED))]
    missed = [_copy(originals, draw, miss=True) for _ in range(round(chosen.documents * _MISSES))]
    copies = [*made, *missed]
    draw.shuffle(copies)
    texts = [*originals, *(copy.text for copy in copies)]
    _show_corpus(texts, made, missed)
    _show_found(originals, copies)
    _show_speed(texts, chosen.repeats)


def _originals(files: Sequence[Path], count: int) -> Iterator[str]:
    """Yield documents, at most `count`, none of which repeats one before it."""
    library = Path(sysconfig.get_path("stdlib"))
    found = files or [path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts]
    seen = Seen(0.5)
    for path in found:
        for document in _cut(path.read_text(encoding="utf-8", errors="ignore")):
            if count and seen.add(document):
                count -= 1
                yield document


def _cut(text: str) -> Iterator[str]:
    lines: list[str] = []
    words = 0
    for line in text.splitlines():
        lines.append(line)
        words += len(line.split())
        if words >= _WORDS:
            yield "\n".join(lines)
            lines, words = [], 0


def _copy(originals: Sequence[str], draw: random.Random, *, miss: bool) -> Copy:
    number = draw.randrange(len(originals))
    target = draw.uniform(_LEAST_OF_A_MISS, THRESHOLD) if miss else draw.uniform(THRESHOLD, 1)
    shingles = _shingles(originals[number])
    words = originals[number].split()
    if draw.random() < 0.2:
        words = ["This", "is", "a", "copy", "for", "your", "records.", *words][-draw.randrange(1, 4) - len(words) :]
    similarity = _jaccard(shingles, _shingles(" ".join(words)))
    while similarity > target:
        changed = _edited(words, draw)
        reached = _jaccard(shingles, _shingles(" ".join(changed)))
        if reached < (_LEAST_OF_A_MISS if miss else target):
            break
        words, similarity = changed, reached
    return Copy(_wrapped(words, draw.randrange(5, 20)), number, similarity)


def _edited(words: Sequence[str], draw: random.Random) -> list[str]:
    changed = list(words)
    place = draw.randrange(len(changed) - 1)
    match draw.randrange(3):
        case 0:
            changed[place], changed[place + 1] = changed[place + 1], changed[place]
        case 1:
            del changed[place]
        case _:
            changed[place] = f"other{draw.randrange(1000)}"
    return changed


def _wrapped(words: Sequence[str], width: int) -> str:
    return "\n".join(" ".join(words[begin : begin + width]) for begin in range(0, len(words), width))


def _shingles(text: str) -> set[str]:
    words = canonical(text).split()
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def _show_corpus(texts: Sequence[str], made: Sequence[Copy], missed: Sequence[Copy]) -> None:
    print(f"{platform.machine()}, 1 thread; python {platform.python_version()}, numpy {np.__version__}, ", end="")
    print(
        f"rensa {version('rensa')}. {len(texts)} documents of {stats.mean(map(len, texts)):.0f} characters and ", end=""
    )
    print(f"{stats.mean(len(text.split()) for text in texts):.0f} words on average.\n")
    print("| | planted | similarity: least | quartiles | greatest |\n|---|---:|---:|---:|---:|")
    for name, some in (("near-duplicates", made), ("near misses", missed)):
        values = [copy.similarity for copy in some]
        quartiles = ", ".join(f"{value:.3f}" for value in stats.quantiles(values, n=4))
        print(f"| {name} | {len(some)} | {min(values):.3f} | {quartiles} | {max(values):.3f} |")


def _show_found(originals: Sequence[str], copies: Sequence[Copy]) -> None:
    """Show who finds what; the originals came first, and resemble each other by less than half."""
    print("\n| | recall | below .85 | dropped | false alarms |\n|---|---:|---:|---:|---:|")
    texts = [*originals, *(copy.text for copy in copies)]
    first = len(originals)
    matches = Seen().add_all(texts)
    _show_row("moehub", copies, [match is not None for match in matches[first:]], texts, [
        (number, match.number) for number, match in enumerate(matches) if match is not None
    ])  # fmt: skip
    kept = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PLACES, use_lsh=True).add_pairs(_pairs(texts))
    _show_row("rensa's deduplicator, by signatures, its own bands", copies, [not one for one in kept[first:]])
    theirs, mine = sketch(originals).signatures, sketch(copy.text for copy in copies).signatures
    _show_row(
        "moehub, of other contributors, by signatures", copies, signatures.alike(mine, theirs, THRESHOLD).tolist()
    )


def _show_row(
    name: str,
    copies: Sequence[Copy],
    dropped: Sequence[bool],
    texts: Sequence[str] = (),
    pairs: Sequence[tuple[int, int]] = (),
) -> None:
    """Show one way; a false alarm is a pair below the threshold, where none are told a copy that is below it."""
    both = list(zip(copies, dropped, strict=True))
    planted = [found for copy, found in both if copy.similarity >= THRESHOLD]
    edge = [found for copy, found in both if THRESHOLD <= copy.similarity < 0.85]
    wrong = [
        _jaccard(_shingles(texts[one]), _shingles(texts[other])) < THRESHOLD for one, other in pairs
    ] or [copy.similarity < THRESHOLD for copy, found in both if found]  # fmt: skip
    rates = f"{stats.mean(planted):.4f} | {stats.mean(edge):.4f} | {len(wrong)} | {stats.mean(wrong):.4f}"
    print(f"| {name} | {rates} |")


def _pairs(texts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for number, text in enumerate(texts):
        yield str(number), sorted(_shingles(text))


def _show_speed(texts: Sequence[str], repeats: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "texts.jsonl"
        _write(place, texts)
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "near-duplicates, of texts in memory": (lambda: Seen().add_all(texts), len(texts)),
            "their signatures alone": (lambda: sketch(texts), len(texts)),
            "`moehub data dedup`, as a function, from file to file": (
                lambda: dedup.dedup([place]).write(place.with_name("out.jsonl")),
                len(texts),
            ),
            "`moehub data check`, as a function": (lambda: checking.check([place]), len(texts)),
            "rensa's deduplicator, trigrams made in Python": (lambda: _with_rensa(texts), len(texts)),
            "a plain twin in Python": (lambda: _twin(texts[:_TWIN]), _TWIN),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, (work, count) in ways.items():
                begin = time.process_time()
                work()
                rates[name].append(count / (time.process_time() - begin))
    print("\n| | documents a second and core | times the twin |\n|---|---:|---:|")
    twin = stats.median(rates["a plain twin in Python"])
    for name, some in rates.items():
        middle = stats.median(some)
        print(f"| {name} | {middle:,.0f} [{min(some):,.0f}, {max(some):,.0f}] | {middle / twin:.3g} |")


def _write(place: Path, texts: Sequence[str]) -> None:
    writing.write(place, [Record({"text": text}, "made", "") for text in texts])


def _with_rensa(texts: Sequence[str]) -> list[bool]:
    index = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PLACES, use_lsh=True)
    kept: list[bool] = index.add_pairs(_pairs(texts))
    return kept


def _twin(texts: Sequence[str]) -> list[bool]:
    """Return which texts are kept: sets, minima over 128 linear hashes, bands in a dict, and the true similarity."""
    draw = random.Random(1)  # noqa: S311
    lines = [(draw.randrange(1, _PRIME), draw.randrange(_PRIME)) for _ in range(PLACES)]
    buckets: dict[tuple[int, ...], list[set[str]]] = {}
    kept = []
    for text in texts:
        shingles = _shingles(text)
        hashes = [hash(shingle) for shingle in shingles]
        signature = [min((a * value + b) % _PRIME for value in hashes) for a, b in lines]
        bands = [(band, *signature[band : band + 6]) for band in range(0, PLACES - 5, 6)]
        others = [other for band in bands for other in buckets.get(band, ())]
        kept.append(all(_jaccard(shingles, other) < THRESHOLD for other in others))
        if kept[-1]:
            for band in bands:
                buckets.setdefault(band, []).append(shingles)
    return kept


if __name__ == "__main__":
    main()
