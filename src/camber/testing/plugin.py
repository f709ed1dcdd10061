"""The pytest plugin: the fixture `backend`, a fresh deployment of the project's application for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from camber.testing.kit import Backend


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The application that `[tool.camber] app` in pyproject.toml names (else `backend/`), on an empty database."""
    # Imported here, so that a project's coverage tool is running when the engine loads its modules.
    from camber.testing.kit import Backend, load_default_application

    with Backend(load_default_application(request.config.rootpath)) as backend:
        yield backend
