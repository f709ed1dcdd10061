"""What tends to go wrong in queries and mutations, found in the source: time, randomness, files and the network taken directly."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_REPLACEMENTS = {
    "time.time": "ctx.now (milliseconds)",
    "time.time_ns": "ctx.now (milliseconds)",
    "time.sleep": "an action, or the time a document says",
    "datetime.now": "ctx.now (milliseconds)",
    "datetime.utcnow": "ctx.now (milliseconds)",
    "datetime.datetime.now": "ctx.now (milliseconds)",
    "datetime.datetime.utcnow": "ctx.now (milliseconds)",
    "datetime.date.today": "ctx.now (milliseconds)",
    "date.today": "ctx.now (milliseconds)",
    "os.environ": "ctx.env",
    "os.getenv": "ctx.env",
    "os.urandom": "ctx.token() or ctx.uuid()",
    "uuid.uuid4": "ctx.uuid()",
    "uuid4": "ctx.uuid()",
    "secrets": "ctx.token()",
    "random": "ctx.random",
    "open": "an action",
    "socket": "an action",
    "subprocess": "an action",
    "requests": "an action",
    "httpx": "an action",
    "urllib.request": "an action",
    "aiohttp": "an action",
}
_KINDS = ("query", "mutation")


def habit_warnings(file: Path) -> list[str]:
    """A line for each direct use in a query or mutation, naming what to use instead."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (kind := _kind(node)):
            for line, used, instead in _direct_uses(node):
                found.append(f"{file}:{line}: {node.name} is a {kind} and uses {used}; use {instead} instead.")
    return found


def _kind(node: ast.FunctionDef) -> str | None:
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = _dotted(target)
        for kind in _KINDS:
            if name and name.rsplit(".", 1)[-1].endswith(kind):
                return kind
    return None


def _direct_uses(function: ast.FunctionDef) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "uuid4"):
            yield node.lineno, node.func.id, _REPLACEMENTS[node.func.id]
        if not isinstance(node, ast.Attribute) or not (name := _dotted(node)):
            continue
        if name in _REPLACEMENTS:
            yield node.lineno, name, _REPLACEMENTS[name]
        elif (module := name.split(".", 1)[0]) in (
            "random",
            "secrets",
            "socket",
            "subprocess",
            "requests",
            "httpx",
            "aiohttp",
        ):
            yield node.lineno, name, _REPLACEMENTS[module]


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := _dotted(node.value)):
        return f"{left}.{node.attr}"
    return None
