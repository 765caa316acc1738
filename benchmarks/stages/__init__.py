"""What each stage of training is worth on real text: each improves its own held-out number over the one before."""
