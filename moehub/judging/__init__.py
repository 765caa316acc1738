"""Models that judge: answers, pairs of answers, and each other; and how far a judge can be believed."""
