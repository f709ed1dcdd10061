"""The drivers that the contract is held against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from camber.storage import Storage, open_storage
from tests.storage.people import PEOPLE, create_tables


class Place:
    """Where a database lies, so that a test can open it again. Each test has its own."""

    def __init__(self, location: Path, database_url: str = "") -> None:
        self._location, self._database_url = location, database_url
        self._opened: list[Storage] = []

    def open(self) -> Storage:
        storage = open_storage(self._location, create=True, database_url=self._database_url)
        self._opened.append(storage)
        return storage

    def close(self) -> None:
        for storage in self._opened:
            storage.close()


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Place]:
    place = Place(tmp_path / "data", database_url)
    yield place
    place.close()


@pytest.fixture
def storage(place: Place) -> Storage:
    """An open storage with the table of people, which is empty."""
    storage = place.open()
    create_tables(storage, PEOPLE)
    return storage
