"""Files as options name them: NAME=FILE, repeated for more."""

from pathlib import Path

import click


def read(option: str, given: tuple[str, ...], example: str) -> dict[str, list[Path]]:
    """Return the files of each name.

    Raises:
        click.UsageError: one is no NAME=FILE; the sentence shows the `example`.
    """
    texts: dict[str, list[Path]] = {}
    for one in given:
        name, equals, file = one.partition("=")
        if not equals or not name or not file:
            raise click.UsageError(f"{option} {one!r} is no NAME=FILE, as in {option} {example}")
        texts.setdefault(name, []).append(Path(file))
    return texts
