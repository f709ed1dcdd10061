"""A database in which Camber has nothing yet, and a connection that ends while that is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from camber.errors import ConfigurationError
from camber.storage import open_storage
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Proxy
from tests.storage.people import PEOPLE, Person, commit, create_tables, inserting

STEPS = ["pg_advisory_lock", "CREATE TABLE camber.format", "FROM camber.format", "CREATE OR REPLACE FUNCTION"]


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_is_made_all_the_same(proxy: Proxy, postgres_url: str, tmp_path: Path, step: str, moment: str) -> None:
    strike = (proxy.before if moment == "before" else proxy.after)(step, lambda connection: connection.cut())

    with closing(open_storage(tmp_path / "data", create=True, database_url=proxy.url(postgres_url))) as storage:
        create_tables(storage, PEOPLE)
        commit(storage, inserting(Person(1, "ada", "ada@x")))

    assert strike.struck


def test_who_makes_nothing_does_not_wait(proxy: Proxy, postgres_url: str, tmp_path: Path) -> None:
    url = proxy.url(postgres_url)
    open_storage(tmp_path / "data", create=True, database_url=url).close()
    proxy.before("FROM camber.format", lambda connection: connection.cut())

    with pytest.raises(ConfigurationError, match="can't be used"):
        open_storage(tmp_path / "data", create=False, database_url=url)
