"""Which expert: evidence, gates, and the sparse layer that obeys them."""
