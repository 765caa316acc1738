"""The configuration of a MoE: `config.json` of a MoE folder."""

from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PretrainedConfig


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
        return base_configuration(self.base_config).get_text_config(decoder=decoder, encoder=encoder)


def base_configuration(values: Mapping[str, Any]) -> PretrainedConfig:
    """Return the base's configuration from its `config.json`."""
    # Not at the top: transformers imports this module when it imports its auto classes.
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
