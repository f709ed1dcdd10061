"""What tends to go wrong in queries and mutations, found in the source: time, randomness, files and the network taken directly."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

_TIME = "ctx.now (milliseconds)"
_REPLACEMENTS = {
    "time.time": _TIME,
    "time.time_ns": _TIME,
    "time.sleep": "a time that a document says, or an action",
    "datetime.datetime.now": _TIME,
    "datetime.datetime.utcnow": _TIME,
    "datetime.datetime.today": _TIME,
    "datetime.date.today": _TIME,
    "os.environ": "ctx.env",
    "os.getenv": "ctx.env",
    "os.urandom": "ctx.token() or ctx.uuid() of a mutation",
    "os.system": "an action",
    "uuid.uuid1": "ctx.uuid() of a mutation",
    "uuid.uuid4": "ctx.uuid() of a mutation",
    "secrets": "ctx.token() of a mutation",
    "random": "ctx.random",
    "open": "an action",
    "io.open": "an action",
    "socket": "an action",
    "subprocess": "an action",
    "requests": "an action",
    "httpx": "an action",
    "urllib.request": "an action",
    "aiohttp": "an action",
}
"""By the full name of what is used, or of the class or module that it is from."""

_BUILT_IN = {"open": "open"}
_KINDS = ("query", "mutation")

_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def habit_warnings(file: Path, tree: ast.Module) -> list[str]:
    """A line for each direct use in a query or mutation of this file, naming what to use instead."""
    imported = _BUILT_IN | _imported_names(tree)
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (kind := declared_kind(node)) in _KINDS:
            uses = _Uses({name: full for name, full in imported.items() if name not in _own_names(node)})
            for statement in node.body:
                uses.visit(statement)
            found += [
                f"{file}:{line}: {node.name} is a {kind} and uses {used}; use {instead} instead."
                for line, used, instead in uses.found
            ]
    return found


def declared_kind(node: _FunctionNode) -> str | None:
    """The kind of function that a decorator declares, by its name: `query`, `admin_query(...)`, `query.guarded(...)`."""
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        parts = (_dotted(target) or "").split(".")
        for kind in (*_KINDS, "action"):
            if any(part.endswith(kind) for part in parts):
                return kind
    return None


def _imported_names(node: ast.AST) -> dict[str, str]:
    """The names that imports bind, with what they stand for."""
    names: dict[str, str] = {}
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            for alias in found.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(found, ast.ImportFrom) and found.module and not found.level:
            names |= {alias.asname or alias.name: f"{found.module}.{alias.name}" for alias in found.names}
    return names


def _own_names(function: ast.FunctionDef) -> set[str]:
    """What a function's parameters and assignments call something else."""
    nodes = list(ast.walk(function))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in nodes if isinstance(node, ast.arg)}


class _Uses(ast.NodeVisitor):
    """Collects uses of what has a replacement: line, full name, what to use instead."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.found: list[tuple[int, str, str]] = []

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._note(node):
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:  # the annotation is not evaluated in a function
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        self._note(node)

    def _note(self, node: ast.Name | ast.Attribute) -> bool:
        first, dot, rest = (_dotted(node) or "").partition(".")
        full = self._names.get(first, "") + dot + rest
        for known, instead in _REPLACEMENTS.items():
            if full == known or full.startswith(known + "."):
                self.found.append((node.lineno, full, instead))
                return True
        return False


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := _dotted(node.value)):
        return f"{left}.{node.attr}"
    return None
