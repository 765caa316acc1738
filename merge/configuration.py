"""The configuration of a MoE: `config.json` of a MoE folder."""

from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PretrainedConfig

from moehub.base import configuration


class MoehubConfig(PretrainedConfig):
    """Base, experts in canonical order, and the router's settings."""

    model_type = "moehub"

    def __init__(
        self,
        *,
        base: Mapping[str, Any] | None = None,
        base_config: Mapping[str, Any] | None = None,
        experts: list[dict[str, Any]] | None = None,
        router: Mapping[str, Any] | None = None,
        null: bool = False,
        **others: Any,
    ) -> None:
        """Keep the parts.

        Args:
            base: reference, location, revision and digests of the base.
            base_config: the base's own `config.json`.
            experts: name, domain, licence and card digest of each, in canonical order.
            router: the fields of `RouterSettings`.
            null: whether the MoE has a null expert.
            others: what every transformers configuration has.
        """
        self.base = dict(base or {})
        self.base_config = dict(base_config or {})
        self.experts = list(experts or [])
        self.router = dict(router or {})
        self.null = null
        super().__init__(**others)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Return the base's own configuration: it decides vocabulary, layers and the KV cache."""
        if not self.base_config:
            return self
        return configuration(self.base_config).get_text_config(decoder=decoder, encoder=encoder)
