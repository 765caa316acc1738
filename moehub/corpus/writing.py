"""Records back into files, with all of their fields; a file appears whole or not at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moehub import files
from moehub.errors import ConfigError, DataError
from moehub.experts.records import SEPARATOR, Record

ENDINGS = (".jsonl", ".parquet", ".txt")


def check_place(output: Path, sources: Sequence[Path]) -> None:
    """Say before the work begins what would go wrong at its end.

    Raises:
        ConfigError: the output's ending is none that is written, or it is one of the sources, or of the other outputs.
    """
    if output.suffix not in ENDINGS:
        raise ConfigError(f"{output} has the ending {output.suffix!r}, expected one of {', '.join(ENDINGS)}")
    if any(output.resolve() == source.resolve() for source in sources):
        raise ConfigError(f"{output} is named twice, expected a file of its own to write: name another")


def write(output: Path, records: Sequence[Record]) -> None:
    """Write records in the format of the output's ending, in place of what stood there.

    Raises:
        DataError: they do not fit into the format.
    """
    with files.new_file(output) as place:
        if output.suffix == ".parquet":
            _write_rows(place, records, output)
            return
        text = _documents(records, output) if output.suffix == ".txt" else _lines(records)
        place.write_text(text, encoding="utf-8", newline="")


def _lines(records: Sequence[Record]) -> str:
    return "".join(f"{_line(record.value)}\n" for record in records)


def _line(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a character in a field that nobody learns from
        return json.dumps(value, default=str)
    return line


def _documents(records: Sequence[Record], output: Path) -> str:
    texts: list[str] = []
    for record in records:
        text = record.value.get("text")
        if not isinstance(text, str) or len(record.value) > 1:
            raise DataError(
                f"{record.origin} is more than a text, so {output.name} would lose it: write .jsonl instead"
            )
        if SEPARATOR in text:
            raise DataError(
                f"{record.origin} contains {SEPARATOR}, which parts documents in a .txt: write .jsonl instead"
            )
        texts.append(text.strip("\n"))
    return f"\n{SEPARATOR}\n".join(texts) + "\n" * bool(texts)


def _write_rows(place: Path, records: Sequence[Record], output: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = list(dict.fromkeys(name for record in records for name in record.value))
    try:
        columns = {name: [record.value.get(name) for record in records] for name in names}
        parquet.write_table(pa.table(columns), place)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"{output} cannot hold records with such different fields ({error}): write .jsonl instead"
        ) from error
