"""Ways to compute the sparse layer, all behind the signature of `loop`."""
