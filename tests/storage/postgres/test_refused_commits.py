"""What a commit that PostgreSQL has refused leaves behind on the connection: nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from camber.storage import RowWrite, Storage, UniqueKeyTaken, open_storage
from tests.storage.people import PEOPLE, Person, commit, create_tables, inserting, updating


@pytest.fixture
def storage(postgres_url: str, tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path / "data", create=True, database_url=postgres_url)) as storage:
        create_tables(storage, PEOPLE)
        yield storage


def refuse(storage: Storage, *writes: RowWrite) -> None:
    with suppress(UniqueKeyTaken):
        commit(storage, *writes)
        raise AssertionError("it was committed")


def test_statements_that_a_refused_commit_had_not_come_to_can_be_run(storage: Storage) -> None:
    """They are sent together, and prepared once they have been run a few times: none may count as prepared that was not."""
    ada, new = Person(1, "ada", "ada@x"), (inserting(Person(n, "new", f"{n}@x")) for n in itertools.count(3))
    commit(storage, inserting(ada))
    commit(storage, inserting(Person(2, "bob", "bob@x")))
    refuse(storage, updating(ada, ada.but(email="bob@x")), next(new))

    for number in range(3):
        before, ada = ada, ada.but(note=f"{number}")
        commit(storage, updating(before, ada), next(new))
        for _ in range(3):
            refuse(storage, updating(ada, ada.but(email="bob@x")), next(new))
