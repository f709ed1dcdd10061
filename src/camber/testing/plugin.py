"""The pytest plugin: the fixture `backend`, and the application's modules as something that tests can import."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from camber.testing.kit import Backend

# The engine is imported where it is needed: not at all in projects that have nothing to do with it, and where a project's
# coverage tool is running already.


def pytest_configure(config: pytest.Config) -> None:
    """Let tests import the application's modules, wherever pytest was started."""
    finder = _ApplicationOfProject(config.rootpath)
    sys.meta_path.append(finder)
    config.add_cleanup(lambda: sys.meta_path.remove(finder) if finder in sys.meta_path else None)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The application that `[tool.camber] app` in pyproject.toml names (else `backend/`), on an empty database."""
    from camber.testing.kit import Backend, load_default_application

    with Backend(load_default_application(request.config.rootpath)) as backend:
        yield backend


class _ApplicationOfProject:
    """Asked last for modules: one that nobody else finds may be the project's application, which is made importable then."""

    def __init__(self, project: Path) -> None:
        self._project = project

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if "." in fullname or not (self._project / fullname).is_dir():
            return None
        sys.meta_path.remove(self)
        from camber.testing.kit import make_default_importable

        package = make_default_importable(self._project)
        return importlib.util.find_spec(fullname) if package.partition(".")[0] == fullname else None
