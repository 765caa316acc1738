"""One method a file; this is their registration, in the order of the table."""

from benchmarks.quality.methods import fedavg, flexolmo, metamoe, oracle, phatgoose

METHODS = (
    oracle.BASE,
    oracle.EXPERT,
    phatgoose.PHATGOOSE,
    flexolmo.FLEXOLMO,
    metamoe.METAMOE,
    fedavg.FEDAVG,
)
