"""Joint polish: the gate of a MoE, and where asked for its experts, trained on text."""
