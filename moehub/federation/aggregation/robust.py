"""`median`, `trimmed`, `krum`, `multikrum`: Flower's strategies against nodes that send harmful updates.

They compare all updates with each other, so all of a domain's updates are in memory at once, in float64 and more than
once. A is frozen under all of them. What they get are the changes, already clipped:

median     of each value (FedMedian); holds while less than half of the nodes are malicious
trimmed    mean of each value without the `malicious` largest and smallest (FedTrimmedAvg)
krum       the one update that is closest to its neighbours (Blanchard et al. 2017)
multikrum  mean, by tokens, of all but the `malicious` updates that krum likes least
"""

from collections.abc import Callable

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from moehub.errors import FederationError
from moehub.federation.aggregation.mean import change
from moehub.federation.aggregation.replies import PLACE, WEIGHT, reply, values
from moehub.federation.aggregation.update import Aggregate, Gathered, moved
from moehub.federation.settings import FederationConfig

Choose = Callable[[list[RecordDict], str], MetricRecord]


def needed(settings: FederationConfig) -> int:
    """Return how many nodes of a domain must reply for the method to withstand `malicious` of them."""
    each = {"trimmed": 2 * settings.malicious + 1, "krum": 2 * settings.malicious + 3}
    return {**each, "multikrum": each["krum"]}.get(settings.aggregation, 1)


def robust(gathered: Gathered) -> Aggregate:
    """Return start + what Flower's strategy makes of the clipped changes.

    Raises:
        FederationError: too few nodes replied for the method.
    """
    _check(gathered)
    chosen: list[int] = []

    def choose(contents: list[RecordDict], _: str) -> MetricRecord:
        # Flower hands its selection to whatever averages the metrics, and to nobody else.
        chosen.extend(int(next(iter(each.metric_records.values()))[PLACE]) for each in contents)
        return MetricRecord()

    replies = [
        reply(change(gathered.start, update.load(), scale), weight=update.tokens, place=place)
        for place, (update, scale) in enumerate(zip(gathered.updates, gathered.scales, strict=True))
    ]
    strategy = _strategy(gathered.settings, len(replies), choose)
    found, _ = strategy.aggregate_train(gathered.round, replies)
    excluded = tuple(update.node for place, update in enumerate(gathered.updates) if place not in chosen)
    return Aggregate(moved(gathered.start, values(found)), excluded=excluded)


def _check(gathered: Gathered) -> None:
    settings, nodes, need = gathered.settings, len(gathered.updates), needed(gathered.settings)
    if nodes < need:
        most = settings.malicious - (need - nodes + 1) // 2
        cure = f"set malicious to {most}, " if most > 0 else ""
        raise FederationError(
            f"round {gathered.round}: {settings.aggregation} withstands malicious = {settings.malicious} only among "
            f"{need} or more replies, but {nodes} came: {cure}raise min_nodes and quorum, or set aggregation to median"
        )


def _strategy(settings: FederationConfig, nodes: int, choose: Choose) -> FedAvg:
    common = {"weighted_by_key": WEIGHT, "train_metrics_aggr_fn": choose}
    malicious = settings.malicious
    if settings.aggregation == "median":
        return FedMedian(**common)
    if settings.aggregation == "trimmed":
        # Flower cuts ⌊share · nodes⌋ at each end; the quarter keeps rounding from making that one less.
        return FedTrimmedAvg(**common, beta=(malicious + 0.25) / nodes)
    if settings.aggregation == "krum":
        return Krum(**common, num_malicious_nodes=malicious)
    return MultiKrum(**common, num_malicious_nodes=malicious, num_nodes_to_select=nodes - malicious)
