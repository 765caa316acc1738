"""What published counts give away, and what protecting them costs the gate.

    python -m benchmarks.privacy [--data DIR] [--write]

DIR holds NAME.train.jsonl and NAME.test.jsonl (or .txt): domains to add to those that this machine's own text makes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.hub import present, where
from benchmarks.privacy.attack import REPEATS, Outcome, Victim
from benchmarks.privacy.gate import Quality, Table
from benchmarks.privacy.protection import protections
from benchmarks.quality import texts as gathered
from benchmarks.quality.rows import held
from benchmarks.quality.setup import Setup, small
from benchmarks.quality.texts import Texts
from moehub.console import progress
from moehub.demo.base import tokenizer_of
from moehub.experts.examples import Example
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import encode

_VICTIMS = ("medical", "json")
"""Whose text is attacked: the first of these that is there."""
_COLUMNS = (
    "published counts",
    *(f"canary × {repeats}" for repeats in REPEATS),
    "membership",
    "gate: domains",
    "switching",
    "generic",
    "counts",
)


_BELOW = (
    "How the privacy is spent on the kinds of counts, what is taken for noise, and how much counts are then made "
    "smaller were chosen on these same texts."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack and measure every way to publish counts, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of domains")
    parser.add_argument("--small", action="store_true", help="a size that takes seconds and says nothing")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine, setup = where(), small() if options.small else Setup()
    texts = gathered.gather(options.data, setup.sizes)
    texts = replace(texts, domains=tuple(sorted(texts.domains, key=lambda domain: domain.name)))
    tokenizer = tokenizer_of(texts.base, setup.base.vocabulary)
    victim, table = _victim(texts, tokenizer), _table(texts, tokenizer, setup)
    rows = []
    with progress("attacking", len(protections())) as advance:
        for way, publish in protections().items():
            rows.append(_row(way, victim.attacked(publish), table.quality(publish)))
            advance(1, way)
    present(
        "The privacy of the counts",
        _COLUMNS,
        rows,
        how=_how(victim, table),
        machine=machine,
        write=options.write,
        below=_BELOW,
    )


def _victim(texts: Texts, tokenizer: Any) -> Victim:
    names = [domain.name for domain in texts.domains]
    name = next(name for name in (*_VICTIMS, *names) if name in names)
    return Victim(name, tokenizer, _documents(tokenizer, texts.domain(name).train), seed=0)


def _table(texts: Texts, tokenizer: Any, setup: Setup) -> Table:
    documents = {
        one.name: _documents(tokenizer, gathered.drawn(one.train, setup.expert_characters, 0)) for one in texts.domains
    }
    generic = _documents(tokenizer, texts.generic.train)
    return Table(documents, generic, held(texts, tokenizer, setup, "test"), len(tokenizer))


def _documents(tokenizer: Any, examples: Sequence[Example]) -> list[Tensor]:
    return [one.seen for one in encode(tokenizer, examples)]


def _row(way: str, outcome: Outcome, quality: Quality) -> tuple[str, ...]:
    return (
        way,
        *(f"{outcome.recovered[repeats]:.0%}" for repeats in REPEATS),
        f"{outcome.membership:.2f}",
        f"{quality.domains:.3f}",
        f"{quality.switching:.3f}",
        f"{quality.generic:.3f}",
        f"{quality.nonzero:,.0f}",
    )


def _how(victim: Victim, table: Table) -> str:
    usual = TrainConfig()
    return (
        "`python -m benchmarks.privacy --data DIR`. Canaries: a name and a number of eight digits, so many times in "
        "one document; the share of the numbers that an attacker who knows the names reads off the counts of "
        f"{len(victim.members)} documents ({victim.name}). Membership: the area under the curve of a likelihood-ratio "
        f"test of {len(victim.members)} documents that were counted against {len(victim.strangers)} that were not; "
        "one half is chance. Gate: the share of held-out tokens whose owner has the largest weight, among "
        f"{len(table.documents)} experts of {table.mean_documents:,.0f} documents on average and the null, to which "
        f"generic text belongs. Noise: δ = {usual.private_delta:g}, clip {usual.private_clip}."
    )


if __name__ == "__main__":
    main()
