"""One method a file; this is their registration, in the order of the table."""

from benchmarks.quality.methods import (
    arrow,
    counts,
    hidden,
    likelihood,
    lorahub,
    mixing,
    oracle,
    peft_arrow,
    peft_merging,
)

METHODS = (
    oracle.BASE,
    oracle.EXPERT,
    mixing.UNIFORM,
    mixing.AVERAGE,
    *peft_merging.METHODS,
    lorahub.LORAHUB,
    arrow.ARROW,
    arrow.SPECTR,
    peft_arrow.ARROW,
    peft_arrow.WITHOUT_GENERAL,
    *hidden.METHODS,
    *counts.METHODS,
    *likelihood.METHODS,
)
