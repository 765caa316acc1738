"""The null expert: generic text, counted like anybody's, that stands for "nobody: let the base answer"."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from moehub import files
from moehub.base import Base, tokenizer_digest
from moehub.card import STATISTICS_FILE
from moehub.errors import MergeError
from moehub.experts import data, features, tokens
from moehub.experts.faces import count_generic
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.merge.entrance import admitted
from moehub.merge.lock import Lock
from moehub.merge.plan import Null
from moehub.merge.source import Source
from moehub.router.settings import RouterSettings

NULL_FOLDER = "null"


def make_null(
    reference: str, base: Base | None, *, like: Sequence[Source], router: RouterSettings, hub: str | None = None
) -> Null:
    """Return the null expert from a file of generic text, a folder with statistics, or an expert on a hub.

    Args:
        reference: the file, folder or `org/name[@rev]`.
        base: its tokenizer counts the text; None: only statistics can be given.
        like: experts whose numbers of buckets and features the null's must match.
        router: whether feature sums are needed.
        hub: where `org/name` is.

    Raises:
        AdmissionError: the admission gate refuses the expert.
        DataError: the text cannot be used.
        MergeError: there is no such file, folder or repo.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        if base is None:
            raise MergeError(
                f"--null {reference} is text, which the base's tokenizer counts: name the base with --base"
            )
        return Null(str(path.absolute()), files.sha256(path), _count(path, base, like, router))
    if path.is_dir():
        for folder in (path, path / NULL_FOLDER):
            if (folder / STATISTICS_FILE).is_file():
                return _from_statistics(str(path.absolute()), folder / STATISTICS_FILE)
        raise MergeError(f"--null {reference} is a folder without {STATISTICS_FILE}: give a file of generic text")
    if reference.partition("@")[0].count("/") != 1:
        raise MergeError(f"--null {reference} does not exist, expected a file of generic text, a folder or org/name")
    with tempfile.TemporaryDirectory() as workspace:
        source = admitted(reference, hub=hub, workspace=Path(workspace))
        return _from_statistics(source.pinned, source.expert.folder / STATISTICS_FILE)


def keep_null(moe: Path, lock: Lock) -> Null | None:
    """Return the null expert of a MoE that exists, or None where it has none."""
    if lock.null is None:
        return None
    return Null(lock.null.source, lock.null.sha256, Statistics.load(moe / NULL_FOLDER / STATISTICS_FILE))


def _from_statistics(source: str, path: Path) -> Null:
    return Null(source, files.sha256(path), Statistics.load(path))


def _count(path: Path, base: Base, like: Sequence[Source], router: RouterSettings) -> Statistics:
    tokenizer = base.load_tokenizer()
    documents = [one.seen for one in tokens.encode(tokenizer, data.read([path]))]
    example = _example(like)
    alike = TrainConfig() if example is None else example
    counted = count_generic(
        documents,
        tokenizer=tokenizer_digest(tokenizer),
        vocabulary=len(tokenizer) if example is None else example.vocabulary,
        pair_bits=alike.pair_bits,
        triple_bits=alike.triple_bits,
    )
    if "lda" not in router.method.split("+") or example is None or example.features is None:
        return counted
    embedding = base.load_model().get_input_embeddings().weight
    recipe = features.Recipe.parse(example.features.recipe)
    return dataclasses.replace(counted, features=features.sums(documents, embedding, recipe))


def _example(like: Sequence[Source]) -> Statistics | None:
    """Return some expert's statistics to count alike."""
    return next((source.statistics for source in like if source.statistics is not None), None)
