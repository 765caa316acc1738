"""What Mixtral's architecture can hold: a base of Llama's shape, and nothing that only looks like it."""

import re
from collections.abc import Iterable
from typing import Any

from transformers import PretrainedConfig

from moehub.errors import MergeError, listed

FFN = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
"""A linear of Llama's FFN → its name in one of Mixtral's experts."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<part>mlp|self_attn)\.(?P<name>\w+)")
EMBEDDINGS = "model.embed_tokens.weight"
_LIKE_MIXTRAL = ("llama", "mistral")
_OTHERS = {
    "qwen2": "its queries, keys and values have biases",
    "qwen3": "it normalises queries and keys",
    "gemma": "it scales embeddings, and its norms multiply by 1 + weight",
    "gemma2": "it scales embeddings, limits logits and has two more norms in each layer",
    "gemma3_text": "it scales embeddings, normalises queries and keys and has two more norms in each layer",
    "phi3": "its linears are joined, and only part of each head is rotated",
    "granite": "it multiplies embeddings, attention, residuals and logits by factors of its own",
    "olmo2": "it normalises queries and keys, and after each part instead of before",
    "smollm3": "some of its layers have no rotary positions",
    "stablelm": "only part of each head is rotated, and its norms subtract the mean",
    "gpt2": "it has learned positions, norms that subtract the mean, and an FFN without a gate",
    "gpt_neox": "only part of each head is rotated, and its FFN has no gate",
}
_LAYER_TENSORS = (
    "input_layernorm",
    "post_attention_layernorm",
    *(f"self_attn.{name}" for name in ATTENTION),
    *(f"mlp.{name}" for name in FFN),
)
_SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "attention_dropout",
)
"""What means the same in the configurations of Llama, Mistral and Mixtral."""
_NOT_WEIGHTS = re.compile(r".*rotary_emb\.inv_freq")
"""Old checkpoints hold what is computed from the configuration."""


def require_like_mixtral(config: PretrainedConfig, names: Iterable[str]) -> None:
    """Refuse a base that Mixtral cannot hold.

    Args:
        config: the base's configuration.
        names: of its tensors.

    Raises:
        MergeError: everything that does not fit.
    """
    kind = config.model_type
    if kind not in _LIKE_MIXTRAL:
        why = _OTHERS.get(kind, "its layers are not those of Llama")
        raise MergeError(
            f"a base of the architecture {kind!r} does not fit into Mixtral's ({why}), expected one like "
            f"{' or '.join(_LIKE_MIXTRAL)}: use --format dense or --format peft, or keep the MoE as it is"
        )
    faults = [*_config_faults(config), *_tensor_faults(config, set(names))]
    if faults:
        raise MergeError(
            listed("this base does not fit into Mixtral's architecture; use --format dense or --format peft:", faults)
        )


def kept_tensors(config: PretrainedConfig) -> list[str]:
    """Return the names of the tensors that Mixtral takes over as they are or with attention changed, in order."""
    layers = [
        f"model.layers.{layer}.{part}.weight"
        for layer in range(config.num_hidden_layers)
        for part in _LAYER_TENSORS
        if not part.startswith("mlp.")
    ]
    head = [] if config.tie_word_embeddings else ["lm_head.weight"]
    return [EMBEDDINGS, *layers, "model.norm.weight", *head]


def mixtral_config(config: PretrainedConfig, *, experts: int, top_k: int) -> dict[str, Any]:
    """Return Mixtral's `config.json` for a base like Llama, with `experts` experts of which `top_k` act on a token.

    Rotary positions are written in the words of transformers 5 and in those of before, which vLLM and llama.cpp read.
    """
    rope = dict(config.rope_parameters)
    theta = rope.pop("rope_theta")
    scaling = None if rope.get("rope_type", "default") == "default" else rope
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        **{key: getattr(config, key) for key in _SAME},
        "head_dim": config.head_dim or config.hidden_size // config.num_attention_heads,
        # Llama ignores a window that its configuration may hold.
        "sliding_window": config.sliding_window if config.model_type == "mistral" else None,
        "num_local_experts": experts,
        "num_experts_per_tok": top_k,
        "router_aux_loss_coef": 0.0,
        "rope_parameters": {**rope, "rope_theta": theta},
        "rope_theta": theta,
        "rope_scaling": scaling,
    }


def _config_faults(config: PretrainedConfig) -> list[str]:
    rotated = (config.rope_parameters or {}).get("partial_rotary_factor", 1.0)
    return [
        sentence
        for found, sentence in (
            (config.hidden_act != "silu", f"its FFN uses {config.hidden_act!r}, Mixtral's silu"),
            (getattr(config, "attention_bias", False), "its attention has biases, Mixtral's has none"),
            (getattr(config, "mlp_bias", False), "its FFN has biases, Mixtral's has none"),
            (rotated != 1.0, f"it rotates {rotated:.0%} of each head, Mixtral all of it"),
            (getattr(config, "quantization_config", None), "its weights are quantised: name the full ones with --base"),
        )
        if found
    ]


def _tensor_faults(config: PretrainedConfig, names: set[str]) -> list[str]:
    ffn = {f"model.layers.{layer}.mlp.{name}.weight" for layer in range(config.num_hidden_layers) for name in FFN}
    expected = {*kept_tensors(config), *ffn}
    missing = sorted(expected - names)
    more = sorted(name for name in names - expected - {"lm_head.weight"} if not _NOT_WEIGHTS.fullmatch(name))
    faults = [f"it lacks {missing[0]} ({len(missing)} tensors in all)"] if missing else []
    return faults + ([f"Mixtral has no place for {more[0]} ({len(more)} tensors in all)"] if more else [])
