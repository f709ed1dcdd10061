"""Loading an application from its folder: an import hook of its own, and every problem found reported at once.

The folder is a package without `__init__.py`, imported under its dotted name below the project root, so that a test's ordinary
import gives the very functions that are served, and nothing of it is put on `sys.path`, where its `http.py` would hide Python's.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from camber.errors import CamberError, LoadError
from camber.functions.application import Application
from camber.functions.habits import habit_warnings
from camber.functions.registration import RegisteredFunction
from camber.functions.wire_names import wire_name
from camber.schema import Schema, Table, define_schema

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_SERVED = frozenset({"schema", "commands", "dashboard", "conftest"})
_SKIPPED_FOLDERS = frozenset({"__pycache__", "tests", "node_modules"})


def load_application(folder: Path) -> Application:
    """The application in this folder. Raises LoadError with every problem that was found, each with its place."""
    root = folder.resolve()
    if not root.is_dir():
        raise LoadError([f"{folder}: there is no such folder. Create an application there, or name another folder."])
    package = _package_name(root)
    with _importable(root, package):
        return _load(root, package)


def reload_application(folder: Path) -> Application:
    """Load it anew: the modules that are loaded under its name are forgotten first, and put back if the new ones don't load."""
    root = folder.resolve()
    package = _package_name(root)
    before = {name: module for name, module in sys.modules.items() if name == package or name.startswith(package + ".")}
    for name in before:
        del sys.modules[name]
    try:
        return load_application(folder)
    except LoadError:
        for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[name]
        sys.modules.update(before)
        raise


def application_of(name: str, schema: Schema, functions: dict[str, RegisteredFunction[..., Any]]) -> Application:
    """An application made of values, without a folder. Raises LoadError."""
    problems = [problem for path, function in functions.items() for problem in _bind(path, function)]
    if problems:
        raise LoadError(problems)
    return Application(name, None, schema, functions)


def find_project_root(folder: Path) -> Path:
    """The nearest folder above with a pyproject.toml, else the folder's parent."""
    for candidate in folder.parents:
        if (candidate / "pyproject.toml").is_file():
            return candidate
    return folder.parent


def _package_name(root: Path) -> str:
    parts = root.relative_to(find_project_root(root)).parts
    bad = [part for part in parts if not part.isidentifier()]
    if bad:
        raise LoadError(
            [f"{root}: `{bad[0]}` can't be part of a Python package's name. Rename the folder: letters, digits and _."]
        )
    return ".".join(parts)


def _load(root: Path, package: str) -> Application:
    problems: list[str] = []
    warnings: list[str] = []
    functions: dict[str, RegisteredFunction[..., Any]] = {}
    files = sorted(_files(root))
    schema = define_schema()
    for file in files:
        relative = file.relative_to(root).with_suffix("")
        module = _import(f"{package}.{'.'.join(relative.parts)}", file, problems)
        if module is None:
            continue
        warnings += habit_warnings(file)
        if relative.parts == ("schema",):
            schema = _schema_of(module, file, problems)
        if relative.parts[-1] not in _NOT_SERVED:
            _collect(module, "/".join(wire_name(part) for part in relative.parts), functions, problems)
    if not files:
        problems.append(
            f"{root}: there is no Python file in this folder. An application has a schema.py and modules with functions."
        )
    if problems:
        raise LoadError(problems)
    return Application(package, root, schema, functions, tuple(warnings), tuple(files))


def _files(root: Path) -> Iterator[Path]:
    for entry in root.iterdir():
        if entry.is_dir():
            if entry.name not in _SKIPPED_FOLDERS and entry.name.isidentifier():
                yield from _files(entry)
        elif entry.suffix == ".py" and entry.stem.isidentifier() and not entry.stem.startswith("test_"):
            yield entry


def _import(name: str, file: Path, problems: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except LoadError as error:
        problems += error.problems
    except SyntaxError as error:
        problems.append(f"{error.filename or file}:{error.lineno}: {error.msg}")
    except CamberError as error:
        problems.append(f"{_place(error, file)}: {error}")
    except Exception as error:  # noqa: BLE001  whatever a module raises is a problem to show
        problems.append(f"{_place(error, file)}: {type(error).__name__}: {error}")
    except SystemExit as error:
        problems.append(f"{file}: the module ended the program while it was imported (SystemExit {error.code}).")
    return None


def _place(error: BaseException, file: Path) -> str:
    """The last line of the application's own code on the way to the error."""
    folder = file.parent
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file)


def _schema_of(module: ModuleType, file: Path, problems: list[str]) -> Schema:
    found = getattr(module, "schema", None)
    if isinstance(found, Schema):
        return found
    hint = " (a table alone is not enough)" if any(isinstance(value, Table) for value in vars(module).values()) else ""
    problems.append(f"{file}: no `schema` in it{hint}. End the file with: schema = define_schema(…your tables…)")
    return define_schema()


def _collect(
    module: ModuleType, module_path: str, functions: dict[str, RegisteredFunction[..., Any]], problems: list[str]
) -> None:
    for value in list(vars(module).values()):
        if not isinstance(value, RegisteredFunction) or value.__module__ != module.__name__:
            continue
        function = cast("RegisteredFunction[..., Any]", value)
        path = f"{module_path}:{function.name}"
        if (other := functions.get(path)) is not None:
            if other is not function:
                problems.append(
                    f"{function.place}: the path {path} is taken by the function at {other.place}. Give one of them another name."
                )
            continue
        problems += _bind(path, function)
        functions[path] = function


def _bind(path: str, function: RegisteredFunction[..., Any]) -> list[str]:
    """Give the function its path and read its annotations; returns what is wrong with either."""
    module, _, name = path.partition(":")
    for part in (*module.split("/"), name):
        if not _IDENTIFIER.fullmatch(part) or not part.strip("_"):
            return [
                f"{function.place}: `{part}` in the path {path} is no name: letters, digits and _, at most 64, not a digit first."
            ]
    function.path = path
    try:
        function.resolve()
    except LoadError as error:
        return list(error.problems)
    return []


class _ApplicationFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of one application by their dotted names, and nothing else."""

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root, package

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        own = self.package
        if fullname == own or own.startswith(fullname + "."):
            folder = self.root.parents[own.count(".") - fullname.count(".") - 1] if fullname != own else self.root
            return _folder_spec(fullname, folder)
        if not fullname.startswith(own + "."):
            return None
        place = self.root.joinpath(*fullname[len(own) + 1 :].split("."))
        if (file := place.with_suffix(".py")).is_file():
            return importlib.util.spec_from_file_location(fullname, file)
        return _folder_spec(fullname, place) if place.is_dir() else None


def _folder_spec(name: str, folder: Path) -> importlib.machinery.ModuleSpec | None:
    if (folder / "__init__.py").is_file():
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


@contextmanager
def _importable(root: Path, package: str) -> Generator[None]:
    """Make the application's modules importable, now and for what they import later."""
    present = [
        finder for finder in sys.meta_path if isinstance(finder, _ApplicationFinder) and finder.package == package
    ]
    for finder in present:
        if finder.root != root:
            # Another folder of the same name was loaded before (a second project in one process): its modules make room.
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
                del sys.modules[name]
    if not any(finder.root == root for finder in present):
        sys.meta_path.insert(0, _ApplicationFinder(root, package))
    importlib.invalidate_caches()
    yield
