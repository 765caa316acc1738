"""Where the demo's seconds go.

python -m benchmarks.road                  runs `moehub demo` in a process of its own, with an empty cache
python -m benchmarks.road demo-output      reads the report of a demo that was run
python -m benchmarks.road --write          puts the table into RESULTS.md too
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "RESULTS.md"
_TITLE = "The road"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="the output of a demo; without it, one is run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    report = _read(options.folder) if options.folder else _run(options.seed)
    print(table(report))
    if options.write:
        keep(_TITLE, section(report))


def table(report: dict[str, Any]) -> str:
    """Return the steps, their seconds and their shares as a table, the slowest first."""
    total = sum(report["seconds"].values())
    rows = sorted(report["seconds"].items(), key=lambda step: -step[1])
    lines = [f"| {step} | {seconds:.2f} | {100 * seconds / total:.1f} |" for step, seconds in [*rows, ("all", total)]]
    return "\n".join(["|step|seconds|%|", "|---|---:|---:|", *lines])


def section(report: dict[str, Any]) -> str:
    """Return the table with what came out, the machine and the versions."""
    machine = ", ".join(f"{name} {value}" for name, value in report["hardware"].items())
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    kept = ", ".join(f"{name} {value:.1f} %" for name, value in report["gain_kept"].items())
    restored = "is" if report["hash_restored"] else "is not"
    moved = f"Added in {report['add_seconds']:.2f} s, removed in {report['remove_seconds']:.2f} s"
    return "\n\n".join(
        [
            f"`python -m benchmarks.road`. Machine: {machine}. Versions: {versions}.",
            table(report),
            f"Gain kept: {kept}. Generic prose: {report['generic_harm']:+.2f} %.",
            f"{moved}; the hash {restored} that of before.",
        ]
    )


def keep(title: str, text: str) -> None:
    """Write a section of RESULTS.md, in place of the last one of that title, and leave the others."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Results\n"
    new = f"## {title}\n\n{text}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", old, re.DOTALL | re.MULTILINE)
    if found is None:
        RESULTS.write_text(f"{old.rstrip()}\n\n{new}", encoding="utf-8")
        return
    before, after = old[: found.start()], old[found.end() :]
    RESULTS.write_text(f"{before}{new}" + (f"\n{after}" if after else ""), encoding="utf-8")


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / "report.json").is_file():
        raise SystemExit(f"{folder} has no report.json, expected the output of a demo: run `moehub demo` first")
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def _run(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "moehub", "demo", "--output", f"{folder}/demo", "--seed", str(seed), "--json"]
        environment = {**os.environ, "HF_HOME": f"{folder}/cache"}
        ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)  # noqa: S603 (our own command)
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


if __name__ == "__main__":
    main()
