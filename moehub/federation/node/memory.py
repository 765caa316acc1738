"""What a worker keeps loaded between its tasks: one base, and the text of each contributor."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from moehub import base as bases
from moehub.errors import FederationError
from moehub.experts import adaptation, data, material
from moehub.experts.material import Material
from moehub.experts.packing import Row, keeps_apart
from moehub.experts.settings import TrainConfig
from moehub.federation.messages import Asked
from moehub.federation.node import device
from moehub.federation.node.contributor import base_of
from moehub.federation.settings import NodeConfig


class Loaded:
    """A base that was checked; its model is loaded when it is first needed, and stays on the CPU between tasks."""

    def __init__(self, base: bases.Base, tokenizer: Any, config: TrainConfig) -> None:
        self.base, self.tokenizer, self.config = base, tokenizer, config
        self.tokenizer_digest = bases.tokenizer_digest(tokenizer)
        self.context_length = bases.context_length(base.load_config())

    @cached_property
    def model(self) -> Any:
        """The model, without an adapter."""
        return adaptation.load(self.base, self.config)

    @cached_property
    def joins(self) -> bool:
        """Whether examples may share a row of this model."""
        return keeps_apart(self.model)

    @contextmanager
    def on(self, place: torch.device) -> Iterator[Any]:
        """Yield the model on a device that this process holds meanwhile."""
        model = self.model
        with device.held(place):
            try:
                yield model.to(place)
            finally:
                model.to("cpu")
                gc.collect()  # the Trainer and its optimizer hold each other
                if place.type == "cuda":
                    torch.cuda.empty_cache()


class Heard:
    """A contributor's text, tokenised; its rows are packed when they are first needed."""

    def __init__(self, found: Material, stamp: Any) -> None:
        self.material, self.stamp = found, stamp
        self._rows: dict[bool, tuple[list[Row], list[Row]]] = {}

    def rows(self, *, join: bool) -> tuple[list[Row], list[Row]]:
        """Return the rows to train on and the rows held out."""
        if join not in self._rows:
            self._rows[join] = self.material.rows(join=join)
        return self._rows[join]


class Memory:
    """Empty at first; a base takes the place of another, a text that of its older self."""

    def __init__(self) -> None:
        self._base: Loaded | None = None
        self._known: tuple[str, ...] = ()
        self._texts: dict[tuple[str, ...], Heard] = {}

    def forget(self) -> None:
        """Let go of everything: after a failure nobody knows what state it is in."""
        self._base, self._known, self._texts = None, (), {}

    def base(self, task: Asked, contributor: NodeConfig, config: TrainConfig) -> Loaded:
        """Return the base that a task asks for, from where the contributor keeps it.

        Raises:
            BaseModelError: there is none.
            FederationError: it is another one.
        """
        wanted = (contributor.base, task.base, task.revision, task.digest, task.tokenizer, config.dtype)
        if self._base is None or self._known != wanted:
            self._base, self._known = None, ()
            found = base_of(contributor, task.base, task.revision)
            tokenizer = found.load_tokenizer()
            loaded = Loaded(found, tokenizer, config)
            _same("base", bases.weights_digest(found.folder), task.digest, found)
            _same("base's tokenizer", loaded.tokenizer_digest, task.tokenizer, found)
            self._base, self._known = loaded, wanted
        return self._base

    def text(self, loaded: Loaded, contributor: NodeConfig, config: TrainConfig) -> Heard:
        """Return the contributor's text; it is read again where a file or a setting changed.

        Raises:
            ConfigError: the settings do not fit the base.
            DataError: it cannot be trained on.
        """
        times = [(path.stat().st_mtime_ns, path.stat().st_size) for path in contributor.data if path.is_file()]
        stamp = (
            loaded.tokenizer_digest,
            times,
            loaded.context_length,
            *(getattr(config, name) for name in ("context_length", "holdout", "holdout_tokens", "too_long")),
        )
        key = tuple(map(str, contributor.data))
        if key not in self._texts or self._texts[key].stamp != stamp:
            self._texts.pop(key, None)
            examples = data.read(contributor.data)
            prepared = material.prepare(loaded.tokenizer, examples, config, longest=loaded.context_length)
            self._texts[key] = Heard(prepared, stamp)
        return self._texts[key]


def _same(what: str, mine: str, asked: str, found: bases.Base) -> None:
    if mine != asked:
        raise FederationError(
            f"the {what} of this node ({found.reference}) has digest {mine[:12]}, the federation trains on "
            f"{asked[:12]}: name the right one with --base"
        )
