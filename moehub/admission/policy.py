"""The gate's thresholds."""

from dataclasses import dataclass

from moehub.card import ADAPTER_WEIGHTS, LARGEST, LARGEST_TEXT, STATISTICS_FILE


@dataclass(frozen=True)
class Policy:
    """How much the gate lets through; `docs/admission.md` says how the defaults were calibrated."""

    most_text_bytes: int = LARGEST_TEXT
    """Bytes of a card, a configuration, a README or a signature."""
    most_weights_bytes: int = LARGEST[ADAPTER_WEIGHTS]
    """Bytes of an adapter's weights."""
    most_statistics_bytes: int = LARGEST[STATISTICS_FILE]
    """Bytes of router statistics."""
    most_rank: int = 256
    """LoRA rank; all experts of a MoE are padded to the largest."""
    most_scale: float = 64.0
    """alpha/r, or alpha/√r where rank-stabilised; common recipes stay below 32."""
    most_vocabulary: int = 1 << 21
    """Token ids that are counted; the largest tokenizers have 2^18."""
    most_pair_bits: int = 24
    """log2 of the buckets that pairs, or triples, are counted in; each expert's take 2^bits · 8 bytes of memory."""
    most_count: int = 1 << 40
    """Tokens of one contributor's text; more are made up."""
    most_update_rms: float = 1.0
    """Root mean square of the entries of s·B·A in one linear, where the base's weights are not at hand."""
    most_update_spread: float = 2.0
    """Largest singular value of s·B·A over √d_out + √d_in, which is the standard deviation of the entries of a random
    matrix that stretches as much; where the base's weights are not at hand. Small bases that adapt at a high rate reach
    0.6, so that both bounds catch no more than what is absurd; the loss on public text says the rest."""
    most_relative_norm: float = 8.0
    """Frobenius norm of s·B·A over that of the base's weight."""
    most_relative_spectrum: float = 16.0
    """Largest singular value of s·B·A over that of the base's weight."""
    canary_tokens: int = 4096
    """Tokens of the public text, and of the domain's, that are read; one forward pass each."""
    most_canary_rise: float = 0.25
    """How much higher the loss on public text may be with the expert, as a share of the base's. Good experts that were
    trained hard on a small base reached .22; of a large one, .05 would do."""
    least_domain_gain: float = 0.0
    """How much lower than the base's the loss on text of its domain must be, as a share; it must be lower at all."""
    most_claim_excess: float = 0.2
    """How far the gain that a card claims may lie above twice the one measured, both as shares of a loss; that of good
    experts lay .03 above at most."""
    most_tokens_per_trained: float = 100.0
    """Tokens counted for each token trained on; good experts had 6 at most, a short training on much text has more."""
    most_evenness: float = 0.95
    """Entropy of the tokens over that of as many that are all as frequent; good experts' was .87 at most."""
    neutral_tokens: int = 1024
    """Tokens of generic text, drawn from the null's counts, whose routes are looked at."""
    most_neutral_weight: float = 0.35
    """Mean gate weight that an expert may have on generic text; prose of single packages' documentation had .29, and
    a twin of the null has .5."""
    most_neutral_chosen: float = 0.95
    """Share of the tokens of generic text that an expert may answer; such prose answered up to .85."""
    least_chosen_weight: float = 0.12
    """Mean gate weight from which on that share counts: counts of a few hundred tokens say little and answer to all."""
    most_behind: float = 1.3
    """Nats per token by which another's counts may explain text of its domain better than its own; good experts of
    little text lay up to .87 behind others of the same domain, statistics of other domains 1.6 and more."""
    most_feature_shift: float = 0.5
    """Distance between the mean of its features and the one that its counts imply, in their own standard deviations;
    that of good experts was .31 at most."""
    most_feature_spread: float = 4.0
    """How many times the others' the variance of its features may be, or how many times less; good experts' was 1.9."""
