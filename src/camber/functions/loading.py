"""Loading an application from its folder: an import hook of its own, and every problem found reported at once.

The folder is a package without `__init__.py`, imported under its dotted name below the project root, so that a test's ordinary
import gives the very functions that are served, and nothing of it is put on `sys.path`, where its `http.py` would hide Python's.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from camber.errors import CamberError, LoadError
from camber.functions.application import Application
from camber.functions.habits import declared_kind, habit_warnings
from camber.functions.identity_providers import Auth, IdentityProvider
from camber.functions.registration import RegisteredFunction
from camber.functions.wire_names import wire_name
from camber.schema import Schema, Table, define_schema

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_SERVED = frozenset({"schema", "commands", "dashboard"})
"""Modules of the application that hold something else than functions."""

_SKIPPED_FOLDERS = frozenset({"__pycache__", "tests", "node_modules"})
_SKIPPED_FILES = re.compile(r"test_.*|.*_test|conftest")


def load_application(folder: Path) -> Application:
    """The application in this folder. Raises LoadError with every problem that was found, each with its place."""
    root = folder.resolve()
    if not root.is_dir():
        raise LoadError([f"{folder}: there is no such folder. Create an application there, or name another folder."])
    return _load(root, make_importable(root))


def reload_application(folder: Path) -> Application:
    """Load it anew: the modules that are loaded under its name are forgotten first, and put back if the new ones don't load."""
    root = folder.resolve()
    package = _package_name(root)
    before = _take_out(package)
    try:
        return load_application(folder)
    except LoadError:
        _take_out(package)
        sys.modules.update(before)
        parent, _, name = package.rpartition(".")
        if parent in sys.modules and package in before:
            setattr(sys.modules[parent], name, before[package])
        raise


def _take_out(package: str) -> dict[str, ModuleType]:
    """Forget the modules of a package; returns them."""
    names = [name for name in sys.modules if name == package or name.startswith(package + ".")]
    return {name: sys.modules.pop(name) for name in names}


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
    """The dotted name below the project root; under a name of its own where Python or an installed package has that one."""
    project = find_project_root(root)
    parts = root.relative_to(project).parts
    bad = [part for part in parts if not part.isidentifier()]
    if bad:
        raise LoadError(
            [f"{root}: `{bad[0]}` can't be part of a Python package's name. Rename the folder: letters, digits and _."]
        )
    return ".".join((f"application_{parts[0]}", *parts[1:])) if _is_taken(parts[0], project) else ".".join(parts)


def _is_taken(name: str, project: Path) -> bool:
    if name in sys.stdlib_module_names:
        return True
    spec = importlib.machinery.PathFinder.find_spec(name)
    # A folder without __init__.py is a package of anybody's who has it on the path; one of the project is meant itself.
    return spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(project)


def _load(root: Path, package: str) -> Application:
    problems: list[str] = []
    warnings: list[str] = []
    functions: dict[str, RegisteredFunction[..., Any]] = {}
    files = sorted(_files(root, warnings))
    schema = define_schema()
    identities: tuple[IdentityProvider, ...] = ()
    for file in files:
        relative = file.relative_to(root).with_suffix("")
        module = _import(f"{package}.{'.'.join(relative.parts)}", file, root, problems)
        if module is None:
            continue
        tree = _source_tree(file)
        warnings += habit_warnings(file, tree)
        problems += _hidden_functions(file, tree)
        if relative.parts == ("schema",):
            schema = _schema_of(module, file, problems)
        if relative.parts == ("auth",):
            identities = _identities_of(module, file, problems)
        if len(relative.parts) == 1 and relative.name in _NOT_SERVED:
            problems += [
                f"{function.place}: functions in {file.name} are not served. Move {function.__name__} to a module of its own."
                for function in _functions_of(module, tree).values()
            ]
        else:
            module_path = "/".join(wire_name(part) for part in relative.parts)
            _collect(_functions_of(module, tree), module_path, functions, problems)
    if not files:
        problems.append(
            f"{root}: there is no Python file in this folder. An application has a schema.py and modules with functions."
        )
    if problems:
        # A broken module is met again by each that imports it.
        raise LoadError(list(dict.fromkeys(problems)))
    return Application(package, root, schema, functions, tuple(warnings), tuple(files), identities)


def _files(folder: Path, warnings: list[str]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in _SKIPPED_FOLDERS and entry.name.isidentifier():
                yield from _files(entry, warnings)
        elif entry.suffix == ".py" and not _SKIPPED_FILES.fullmatch(entry.stem):
            if entry.stem.isidentifier():
                yield entry
            else:
                warnings.append(
                    f"{entry}: `{entry.stem}` can't be a module's name, so nothing of this file is served. "
                    "Rename it: letters, digits and _."
                )


def _source_tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):  # it could be imported a moment ago: somebody is writing it
        return ast.Module([], [])


def _hidden_functions(file: Path, tree: ast.Module) -> list[str]:
    """Functions that are declared, but lost because another one of the module has the same name in Python."""
    seen: dict[str, int] = {}
    problems: list[str] = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name in seen and declared_kind(node):
            problems.append(
                f"{file}:{node.lineno}: {node.name} is defined a second time, which hides the one in line {seen[node.name]}. "
                "Give one of them another name."
            )
        if declared_kind(node):
            seen[node.name] = node.lineno
    return problems


def _import(name: str, file: Path, root: Path, problems: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except LoadError as error:
        problems += error.problems
    except SyntaxError as error:
        problems.append(f"{error.filename or file}:{error.lineno}: {error.msg}")
    except CamberError as error:
        problems.append(f"{_place(error, file, root)}: {error}")
    except Exception as error:  # noqa: BLE001  whatever a module raises is a problem to show
        problems.append(f"{_place(error, file, root)}: {type(error).__name__}: {error}")
    except SystemExit as error:
        problems.append(f"{file}: the module ended the program while it was imported (SystemExit {error.code}).")
    return None


def _place(error: BaseException, file: Path, root: Path) -> str:
    """The last line of the application's own code on the way to the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file)


def _schema_of(module: ModuleType, file: Path, problems: list[str]) -> Schema:
    found = getattr(module, "schema", None)
    if isinstance(found, Schema):
        return found
    hint = " (a table alone is not enough)" if any(isinstance(value, Table) for value in vars(module).values()) else ""
    problems.append(f"{file}: no `schema` in it{hint}. End the file with: schema = define_schema(…your tables…)")
    return define_schema()


def _identities_of(module: ModuleType, file: Path, problems: list[str]) -> tuple[IdentityProvider, ...]:
    """The providers that auth.py names; none where it has only functions."""
    found = getattr(module, "auth", None)
    if isinstance(found, Auth):
        return tuple(found.identities)
    names = [name for name, value in vars(module).items() if isinstance(value, Auth)]
    if found is not None:
        problems.append(
            f"{file}: `auth` is {_what(found)}. In auth.py that name is for how callers sign in: auth = Auth(identities=[…])"
        )
    elif names:
        problems.append(f"{file}: the Auth is called `{names[0]}`. Call it auth: auth = Auth(identities=[…])")
    return ()


def _what(value: object) -> str:
    return (
        "a function" if isinstance(value, RegisteredFunction) or callable(value) else f"of type {type(value).__name__}"
    )


def _functions_of(module: ModuleType, tree: ast.Module) -> dict[str, RegisteredFunction[..., Any]]:
    """The functions that a module declares itself, by their names; also those that it has a helper make, under the variable's."""
    assigned = {
        node.id
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    found: dict[str, RegisteredFunction[..., Any]] = {}
    for variable, value in vars(module).items():
        if not isinstance(value, RegisteredFunction):
            continue
        function = cast("RegisteredFunction[..., Any]", value)
        is_made = variable in assigned and "<locals>" in function.handler.__qualname__
        if is_made or function.__module__ == module.__name__:
            found[variable] = function
    return found


def _collect(
    declared: Mapping[str, RegisteredFunction[..., Any]],
    module_path: str,
    functions: dict[str, RegisteredFunction[..., Any]],
    problems: list[str],
) -> None:
    for variable, function in declared.items():
        is_made = "<locals>" in function.handler.__qualname__ and not function.has_own_name
        path = f"{module_path}:{wire_name(variable) if is_made else function.name}"
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
    function.path, function.name = path, name
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
            return importlib.util.spec_from_file_location(fullname, file, loader=_SourceLoader(fullname, str(file)))
        return _folder_spec(fullname, place) if place.is_dir() else None


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: compiled files are told apart by the second, which two quick changes can share."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError(f"nothing that was compiled from {path} is to be used")


def _folder_spec(name: str, folder: Path) -> importlib.machinery.ModuleSpec | None:
    if (folder / "__init__.py").is_file():
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec


def make_importable(folder: Path) -> str:
    """Let the application's modules be imported under their dotted names, from now on; returns the package's name.

    Raises LoadError for a folder that can't be a package.
    """
    root = folder.resolve()
    package = _package_name(root)
    present = [
        finder for finder in sys.meta_path if isinstance(finder, _ApplicationFinder) and finder.package == package
    ]
    for finder in present:
        if finder.root != root:
            # Another folder of the same name was loaded before (a second project in one process): its modules make room.
            sys.meta_path.remove(finder)
            _take_out(package)
    if not any(finder.root == root for finder in present):
        sys.meta_path.insert(0, _ApplicationFinder(root, package))
    importlib.invalidate_caches()
    return package
