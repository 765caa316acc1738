"""The sparse layer in C++, for CPUs: compiled on first use for the processor at hand."""
