"""What an adapter of one base looks like: enough for a server to draw, check and publish one without the base."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moehub import base as bases
from moehub import config
from moehub.card import BasePin
from moehub.errors import ConfigError
from moehub.experts.settings import TrainConfig
from moehub.federation.weights import A, B


@dataclass(frozen=True)
class Form:
    """The base's identity and the linears that carry an adapter."""

    base: BasePin
    vocabulary: int
    """Ids of the base's tokenizer: the length of its token counts."""
    targets: tuple[str, ...]
    """Names of the linears that carry an adapter, as PEFT's `target_modules`."""
    linears: dict[str, list[int]]
    """PEFT's name of each linear, without the factor → [d_in, d_out]."""

    def shapes(self, rank: int) -> dict[str, tuple[int, int]]:
        """Return tensor name → shape of an adapter of this rank, in the order of names."""
        return {
            name: shape
            for linear, (inputs, outputs) in sorted(self.linears.items())
            for name, shape in ((linear + A, (rank, inputs)), (linear + B, (outputs, rank)))
        }

    def to_json(self) -> str:
        """Return the form as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Form":
        """Return the form that `to_json` wrote.

        Raises:
            ConfigError: it is none.
        """
        try:
            values = json.loads(text)
            linears = {str(name): [int(inputs), int(outputs)] for name, (inputs, outputs) in values["linears"].items()}
            pin = config.from_mapping(BasePin, values["base"], source="the form's base")
            return config.from_mapping(cls, {**values, "base": pin, "linears": linears}, source="the form")
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            raise ConfigError(
                f"the adapter's form cannot be read ({error}): make the bundle again with `moehub federate bundle`"
            ) from error


def form_of(base: bases.Base, settings: TrainConfig) -> Form:
    """Return the form of the adapters that `settings` train on `base`; the base's weights are not loaded.

    Raises:
        BaseModelError: it is no causal language model.
        ConfigError: it has no linears of the names in `settings.targets`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from moehub.experts import adaptation

    with adaptation.quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.load_config(), trust_remote_code=False)
        adapted = adaptation.adapt(model, dataclasses.replace(settings, rank=1))
        linears = _linears(adaptation.state(adapted))
    return Form(base.pin(), len(base.load_tokenizer()), adaptation.targets(adapted), linears)


def _linears(tensors: Mapping[str, Any]) -> dict[str, list[int]]:
    return {
        name.removesuffix(A): [tensor.shape[1], tensors[name.removesuffix(A) + B].shape[0]]
        for name, tensor in tensors.items()
        if name.endswith(A)
    }
