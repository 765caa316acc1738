"""The configuration of a MoE: `config.json` of a MoE folder."""

from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig


class MoehubConfig(PretrainedConfig):
    """Base, experts in canonical order, and the router's settings."""

    model_type = "moehub"
    has_no_defaults_at_init = True

    def __init__(
        self,
        *,
        base: dict[str, Any] | None = None,
        base_config: dict[str, Any] | None = None,
        experts: list[dict[str, Any]] | None = None,
        router: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.base = base or {}
        self.base_config = base_config or {}
        self.experts = experts or []
        self.router = router or {}
        super().__init__(**others)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Return the base's own configuration: it decides layers, heads and the KV cache."""
        if not self.base_config:
            return self
        kind = CONFIG_MAPPING[self.base_config["model_type"]]
        return kind.from_dict(dict(self.base_config)).get_text_config(decoder=decoder, encoder=encoder)
