"""One method a file; this is their registration, in the order of the table."""

from benchmarks.quality.methods import flexolmo, oracle, phatgoose

METHODS = (
    oracle.BASE,
    oracle.EXPERT,
    phatgoose.PHATGOOSE,
    flexolmo.FLEXOLMO,
)
