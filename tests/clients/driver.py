"""Convex's own HTTP clients as the tests use them: each in a process of its own, one operation after another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = REPOSITORY / "tests/clients"
PYTHON_07 = REPOSITORY / ".venv/clients/convex-0.7"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client handed to its user: a value, or an error with its message and, for a ConvexError, its data.

    Values and data are Convex-encoded JSON; `has_data` tells data of null from none. `logs` is what the client printed.
    """

    value: Any
    error: str | None
    data: Any
    has_data: bool
    logs: list[str]


class Client:
    """One client of one version, connected to one server."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def query(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.perform("query", path=path, args=args or {})

    def mutation(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.perform("mutation", path=path, args=args or {})

    def action(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.perform("action", path=path, args=args or {})

    def perform(self, call: str, **details: object) -> Outcome:
        """Carry out one operation, see http_client.mjs."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"call": call, **details}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.name} ended with {self._process.wait()}; what it printed is above"
        answer = json.loads(line)
        error = answer.get("error", {})
        return Outcome(answer.get("value"), error.get("message"), error.get("data"), "data" in error, answer["logs"])


def node_client(package: str) -> Callable[[str], list[str]]:
    """The command that runs a version of the JavaScript client against a URL."""
    return lambda url: [shutil.which("node") or "node", str(HERE / "node/http_client.mjs"), package, url]


def python_client(url: str) -> list[str]:
    """The command that runs the Python client against a URL; which version it is, PYTHONPATH says."""
    return [sys.executable, str(HERE / "python_http_client.py"), url]


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "npm newest": node_client("convex"),
    "npm 1.31.6": node_client("convex-1.31.6"),
    "npm 1.17.4": node_client("convex-1.17.4"),
    "pypi newest": python_client,
    "pypi 0.7": python_client,
}
IS_INSTALLED = {
    "npm newest": REPOSITORY / "node_modules/convex",
    "npm 1.31.6": HERE / "node/node_modules/convex-1.31.6",
    "npm 1.17.4": HERE / "node/node_modules/convex-1.17.4",
    "pypi 0.7": PYTHON_07 / "convex",
}


@contextmanager
def running_client(name: str, url: str) -> Iterator[Client]:
    """The client of this name (see COMMANDS) in a process of its own, ended when the block is left."""
    needed = IS_INSTALLED.get(name)
    assert needed is None or needed.exists(), f"{needed} is not there: run scripts/setup first"
    environment = dict(os.environ) | ({"PYTHONPATH": str(PYTHON_07)} if name == "pypi 0.7" else {})
    with subprocess.Popen(
        COMMANDS[name](url), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Client(name, process)
        assert process.stdin
        process.stdin.close()
