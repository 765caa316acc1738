"""What the hub costs.

    python -m benchmarks.hub throughput    a file up and down, against cp + sha256 and a static file server
    python -m benchmarks.hub scale         lists and searches among 10,000 experts
    python -m benchmarks.hub memory        the server's memory while 5 GB go up and down
    python -m benchmarks.hub writers       50 writers of one repo at once
    python -m benchmarks.hub gate          what the admission gate adds to a push

Each takes options of its own: python -m benchmarks.hub throughput --help
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

_NAMES = ("throughput", "scale", "memory", "writers", "gate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark that is named first, with what follows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hub", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=_NAMES)
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser.parse_args(given[:1])
    importlib.import_module(f"benchmarks.hub.{chosen.name}").main(given[1:])


if __name__ == "__main__":
    main()
