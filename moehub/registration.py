"""Tell transformers about MoE folders as soon as somebody imports its auto classes."""

from types import ModuleType
from typing import Any

import wrapt


def register_when_imported() -> None:
    """Register the MoE's configuration and model with transformers, now or when it is imported."""
    wrapt.register_post_import_hook(_register_config, "transformers.models.auto.configuration_auto")
    wrapt.register_post_import_hook(_register_model, "transformers.models.auto.modeling_auto")


def _register_config(auto: ModuleType) -> None:
    from moehub.merge.configuration import MoehubConfig

    auto.AutoConfig.register(MoehubConfig.model_type, MoehubConfig, exist_ok=True)


def _register_model(auto: ModuleType) -> None:
    from moehub.merge.configuration import MoehubConfig

    # The auto classes ask a model class for its name and these two attributes. The model itself imports them,
    # so it cannot be imported here: this may run in the middle of its own import.
    class MoehubForCausalLM:
        config_class = MoehubConfig

        @classmethod
        def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
            from moehub.merge.model import MoehubForCausalLM as Model

            return Model.from_pretrained(*arguments, **options)

    auto.AutoModelForCausalLM.register(MoehubConfig, MoehubForCausalLM, exist_ok=True)
