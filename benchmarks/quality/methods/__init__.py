"""One method a file; this is their registration, in the order of the table."""

from benchmarks.quality.methods import fedavg, flexolmo, learned, metamoe, multitask, oracle, phatgoose

METHODS = (
    oracle.BASE,
    oracle.EXPERT,
    phatgoose.PHATGOOSE,
    flexolmo.FLEXOLMO,
    metamoe.METAMOE,
    fedavg.FEDAVG,
    learned.ONE,
    learned.ONE_BALANCED,
    learned.LAYERS,
    learned.LAYERS_BALANCED,
    multitask.SMALL,
    multitask.LARGE,
)
