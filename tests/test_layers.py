"""Imports point one way: from the doors down to values, as the map in docs/explanation draws it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"

# From the ground up. Rooms on one line don't know each other; a room may import what stands on the lines above it.
LAYERS = [
    {"errors", "clock", "durations", "identity", "settings"},
    {"values"},
    {"schema", "storage"},
    {"database"},
    {"functions"},
    {"scheduler", "auth"},
    {"backend"},
    {"server", "sync", "cli", "dashboard", "testing", "client"},
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
DOORS = LAYERS[-1]

# The exceptions, each for its reason.
BESIDE_EACH_OTHER = {
    ("settings", "errors"),  # leaves, of which settings is the least simple: it refuses bad ones with an error
    ("identity", "errors"),
    ("server", "sync"),  # the server mounts the socket
    ("cli", "server"),  # `camber serve` starts it
    ("cli", "client"),  # `camber run --watch` is one
}
# What applications import offers what lies below it, and is itself imported by nothing but applications.
PUBLIC = "camber"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found: dict[str, Path] = {}
    for path in sorted((SOURCE / "camber").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str, *, only_when_loading: bool = False) -> Iterator[str]:
    """The modules of the package that this one names in imports, also those inside functions and under TYPE_CHECKING."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text()), only_when_loading=only_when_loading):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, package)
            if _is_ours(origin):
                # `from camber.values import keys` may name a module; `from camber.values import Int64` does not.
                yield from {name if (name := f"{origin}.{a.name}") in MODULES else origin for a in node.names}


def _statements(tree: ast.AST, *, only_when_loading: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if only_when_loading and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node)):
            continue
        yield node
        yield from _statements(node, only_when_loading=only_when_loading)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _is_ours(name: str) -> bool:
    return name == PUBLIC or name.startswith(f"{PUBLIC}.")


def room_of(module: str) -> str:
    """The part of the map that a module belongs to: `database` for camber.database.reads."""
    if module == "camber.__main__":  # `python -m camber` is the command line
        return "cli"
    return module.split(".")[1] if "." in module else PUBLIC


def may_import(importer: str, imported: str) -> bool:
    """Whether one room may know another."""
    if importer == imported or (importer, imported) in BESIDE_EACH_OTHER:
        return True
    if imported == PUBLIC:
        return False
    if importer == PUBLIC:
        return imported not in DOORS
    return HEIGHT[imported] < HEIGHT[importer]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    upward = {name for name in imports_of(module) if not may_import(room_of(module), room_of(name))}

    assert not upward, f"{module} imports {sorted(upward)}"


def test_every_room_is_on_the_map() -> None:
    rooms = {room_of(module) for module in MODULES} - {PUBLIC}

    assert rooms <= HEIGHT.keys()


# The test kit may: it opens databases of its own.
@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in DOORS - {"testing"}])
def test_a_door_does_not_reach_past_the_backend_for_data(module: str) -> None:
    deep = {name for name in imports_of(module) if room_of(name) in {"database", "storage"}}

    assert not deep, f"{module} imports {sorted(deep)}"


def test_a_storage_driver_is_opened_by_name_only() -> None:
    for module in MODULES:
        for name in imports_of(module):
            driver = ".".join(name.split(".")[:3])
            if driver in {"camber.storage.sqlite", "camber.storage.postgres"}:
                assert module == "camber.storage" or module.startswith(driver), f"{module} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports_of(module, only_when_loading=True)) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " -> ".join(error.args[1]))


def application_modules() -> list[Path]:
    return sorted([*REPOSITORY.glob("apps/**/*.py"), *REPOSITORY.glob("examples/*/backend/*.py")])


@pytest.mark.parametrize("path", application_modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_an_application_imports_camber_and_its_siblings_nothing_deeper(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("camber.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("camber."), f"{path.name} imports {node.module}"
