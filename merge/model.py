"""The MoE as a transformers model: base, stacked experts and gate.

    model = AutoModelForCausalLM.from_pretrained(moe)     # after `import moehub`
    model.generate(**tokenizer("def add(", return_tensors="pt"))

Shapes: B batch, T tokens, E experts.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from moehub.errors import MergeError, RouterError
from moehub.merge.audition import Audition
from moehub.merge.cache import gate_layer
from moehub.merge.configuration import MoehubConfig
from moehub.merge.load import Parts, load_parts, require_trainable
from moehub.merge.mask import text_mask
from moehub.merge.save import save_parts
from moehub.merge.stack import shelve, stack
from moehub.merge.tuned import TUNED_KEY
from moehub.merge.without import Renumbered, gate_without
from moehub.router.arrow import ArrowGate
from moehub.router.backends import AUTO, BACKENDS, NATIVE, choose
from moehub.router.gate import PosteriorGate, Recorder, Shared
from moehub.router.layer import MoELinear, Routing, Switchboard
from moehub.router.method import NULL
from moehub.router.native.shelf import Shelf
from moehub.router.route import Route
from moehub.router.tuned import TunedGate
from moehub.router.window import GateState, Window


class MoehubForCausalLM(PreTrainedModel, GenerationMixin):
    """A sparse mixture of LoRA experts on a frozen base; one gate decides for all layers."""

    config_class = MoehubConfig
    base_model_prefix = "base"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(
        self,
        config: MoehubConfig,
        *,
        base: PreTrainedModel,
        parts: Parts,
        backend: str = AUTO,
        trainable: bool = False,
        resident: int | None = None,
    ) -> None:
        """Put a MoE together; use `from_pretrained`, which says what the arguments are."""
        config._attn_implementation = base.config._attn_implementation  # noqa: SLF001 (transformers has no public way)
        super().__init__(config)
        self.names: list[str] = [expert.name for expert in parts.experts]
        self.parts = parts
        if trainable:
            require_trainable(parts)
        self.backend, self.backend_reason = choose(
            backend,
            experts=len(self.names),
            rank=max(expert.card.rank for expert in parts.experts),
            dtype=base.dtype,
            device=base.device,
            trainable=trainable,
        )
        self.board = Switchboard(BACKENDS.get(self.backend))
        self.base = base
        self.shelf: Shelf | None = None
        self.sparse_layers: Mapping[str, MoELinear]
        if self.backend == NATIVE:
            self.sparse_layers, self.shelf = shelve(base, parts.adapters, self.board, base.dtype, limit=resident)
        else:
            self.sparse_layers = stack(base, parts.adapters, self.board)
        self.gate: PosteriorGate | ArrowGate | TunedGate = parts.gate.to(base.device)
        has_null = not isinstance(self.gate, ArrowGate) and self.gate.has_null
        self._audition = Audition(base, self.board, experts=len(self.names), has_null=has_null)
        self.generation_config = base.generation_config
        # Our own configuration would make the base's anew at every call, a millisecond each.
        self._text_config = base.config.get_text_config(decoder=True)
        self._forced: str | None = None
        self._absent: str | None = None
        self._recorder: Recorder | None = None
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *_: Any,
        config: MoehubConfig | None = None,
        base_location: str | None = None,
        backend: str = AUTO,
        trainable: bool = False,
        resident: int | None = None,
        tuned: bool = True,
        dtype: torch.dtype | str = "auto",
        device_map: Any = None,
        **others: Any,
    ) -> "MoehubForCausalLM":
        """Return the MoE in a folder or a hub's repo.

        Args:
            pretrained_model_name_or_path: the MoE.
            config: its configuration, where it was read already.
            base_location: where the base is, if not where the MoE says; its digest decides.
            backend: `auto`, or a backend by name; `backend` and `backend_reason` of the model say which it became.
            trainable: whether the experts are to be trained: then they are held as stacked parameters (`A` and `B` of
                the layers in `sparse_layers`), else a CPU reads them from the files that they came in.
            resident: bytes that experts read from files may take in memory at a time; None: all may stay.
            tuned: whether a gate that was tuned is taken as such, or as it was before.
            dtype: of the base and the experts; `auto` as the base was saved.
            device_map: passed to the base.
            others: `revision`, `token`, `cache_dir`, `attn_implementation` and the like, as for any model.

        Raises:
            MergeError: the folder is no MoE, or a part of it is missing or damaged.
            BaseModelError: the base cannot be found, or is not the one the experts were trained on.
            RouterError: the backend that was asked for cannot be used here.
            MergeError: DoRA experts are among those that are to be trained.
        """
        parts = load_parts(str(pretrained_model_name_or_path), base=base_location, tuned=tuned, hub_options=others)
        options = {key: value for key, value in others.items() if key in ("attn_implementation", "max_memory")}
        if device_map is not None:
            options["device_map"] = device_map
        loaded = parts.base.load_model(dtype=dtype if dtype is not None else "auto", **options)
        return cls(
            config or parts.config, base=loaded, parts=parts, backend=backend, trainable=trainable, resident=resident
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Write the MoE's folder: experts and gate as they are in memory now, the base by reference.

        What was not changed since loading is written byte for byte as it was published.
        """
        save_parts(self.parts, self.sparse_layers, self.gate, Path(save_directory))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Return the base's output with every token routed; arguments as for any causal language model.

        Raises:
            RouterError: `inputs_embeds` were given: the gate reads tokens.
        """
        if input_ids is None or inputs_embeds is not None:
            raise RouterError("a MoE routes by tokens: give input_ids, not inputs_embeds")
        if use_cache is None:
            use_cache = bool(self._text_config.use_cache) and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self._text_config)
        self.board.routing = self._routing(input_ids, attention_mask, past_key_values)
        return self.base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **others,
        )

    @torch.no_grad()
    def trace(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the weight of every expert, and of the null expert (or of nobody) in the last column: [B, T, E + 1].

        The gate alone decides, unless it looks into the layers: then a whole forward is needed, and the
        weights are means over them.
        """
        experts = len(self.names)
        if self._forced is None and isinstance(self.gate, ArrowGate):
            self._recorder = Recorder(self._placed(self.gate))
            try:
                self(input_ids, attention_mask, use_cache=False)
                assert self._recorder.total is not None  # noqa: S101 (the forward went through the layers)
                dense = self._recorder.total / self._recorder.calls
            finally:
                self._recorder = None
        else:
            routing = self._routing(input_ids, attention_mask, None)
            dense = routing.route("", input_ids).dense
        nobody = 1 - dense.sum(-1, keepdim=True)
        return torch.cat([dense, nobody], -1).view(*input_ids.shape, experts + 1)

    def window(self, ids: Tensor, mask: Tensor) -> Window:
        """Return tokens as the gate reads them.

        Args:
            ids: int64 [B, T].
            mask: bool [B, T], False for padding.
        """
        return Window(ids, mask, self.base.get_input_embeddings(), self._audition)

    @property
    def was_tuned(self) -> bool:
        """Whether the MoE's gate was tuned, also where it was loaded as it was before."""
        return TUNED_KEY in self.config.router

    @contextlib.contextmanager
    def forced(self, name: str) -> Iterator[None]:
        """Send every token to one expert, or with "null" to the base alone, within a `with` block.

        Raises:
            RouterError: there is no such expert.
        """
        self._require(name, [*self.names, NULL])
        before = self._forced
        self._forced = name
        try:
            yield
        finally:
            self._forced = before

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Be the MoE that `moehub merge --remove` makes, within a `with` block: without the last expert, the base.

        The expert keeps its place in `names` and in what `trace` returns, and gets nothing. The other experts are as
        they are in memory, the gate as the folder's tables make it. A cache belongs to one side of the block.

        Raises:
            RouterError: there is no such expert, or the gate was tuned.
            MergeError: the MoE's folder is gone or was changed.
        """
        self._require(name, self.names)
        if isinstance(self.gate, TunedGate):
            raise RouterError(
                f"the gate was tuned, and {name!r} cannot be taken out of it exactly: load the MoE with tuned=False, "
                "which is its gate before it was tuned"
            )
        if len(self.names) == 1:
            with self.forced(NULL):
                yield
            return
        before = self.gate, self._absent, self._audition
        others = [one for one in self.names if one != name]
        self.gate = gate_without(self.parts.folder, name, others=others).to(self.base.device)
        self._absent = name
        self._audition = self._audition.without(self.names.index(name))
        try:
            yield
        finally:
            self.gate, self._absent, self._audition = before

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the base's embeddings."""
        return self.base.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:  # noqa: ARG002 (part of the signature)
        """Refuse: the experts and the gate belong to this base."""
        raise MergeError("the base of a MoE cannot be changed: its experts were trained on it as it is")

    def get_output_embeddings(self) -> torch.nn.Module | None:
        """Return the base's output layer."""
        return self.base.get_output_embeddings()

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return what the base would want for the next step."""
        return self.base.prepare_inputs_for_generation(input_ids, **kwargs)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave the weights alone: all of them are loaded."""

    def _routing(self, ids: Tensor, attention_mask: Tensor | None, cache: Cache | None) -> Any:
        if self._forced is not None:
            number = None if self._forced == NULL else self.names.index(self._forced)
            return Shared(Route.fixed(number, tokens=ids.numel(), experts=len(self.names), device=ids.device))
        if isinstance(self.gate, ArrowGate):
            return self._recorder or self._placed(self.gate)
        mask = text_mask(ids, attention_mask, past=0 if cache is None else int(cache.get_seq_length()))
        layers = self._text_config.num_hidden_layers
        layer = (
            None if cache is None else gate_layer(cache, self._replay, layers=layers, batch=len(ids), device=ids.device)
        )
        before = None if layer is None else layer.state
        filtered, after = self._filter(ids, mask, before)
        if layer is not None:
            layer.advance(ids, mask, after)
        return self._placed(self.gate.routing(filtered))

    def _placed(self, routing: Routing) -> Routing:
        """Return what the layers are told: they hold every expert, also one that the gate does not know."""
        if self._absent is None:
            return routing
        present = [number for number, name in enumerate(self.names) if name != self._absent]
        return Renumbered(routing, present, experts=len(self.names))

    def _require(self, name: str, expected: list[str]) -> None:
        if name not in expected:
            raise RouterError(f"there is no expert {name!r} in this MoE, expected {', '.join(expected)}")

    def _filter(self, ids: Tensor, mask: Tensor, before: GateState | None) -> tuple[Tensor, GateState]:
        gate = self.gate
        if before is None:
            before = gate.begin(len(ids), ids.device)  # type: ignore[operator]
        learning = torch.is_grad_enabled() and any(table.requires_grad for table in gate.parameters())
        with torch.set_grad_enabled(learning):
            return gate(self.window(ids, mask), before)

    def _replay(self, ids: Tensor, mask: Tensor) -> GateState:
        return self._filter(ids, mask, None)[1]

    def _valid_auto_compile_criteria(self, *_: Any) -> bool:
        """Never compile by itself: a route has as many active pairs as the text wants."""
        return False
