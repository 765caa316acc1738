"""What a router method is, and the one registration of all of them.

A method turns what contributors published into tables (`solve`, at merge time, float64 or integers, the same
to the bit for the same contributors) and tables into a gate's part (`load`, at run time). Methods of kind
`evidence` say how probable each token is under each expert; they can be joined by `+`. A method of kind
`layer` routes within each linear and stands alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.statistics import Statistics
from moehub.router.settings import RouterSettings

Tables = dict[str, Tensor]
"""Names without the method and the contributor's name → tensors."""

NULL = "null"
"""The name under which the null expert's tables are stored; those of its faces have a number behind it."""


def face(number: int) -> str:
    """Return the name under which the tables of one of the null's faces are stored."""
    return f"{NULL}:{number:03d}"


def is_face(owner: str) -> bool:
    """Return whether tables are the null's or those of one of its faces: no expert's name has a colon."""
    return owner.partition(":")[0] == NULL


@dataclass(frozen=True)
class Contributor:
    """What one expert brings to the gate."""

    name: str
    statistics: Statistics | None
    """None where the expert was published without."""
    adapter: Callable[[], Mapping[str, tuple[Tensor, Tensor]]]
    """Reads the adapter: name of a linear → (A [r, d_in], B [d_out, r])."""


class Method(Protocol):
    """One way to make a gate."""

    name: str
    kind: Literal["evidence", "layer"]
    local: bool
    """Whether a contributor's tables depend on nothing but itself and the null's statistics."""

    def lacks(self, statistics: Statistics | None) -> str | None:
        """Return what the method misses in a contributor's (or the null's) statistics, with the cure, or None."""

    def solve(
        self, contributors: Sequence[Contributor], null: Statistics | None, settings: RouterSettings
    ) -> dict[str, Tables]:
        """Return the tables of each contributor, and of the null expert under `null` where there is one."""

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:
        """Return the part of the gate that the tables make; `names` are the columns in order, null last.

        A part may have several columns in the place of the null's: the gate adds up what they get.
        """


def registered() -> dict[str, Method]:
    """Return every method by name."""
    from moehub.router.arrow import Arrow
    from moehub.router.evidence import Evidence
    from moehub.router.lda import Lda
    from moehub.router.likelihood import Likelihood

    methods: tuple[Method, ...] = (Evidence(), Lda(), Likelihood(), Arrow())
    return {method.name: method for method in methods}


def parse(text: str) -> tuple[Method, ...]:
    """Return the methods that a `--router` value names, in the order of their names.

    Raises:
        RouterError: a name is unknown, appears twice, or cannot be joined with others.
    """
    known, names = registered(), text.split("+")
    for name in names:
        if name not in known:
            raise RouterError(f"there is no router {name!r}, expected {', '.join(known)} or evidence+lda")
    methods = tuple(known[name] for name in sorted(set(names)))
    if len(methods) != len(names):
        raise RouterError(f"--router {text} names a method twice: name each once")
    alone = [method.name for method in methods if method.kind == "layer"]
    if alone and len(methods) > 1:
        raise RouterError(
            f"the router {alone[0]!r} decides in each layer and cannot be joined with others: use it alone"
        )
    return methods


def flatten(method: str, tables: Mapping[str, Tables]) -> dict[str, Tensor]:
    """Return tables under the names they have in `router.safetensors`: method/contributor/part."""
    return {f"{method}/{owner}/{part}": tensor for owner, parts in tables.items() for part, tensor in parts.items()}


def unflatten(method: str, tensors: Mapping[str, Tensor]) -> dict[str, Tables]:
    """Return what `flatten` was given, from a file that may hold other methods too."""
    tables: dict[str, Tables] = {}
    for name, tensor in tensors.items():
        owner_method, owner, part = name.split("/", 2)
        if owner_method == method:
            tables.setdefault(owner, {})[part] = tensor
    return tables
