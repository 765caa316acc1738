"""The one-way import rule of docs/architecture.md, read from the sources."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROOMS = {"experts": "experts", "router": "router", "merge": "merge"}
"""Folder at the top → its place below `moehub`."""
LEVELS = (
    {
        "errors",
        "files",
        "tensorfile",
        "digests",
        "config",
        "console",
        "chat",
        "card",
        "base",
        "ledger",
        "plots",
        "sandbox",
    },
    {"answering", "hub", "signing"},
    {"experts"},
    {"router"},
    {"admission"},
    {"merge"},
    {
        "models",
        "openers",
        "evaluation",
        "attribution",
        "generation",
        "palette",
        "inspection",
        "diagnosis",
        "judging",
        "corpus",
    },
    {"tuning"},
    {"federation"},
    {"hubserver"},
    {"demo"},
    {"cli"},
)
"""A module imports from its own level and the ones before it."""
ABOVE_ALL = {"__init__", "__main__", "registration"}
"""What ties the package together: it runs at import and defers everything else."""


def sources() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the path of every module that is installed."""
    for path in sorted((CHECKOUT / "moehub").rglob("*.py")):
        yield _dotted("moehub", path.relative_to(CHECKOUT / "moehub")), path
    for folder, place in ROOMS.items():
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            yield _dotted(f"moehub.{place}", path.relative_to(CHECKOUT / folder)), path


def _dotted(package: str, path: Path) -> str:
    parts = [*path.parent.parts, *([] if path.stem == "__init__" else [path.stem])]
    return ".".join([package, *parts])


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports, also inside functions; for `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room they reach into"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def level(name: str) -> int | None:
    """Return the level of a module of ours, or None where it has none."""
    parts = name.split(".")
    room = parts[1] if len(parts) > 1 else "__init__"
    return next((number for number, rooms in enumerate(LEVELS) if room in rooms), None)


@pytest.mark.parametrize(("name", "path"), list(sources()))
def test_imports_flow_one_way(name: str, path: Path) -> None:
    """Errors … base < hub < experts < router < merge < evaluation < demo < cli."""
    mine = level(name)
    if mine is None:
        assert path.stem in ABOVE_ALL, f"{name} is on no level: give it one in LEVELS"
        return
    ours = {other for other in imported(path) if other.startswith("moehub.")}
    assert {other for other in ours if (theirs := level(other)) is not None and theirs > mine} == set()


def test_the_levels_are_those_of_the_architecture() -> None:
    """The picture in the docs and the rule in this test are the same."""
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    begin = text.index("    errors, files")
    picture = " ".join(text[begin : text.index("cli\n", begin) + 3].split())
    assert [set(rooms.split(", ")) for rooms in picture.split(" < ")] == list(LEVELS)


@pytest.mark.parametrize("path", [path for folder in ("moehub", *ROOMS, "tests", "benchmarks")
                                  for path in sorted((CHECKOUT / folder).rglob("*.py"))])  # fmt: skip
def test_rooms_are_imported_by_their_installed_names(path: Path) -> None:
    """`import router` would load a second copy here, and somebody else's file elsewhere."""
    tops = {name.split(".")[0] for name in imported(path)}
    assert tops & set(ROOMS) == set()


HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "huggingface_hub", "accelerate", "safetensors", "flwr"}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, path in sources() if name.startswith(("moehub.cli", "moehub.hub", "moehub.base"))],
)
def test_the_command_line_and_the_hubs_load_heavy_libraries_where_they_use_them(name: str, path: Path) -> None:
    """So that `moehub --help` and a wrong option answer at once."""
    top = ast.parse(path.read_text(encoding="utf-8")).body
    found = {
        alias.name.split(".")[0]
        for node in top
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(str(node.module))])
    }
    assert found & HEAVY == set(), name


def test_only_the_hub_clients_and_the_base_speak_to_hubs() -> None:
    """Each library is wrapped in few modules, so that an upgrade touches few."""
    users = {name for name, path in sources() if any(each.startswith("huggingface_hub") for each in imported(path))}
    constants_only = {
        name
        for name, path in sources()
        if (found := {each for each in imported(path) if each.startswith("huggingface_hub")})
        and all(each.startswith("huggingface_hub.constants") for each in found)
    }
    assert users - constants_only <= {"moehub.hub.remote", "moehub.hub.refusals", "moehub.base", "moehub.merge.load"}


def test_only_one_module_draws() -> None:
    """It looks for matplotlib, which is an extra, when a figure is asked for."""
    users = {name for name, path in sources() if any(each.startswith("matplotlib") for each in imported(path))}
    assert users == {"moehub.plots"}


def test_every_package_on_disk_is_installed() -> None:
    """A folder that pyproject forgets would be missing from the wheel."""
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    on_disk = {name if path.stem == "__init__" else name.rpartition(".")[0] for name, path in sources()}
    assert sorted(on_disk) == listed


def test_every_package_has_an_init() -> None:
    """A folder without one would be a namespace package and vanish from the wheel."""
    folders = {path.parent for _, path in sources()}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
