"""Differential privacy: Flower clips every update to `noise_clip`, averages them with equal weights and adds noise.

What (ε, δ) covers: whoever sees the adapters, those sent out in each round and the one published, learns almost the
same whether a given node took part or not, however much text it has. What it does not cover:

- the server: it sees every update as it was sent, and must be honest;
- router statistics, which are counts of the text: `suppress_below` hides what is rare, and no ε is claimed for it;
- losses, norms and numbers of tokens and nodes, in the journal, the card and the logs;
- attacks on how a computer rounds Gaussian noise (Mironov 2012).

`clip` plays no part here: a median depends on everybody's updates, and the noise covers one node's share of the mean.
"""

import numpy as np
from flwr.serverapp import GaussianPrivacyEvent, NeighboringRelation, PrivacyConfig, RdpAccountant, SamplingMethod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from numpy.typing import NDArray

from moehub.errors import FederationError
from moehub.federation.aggregation.mean import change
from moehub.federation.aggregation.replies import WEIGHT, record, reply, values
from moehub.federation.aggregation.update import Aggregate, Gathered, moved
from moehub.federation.settings import FederationConfig

_SMALLEST = 1e-30


def noisy(gathered: Gathered, *, seed: int | None = None) -> Aggregate:
    """Return start + the mean of the clipped changes + Gaussian noise of noise · noise_clip / nodes on each value.

    All updates are in memory at once. The noise is drawn from what the operating system calls random, unless a test
    names a `seed`.
    """
    settings, nodes = gathered.settings, len(gathered.updates)
    strategy = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(weighted_by_key=WEIGHT), settings.noise, settings.noise_clip, nodes
    )
    strategy.current_arrays = record({name: np.zeros(each.shape) for name, each in gathered.start.items()})
    replies = [
        reply(_not_nothing(change(gathered.start, update.load(), 1.0)), weight=1.0, place=place)
        for place, update in enumerate(gathered.updates)
    ]
    state = np.random.get_state()  # noqa: NPY002 (Flower draws from numpy's global generator)
    np.random.seed(seed)  # noqa: NPY002 (the same; None: from the operating system)
    try:
        found, _ = strategy.aggregate_train(gathered.round, replies)
    finally:
        np.random.set_state(state)  # noqa: NPY002 (the same)
    return Aggregate(moved(gathered.start, values(found)), noise=settings.noise * settings.noise_clip / nodes)


def spent(settings: FederationConfig, releases: int) -> float:
    """Return ε at `settings.delta` after so many noisy aggregates of one domain; 0 before the first.

    Every node takes part in every round, so nothing is gained by sampling, and the number of nodes plays no part:
    neighbours differ in one node, added or removed.

    Raises:
        FederationError: the accountant is not installed.
    """
    config = PrivacyConfig(
        target_delta=settings.delta,
        population_size=1,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
    )
    try:
        accountant = RdpAccountant(config)
    except ImportError as error:
        raise FederationError(
            f"noise = {settings.noise} needs an accountant of privacy that is not installed: pip install 'moehub[dp]'"
        ) from error
    if releases:
        accountant.compose(GaussianPrivacyEvent(settings.noise, sample_size=1, population_size=1), releases)
    return float(accountant.get_epsilon(settings.delta)) if releases else 0.0


def _not_nothing(changes: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return the changes, but not all zero: Flower divides by their norm."""
    if not any(each.any() for each in changes.values()):
        next(iter(changes.values())).flat[0] = _SMALLEST
    return changes
