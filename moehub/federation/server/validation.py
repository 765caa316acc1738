"""What a node says is checked before anything is done with it: a reply is accepted whole, or refused with the reason.

torch is not imported here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import RecordDict

from moehub.card import check_name
from moehub.errors import ExpertError, FederationError
from moehub.federation import messages
from moehub.federation.form import Form
from moehub.federation.messages import Counted, Description, Evaluated, Sent, Trained, TrainTask
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import A, Array, Weights

DEFAULT_CONTEXT = 1024
"""Longest row, in tokens, where the settings name none."""
_MOST = 1 << 40
"""A node with more tokens, examples or seconds than this is making them up."""
_MOST_FEATURES = 4096
_LARGEST_FEATURE = 127
"""Features are int8."""
_LONGEST = 64
_MOST_LOSS = 1e4
_KINDS = ("pretrain", "sft")
Plain = Mapping[str, np.ndarray[Any, Any]]


def described(found: RecordDict, form: Form, settings: FederationConfig) -> Description:
    """Return what a node says about itself.

    Raises:
        FederationError: it cannot take part, with the reason.
    """
    said = messages.facts(Description, found)
    for name, text in (("name", said.name), ("device", said.device), ("version", said.version)):
        if len(text) > _LONGEST or not text.isprintable():
            raise FederationError(f"its {name} is {text!r:.80}, expected at most {_LONGEST} printable characters")
    _require_base(said.digest, form)
    try:
        check_name("domain", said.domain)
    except ExpertError as error:
        raise FederationError(f"its {error}") from error
    if settings.domains and said.domain not in settings.domains:
        raise FederationError(
            f"its domain is {said.domain!r}, expected one of {', '.join(settings.domains)}: "
            "start it with another --domain, or name the domain in the federation's `domains`"
        )
    _check_rank(said.rank, settings)
    return said


def trained(
    found: RecordDict, task: TrainTask, form: Form, settings: FederationConfig, *, rank: int
) -> tuple[Trained, Weights]:
    """Return a node's training and its weights, of the rank that it announced.

    Raises:
        FederationError: anything about it is not as the task asked for.
    """
    said = messages.facts(Trained, found)
    _require_task(said.task, task.task)
    _require_base(said.digest, form)
    most = task.steps * settings.train.batch_size * (settings.train.context_length or DEFAULT_CONTEXT)
    _require("rank", said.rank, said.rank == rank, f"{rank}, as it announced")
    _require("tokens", said.tokens, 1 <= said.tokens <= most, f"between 1 and {most}, which are all of its steps")
    _require("examples", said.examples, 1 <= said.examples <= _MOST, "at least 1, and no absurd number")
    _require("kind", said.kind, said.kind in _KINDS, " or ".join(_KINDS))
    _require("loss", said.loss, 0 <= said.loss <= _MOST_LOSS, "a finite number of nats")
    _require("seconds", said.seconds, 0 <= said.seconds <= _MOST, "a finite number, 0 or more")
    shapes = {name: shape for name, shape in form.shapes(rank).items() if not (task.frozen_a and name.endswith(A))}
    return said, _weights(messages.sent(found), shapes)


def evaluated(found: RecordDict, task: str, form: Form, settings: FederationConfig) -> Evaluated:
    """Return the losses that a node measured.

    Raises:
        FederationError: they are no losses, or not those of the task.
    """
    said = messages.facts(Evaluated, found)
    _require_task(said.task, task)
    _require_base(said.digest, form)
    most = settings.train.holdout_tokens
    _require("tokens", said.tokens, 0 <= said.tokens <= most, f"between 0 and holdout_tokens = {most}")
    if said.tokens:
        for name, loss in (("base_loss", said.base_loss), ("expert_loss", said.expert_loss)):
            _require(name, loss, 0 <= loss <= _MOST_LOSS, "a finite number of nats")
    return said


def counted(found: RecordDict, task: str, form: Form, settings: FederationConfig) -> tuple[Counted, Plain]:
    """Return a node's router statistics as they are stored: counts by index, and sums of features where asked for.

    Raises:
        FederationError: they are no counts, not of this base, or not those of the task.
    """
    said = messages.facts(Counted, found)
    _require_task(said.task, task)
    _require_base(said.digest, form)
    _require("tokenizer", said.tokenizer, said.tokenizer == form.base.tokenizer, f"{form.base.tokenizer[:12]}…")
    _require("vocabulary", said.vocabulary, said.vocabulary == form.vocabulary, str(form.vocabulary))
    for name in ("pair_bits", "triple_bits"):
        bits, asked = getattr(said, name), getattr(settings.train, name)
        _require(name, bits, bits == asked, str(asked))
    _require("suppressed_below", said.suppressed_below, 0 <= said.suppressed_below <= _MOST, "0 or more")
    sent = messages.sent(found)
    sizes = {"unigrams": said.vocabulary, "pairs": 1 << said.pair_bits}
    if said.triple_bits:
        sizes["triples"] = 1 << said.triple_bits
    names = {f"{name}.{part}" for name in sizes for part in ("index", "count")}
    if said.recipe and settings.train.features:
        names |= {"features.sum", "features.gram"}
    _require_names(sent, names)
    if said.recipe:
        _require("recipe", said.recipe, settings.train.features, "none: the federation asks for no features")
    arrays = {name: values for name, size in sizes.items() for name, values in _counts(sent, name, size, said).items()}
    totals = {name: int(arrays[f"{name}.count"].sum()) for name in sizes}
    if said.suppressed_below == 0:
        tokens = totals["unigrams"]
        _require("pairs", totals["pairs"], totals["pairs"] <= tokens, "fewer than its tokens")
        triples = totals.get("triples", tokens)
        _require("triples", triples, triples == tokens, f"{tokens}, as many as its tokens")
    if said.recipe:
        arrays |= _features(sent, said)
    return said, arrays


def _weights(sent: Mapping[str, Sent], shapes: Mapping[str, tuple[int, int]]) -> Weights:
    _require_names(sent, set(shapes))
    for name, shape in shapes.items():
        found = sent[name]
        if found.shape != shape or found.dtype != np.dtype("<f4"):
            raise FederationError(
                f"its tensor {name} is {found.dtype} of shape {found.shape!r:.80}, expected float32 of {shape}"
            )
    values: Weights = {}
    for name in shapes:
        values[name] = _finite(name, sent[name].values())
    return values


def _finite(name: str, values: Array) -> Array:
    if not np.isfinite(values).all():
        raise FederationError(f"its tensor {name} holds values that are not finite: its training diverged")
    return values


def _counts(sent: Mapping[str, Sent], name: str, size: int, said: Counted) -> Plain:
    index, count = sent[f"{name}.index"], sent[f"{name}.count"]
    kinds = (index.dtype, count.dtype) == (np.dtype("<i4"), np.dtype("<i8"))
    if not kinds or len(index.shape) != 1 or index.shape != count.shape or index.shape[0] > size:
        raise FederationError(
            f"its {name} are {index.dtype} {index.shape!r:.40} and {count.dtype} {count.shape!r:.40}, "
            f"expected as many int32 indices as int64 counts, at most {size}"
        )
    indices, counts = index.values(), count.values()
    if len(indices) and not (indices[0] >= 0 and indices[-1] < size and bool((indices[1:] > indices[:-1]).all())):
        raise FederationError(f"the indices of its {name} are not in order between 0 and {size - 1}")
    least = max(1, said.suppressed_below)
    if len(counts) and not (
        counts.min() >= least and counts.max() <= _MOST and float(counts.sum(dtype=float)) <= _MOST
    ):
        raise FederationError(f"its counts of {name} are not all between {least} and {_MOST} tokens together")
    return {f"{name}.index": indices, f"{name}.count": counts}


def _features(sent: Mapping[str, Sent], said: Counted) -> Plain:
    total, gram = sent["features.sum"], sent["features.gram"]
    width = total.shape[0] if total.shape else 0
    square = total.shape == (width,) and gram.shape == (width, width) and 1 <= width <= _MOST_FEATURES
    if not square or {total.dtype, gram.dtype} != {np.dtype("<i8")} or not 0 <= said.features <= _MOST:
        raise FederationError(
            f"its feature sums are of shapes {total.shape!r:.40} and {gram.shape!r:.40} over {said.features} tokens, "
            f"expected int64 [D] and [D, D] with D at most {_MOST_FEATURES}"
        )
    sums, products = total.values(), gram.values()
    bounded = _within(sums, _LARGEST_FEATURE * said.features) and _within(products, _LARGEST_FEATURE**2 * said.features)
    if not bounded or (products != products.T).any():
        raise FederationError(f"its feature sums cannot be sums over {said.features} tokens")
    return {"features.sum": sums, "features.gram": products}


def _within(values: np.ndarray[Any, Any], bound: int) -> bool:
    # Not by abs: that of the smallest integer is negative.
    return bool(-bound <= values.min() and values.max() <= bound)


def _check_rank(rank: int, settings: FederationConfig) -> None:
    if rank and settings.aggregation != "product":
        raise FederationError(
            f"it trains with rank {rank} of its own, which {settings.aggregation} cannot aggregate: "
            "leave its rank out, or run the federation with aggregation: product"
        )
    if not 0 <= rank <= settings.train.rank:
        raise FederationError(f"it trains with rank {rank}, expected at most the federation's {settings.train.rank}")


def _require_task(said: str, asked: str) -> None:
    _require("task", said[:12], said == asked, f"{asked[:12]}, the one that it was sent")


def _require_base(digest: str, form: Form) -> None:
    if digest != form.base.digest:
        raise FederationError(
            f"its base has digest {digest!r:.16}, expected {form.base.digest[:12]} ({form.base.reference}): "
            "give it the federation's base with --base"
        )


def _require_names(sent: Mapping[str, Sent], names: set[str]) -> None:
    missing, unknown = sorted(names - sent.keys()), sorted(sent.keys() - names)
    faults = [f"{each[0]!r:.80} is {how}" for each, how in ((missing, "missing"), (unknown, "unknown")) if each]
    if faults:
        raise FederationError(f"it sent {len(sent)} arrays, expected {len(names)}: {' and '.join(faults)}")


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise FederationError(f"its {name} is {value!r:.60}, expected {expected}")
