"""How good the gate is: every way to route on the same experts, tuned on one text and reported on another."""
