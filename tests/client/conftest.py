"""A real server for the client, which also takes tokens; where a test fails, its log is shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.auth.issuing import data_url, key_set, rsa
from tests.client.telling import ISSUER, UNHURRIED
from tests.wire.conftest import pytest_runtest_makereport
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application of the wire's tests, with an issuer of tokens."""
    folder = tmp_path_factory.mktemp("applications") / "live_app"
    shutil.copytree(REPOSITORY / "tests/wire/sync_app", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "auth.py").write_text(
        "from camber import Auth, CustomJwt\n\n"
        f"auth = Auth(identities=[CustomJwt({ISSUER!r}, {data_url(key_set(rsa()))!r}, application_id='convex')])\n"
    )
    return folder


@pytest.fixture(scope="session")
def server(
    application: Path, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[RunningServer]:
    """A server that tells clients what went wrong, as in development."""
    env = UNHURRIED | {"CAMBER_DATABASE_URL": new_database()}
    with running_server(application, tmp_path_factory.mktemp("client") / "data", env=env) as running:
        yield running
