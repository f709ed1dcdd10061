"""What the tests of functions share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from camber import Table
from camber.testing import Backend
from tests.database.conftest import unhurried_postgres
from tests.functions.deployments import Functions, deployed

__all__ = ["unhurried_postgres"]

Serve = Callable[..., Backend]
Write = Callable[..., Path]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves functions until the test is over: `serve({path: function}, *tables, **settings)`."""
    with ExitStack() as open_ones:

        def start(functions: Functions, *tables: Table[Any], check: bool = True, **settings: Any) -> Backend:
            return open_ones.enter_context(deployed(functions, *tables, check=check, **settings))

        yield start


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an application's files: `write("shop", **{"tasks.py": "..."})`; gives its folder, in a project of its own."""

    def files(name: str, texts: dict[str, str]) -> Path:
        folder = tmp_path / name
        for file, text in texts.items():
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return folder

    return files


@pytest.fixture
def modules_as_before() -> Iterator[None]:
    """Forgets what a test imported, so that the next test's application of the same name is its own."""
    modules, finders = dict(sys.modules), list(sys.meta_path)
    yield
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.meta_path[:] = finders
