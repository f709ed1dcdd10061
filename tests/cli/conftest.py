"""Projects for the commands to work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from camber.server import admin_key
from camber.storage import open_storage
from tests.cli.commands import camber, make_project, server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an application and nothing else."""
    return make_project(tmp_path / "library")


@pytest.fixture
def with_data(project: Path) -> Path:
    """A project with a data folder that no server has."""
    return make_data(project)


@pytest.fixture(scope="module", params=["the data alone", "a running server"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a data folder, which the commands open themselves or reach through its server."""
    project = make_data(make_project(tmp_path_factory.mktemp("deployment") / "library"))
    if request.param == "a running server":
        with server(project):
            yield project
    else:
        yield project


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose server tells callers nothing of errors."""
    project = make_project(tmp_path_factory.mktemp("production") / "library")
    with server(project, env={"CAMBER_DEV": "0"}):
        camber(project, "run", "books:add", '{"title": "Dune"}')
        yield project


def make_data(project: Path) -> Path:
    """Give it a data folder as a server leaves it that had nothing to do yet."""
    data = project / ".camber"
    open_storage(data, create=True).close()
    admin_key(data, create=True)
    return project
