"""The MoE as a transformers model."""

from transformers import GenerationMixin, PreTrainedModel

from moehub.merge.configuration import MoehubConfig


class MoehubForCausalLM(PreTrainedModel, GenerationMixin):
    """Base, stacked experts and gate."""

    config_class = MoehubConfig
