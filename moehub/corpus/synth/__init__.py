"""Text to learn from that a model writes: new tasks, harder ones, other words, explanations, and pairs of answers."""
