"""What the federation is worth and what it costs; each module prints a table."""

from moehub.demo import machine


def where() -> str:
    """Return what a table was made on, for RESULTS.md."""
    hardware = ", ".join(f"{name} {value}" for name, value in machine.hardware().items())
    versions = ", ".join(f"{name} {value}" for name, value in machine.versions().items())
    return f"Machine: {hardware}. Versions: {versions}."
