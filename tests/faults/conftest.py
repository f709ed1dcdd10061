"""Three servers on one PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.postgres.cluster import Cluster

SERVERS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that the tests of a module may stop and kill, as long as they start it again."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def database(postgres_url: str) -> str:
    """The URL of an empty database, on the PostgreSQL that many tests share; modules that stop theirs say otherwise."""
    return postgres_url


@pytest.fixture
def fleet(database: str, tmp_path: Path) -> Iterator[Fleet]:
    """Servers that were all started at once, on a database that none of them knew."""
    with Fleet(tmp_path, [database] * SERVERS) as fleet:
        yield fleet
