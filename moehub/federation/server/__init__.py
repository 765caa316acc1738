"""The run: who takes part, what each round does, and what is kept of it."""
