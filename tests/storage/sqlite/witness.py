"""Commits at random whose every outcome is remembered, to be compared with what a storage holds after a failure."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import apsw

from camber.errors import CommitUnknownError, StorageError
from camber.storage import RowWrite, Storage, Timestamp
from tests.storage.people import (
    BY_EMAIL,
    BY_NAME,
    Person,
    commit,
    deleting,
    everyone,
    inserting,
    last_timestamp,
    rows,
    updating,
)

State = dict[int, Person]


class Witness:
    """Commits to a storage at random, and remembers what each commit should have left and what became of it."""

    def __init__(self, storage: Storage, random: Random) -> None:
        self.storage, self._random = storage, random
        self.acknowledged = last_timestamp(storage)
        self.states: dict[Timestamp, State] = {self.acknowledged: people_in(storage)}
        self.in_doubt: Timestamp | None = None

    def commit(self) -> None:
        """One commit; what the storage raises is passed on."""
        before = self.states[self.acknowledged]
        writes, after = changes(before, self._random)
        at = Timestamp(self.acknowledged + 1)
        self.states[at] = after
        try:
            self.acknowledged = commit(self.storage, *writes)
        except CommitUnknownError:
            self.in_doubt = at
            raise
        except StorageError:
            del self.states[at]
            raise

    def check(self, storage: Storage) -> None:
        """The storage holds what was acknowledged, whole, with or without the one commit in doubt, and nothing else."""
        last = last_timestamp(storage)
        assert last in {self.acknowledged, self.in_doubt}
        log = [row.timestamp for row in storage.commits_after(min(self.states))]
        assert log == [at for at in self.states if min(self.states) < at <= last]
        people = self.states[last].values()
        for index in (0, BY_NAME, BY_EMAIL):
            assert everyone(storage, index) == sorted(rows(people, index), key=lambda row: row.key)


def people_in(storage: Storage) -> State:
    """Everyone who is there, by number."""
    found = [(int(row.id), json.loads(row.document)) for row in everyone(storage)]
    return {number: Person(number, fields["name"], fields.get("email"), fields["note"]) for number, fields in found}


def changes(before: State, random: Random) -> tuple[list[RowWrite], State]:
    """What one commit does, and the state after it. Some documents are long enough to fill several pages."""
    after, writes = dict(before), list[RowWrite]()
    for _ in range(random.randrange(1, 6)):
        number = random.randrange(40)
        person = Person(
            number, f"name {random.randrange(9)}", f"{number}@{random.random()}", "x" * random.choice([5, 9000])
        )
        if number not in before and number not in after:
            writes.append(inserting(person))
        elif number in before and before[number] is after.get(number):
            if random.random() < 0.3:
                writes.append(deleting(before[number]))
                del after[number]
                continue
            writes.append(updating(before[number], person))
        else:
            continue
        after[number] = person
    return writes, after


def assert_sound(folder: Path) -> None:
    """Tables and indexes of the file agree with each other."""
    connection = apsw.Connection(str(folder / "camber.sqlite3"))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
