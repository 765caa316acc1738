"""The gate's thresholds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How much the gate lets through; `docs/admission.md` says how the defaults were calibrated."""

    most_text_bytes: int = 1 << 20
    """Bytes of a card, a configuration, a README or a signature; thousands of contributors fit."""
    most_weights_bytes: int = 8 << 30
    """Bytes of an adapter's weights; rank 256 on all linears of a base of 70 billion parameters, in two bytes each."""
    most_statistics_bytes: int = 512 << 20
    """Bytes of router statistics; 2^24 pairs that all occur, and features of 4096 dimensions."""
    most_rank: int = 256
    """LoRA rank; all experts of a MoE are padded to the largest."""
    most_scale: float = 64.0
    """alpha/r, or alpha/√r where rank-stabilised; common recipes stay below 32."""
    most_vocabulary: int = 1 << 21
    """Token ids that are counted; the largest tokenizers have 2^18."""
    most_pair_bits: int = 24
    """log2 of the buckets that pairs are counted in; each expert's take 2^pair_bits · 8 bytes of memory."""
    most_count: int = 1 << 40
    """Tokens of one contributor's text; more are made up."""
    most_update_rms: float = 0.25
    """Root mean square of the entries of s·B·A in one linear, where the base's weights are not at hand."""
    most_update_spread: float = 0.5
    """Largest singular value of s·B·A over √d_out + √d_in, which is the standard deviation of the entries of a random
    matrix that stretches as much; where the base's weights are not at hand."""
    most_relative_norm: float = 8.0
    """Frobenius norm of s·B·A over that of the base's weight."""
    most_relative_spectrum: float = 16.0
    """Largest singular value of s·B·A over that of the base's weight."""
