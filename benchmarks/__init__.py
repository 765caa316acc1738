"""Benchmarks: each prints a table; `RESULTS.md` keeps the last ones with their machine."""
