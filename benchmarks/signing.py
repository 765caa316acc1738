"""What it costs to sign and to verify an expert of 500 MB, beside one sha256 of it: seconds, and peak memory.

python -m benchmarks.signing
"""

import resource
import tempfile
import time
from pathlib import Path

from moehub import files
from moehub.card import ADAPTER_WEIGHTS, SIGNATURE_FILE
from moehub.signing import keys, signature


def main() -> None:
    """Do each once and print a row for it."""
    with tempfile.TemporaryDirectory() as place:
        key, folder = Path(place, "key"), Path(place, "law")
        public, weights = keys.create(key), folder / ADAPTER_WEIGHTS
        folder.mkdir()
        with weights.open("wb") as file:
            file.truncate(500_000_000)
        started = [time.perf_counter()]
        files.sha256(weights)
        started.append(time.perf_counter())
        text = signature.sign({ADAPTER_WEIGHTS: weights}, repo="acme/law", key=key, workspace=folder)
        started.append(time.perf_counter())
        (folder / SIGNATURE_FILE).write_text(text, encoding="ascii")
        if faults := signature.faults(folder, SIGNATURE_FILE, repo="acme/law", key=public):
            raise SystemExit(f"the signature does not hold: {faults}")
        started.append(time.perf_counter())
    for name, before, after in zip(("sha256", "sign", "verify"), started, started[1:], strict=False):
        print(f"{name:8}{after - before:6.2f} s")
    print(f"memory  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:6} MiB")


if __name__ == "__main__":
    main()
