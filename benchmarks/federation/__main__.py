"""What the federation withstands, loses, costs and carries.

    python -m benchmarks.federation attack     the cosine to the true update with malicious nodes
    python -m benchmarks.federation quality    the loss against pooled training
    python -m benchmarks.federation cost       bytes and seconds of a round against the least there can be
    python -m benchmarks.federation scale      the server's memory with many contributors

Each takes options of its own: python -m benchmarks.federation attack --help
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

_NAMES = ("attack", "quality", "cost", "scale")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark that is named first, with what follows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.federation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=_NAMES)
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser.parse_args(given[:1])
    importlib.import_module(f"benchmarks.federation.{chosen.name}").main(given[1:])


if __name__ == "__main__":
    main()
