"""What the nodes of this machine are called: the journal knows a node that agreed to no name by Flower's id alone."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from moehub.federation.settings import NodeConfig

_LABEL = re.compile(r"node-(\d+)")


class Names:
    """Turns the journal's labels into each node's own name, or its domain and its place in the file.

    A SuperNode writes its id into its log, a new one each time that it is started.
    """

    def __init__(self, logs: Mapping[Path, str]) -> None:
        self._logs = logs
        """Log of a SuperNode → what it is called."""

    def __call__(self, label: str) -> str:
        """Return what a label's node is called here; a label of no node of this machine stays as it is."""
        found = _LABEL.fullmatch(label)
        if found is None:
            return label
        said = re.compile(rf"SuperNode ID: {found[1]}")
        return next((name for log, name in self._logs.items() if said.search(_text(log))), label)


def called(nodes: Sequence[NodeConfig]) -> list[str]:
    """Return what each node is called on its own machine."""
    return [node.name or f"node {place} ({node.domain})" for place, node in enumerate(nodes, 1)]


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
