"""Every driver's commits are whole, in order, and as the writes say, whatever order those come in."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camber.errors import StorageError
from camber.storage import BY_CREATION_TIME, BY_ID, CommitRow, RowWrite, Storage, Timestamp, UniqueKeyTaken
from tests.storage.people import (
    BY_EMAIL,
    BY_NAME,
    PEOPLE,
    Person,
    commit,
    deleting,
    everyone,
    everyone_in,
    inserting,
    last_timestamp,
    rows,
    updating,
)

ADA = Person(1, "ada", "ada@example.com")
BOB = Person(2, "bob", "bob@example.com")
CYD = Person(3, "cyd")

KEYS_KNOWN = pytest.mark.parametrize("keys_known", [True, False])


def test_a_group_sees_the_state_it_began_with(storage: Storage) -> None:
    at = commit(storage, inserting(ADA))
    group = storage.write_group()

    assert group.timestamp == at
    assert group.lock() == []
    assert group.get(PEOPLE.number, ADA.id) == ADA.row(None)
    assert everyone_in(group, BY_NAME) == rows([ADA], BY_NAME)
    assert group.count(PEOPLE.number, BY_NAME, b"", None) == 1
    group.close()


def test_a_group_without_commit_leaves_nothing(storage: Storage) -> None:
    before = last_timestamp(storage)
    storage.write_group().close()

    assert last_timestamp(storage) == before


def test_a_group_is_closed_by_its_commit(storage: Storage) -> None:
    group = storage.write_group()
    group.commit([inserting(ADA)], CommitRow(Timestamp(group.timestamp + 1), b"", b""))

    with pytest.raises(StorageError, match="closed"):
        group.get(PEOPLE.number, ADA.id)
    with pytest.raises(StorageError, match="closed"):
        group.commit([], CommitRow(Timestamp(group.timestamp + 2), b"", b""))
    group.close()
    commit(storage, inserting(BOB))


def test_the_log_tells_the_commits_after_a_timestamp(storage: Storage) -> None:
    start = last_timestamp(storage)
    first = commit(storage, inserting(ADA), touched=b"keys of ada", token=b"1")
    second = commit(storage, touched=b"nothing", token=b"2")

    both = [CommitRow(first, b"keys of ada", b"1"), CommitRow(second, b"nothing", b"2")]
    assert storage.commits_after(start) == both
    assert storage.commits_after(first) == both[1:]
    assert storage.commits_after(second) == []


def test_old_commits_are_forgotten_but_never_the_last_of_them(storage: Storage) -> None:
    """Whoever has seen the last of the old ones has missed nothing: it tells them so by being there."""
    first, second, third = (commit(storage, token=token) for token in (b"1", b"2", b"3"))
    assert first < second

    storage.forget_commits(third)
    assert [row.timestamp for row in storage.commits_after(Timestamp(0))] == [second, third]

    storage.forget_commits(Timestamp(third + 1000))
    assert [row.timestamp for row in storage.commits_after(Timestamp(0))] == [third]
    assert last_timestamp(storage) == third


def test_the_timestamp_can_be_raised_but_not_lowered(storage: Storage) -> None:
    at = commit(storage, inserting(ADA))

    assert storage.raise_timestamp(Timestamp(at - 1)) == at
    assert storage.raise_timestamp(Timestamp(at + 1000)) == at + 1000
    assert last_timestamp(storage) == at + 1000
    assert commit(storage) == at + 1001
    assert everyone(storage) == rows([ADA])


@pytest.mark.parametrize("step", [0, -1])
def test_a_commit_at_no_later_timestamp_is_refused(storage: Storage, step: int) -> None:
    group = storage.write_group()
    with pytest.raises(StorageError, match="can't follow"):
        group.commit([inserting(ADA)], CommitRow(Timestamp(group.timestamp + step), b"", b""))

    assert everyone(storage) == []


@KEYS_KNOWN
def test_an_update_moves_a_row_in_every_order(storage: Storage, keys_known: bool) -> None:
    commit(storage, inserting(ADA), inserting(BOB))
    later = ADA.but(name="zoe", email="zoe@example.com", note="renamed")
    commit(storage, updating(ADA, later, keys_known=keys_known))

    assert everyone(storage, BY_NAME) == rows([BOB, later], BY_NAME)
    assert everyone(storage, BY_EMAIL) == rows([BOB, later], BY_EMAIL)
    assert everyone(storage, BY_CREATION_TIME) == rows([later, BOB], BY_CREATION_TIME)
    commit(storage, inserting(Person(9, "new", ADA.email)))


@KEYS_KNOWN
def test_an_update_of_the_document_alone_leaves_its_keys(storage: Storage, keys_known: bool) -> None:
    commit(storage, inserting(ADA))
    commit(storage, updating(ADA, ADA.but(note="hello"), keys_known=keys_known))

    assert everyone(storage, BY_EMAIL) == rows([ADA.but(note="hello")], BY_EMAIL)
    with pytest.raises(UniqueKeyTaken):
        commit(storage, inserting(Person(9, "new", ADA.email)))


def test_a_unique_key_that_is_there_fails_the_commit_as_a_whole(storage: Storage) -> None:
    commit(storage, inserting(ADA))
    before = last_timestamp(storage)

    with pytest.raises(UniqueKeyTaken) as taken:
        commit(storage, inserting(CYD), inserting(Person(4, "other ada", ADA.email)))

    assert (taken.value.table, taken.value.index) == (PEOPLE.number, BY_EMAIL)
    assert everyone(storage) == rows([ADA])
    assert last_timestamp(storage) == before
    commit(storage, inserting(CYD))


def test_rows_that_lack_a_field_are_not_unique(storage: Storage) -> None:
    commit(storage, inserting(CYD), inserting(Person(4, "cyd")))

    assert len(everyone(storage)) == 2


@KEYS_KNOWN
def test_rows_may_swap_their_unique_keys(storage: Storage, keys_known: bool) -> None:
    commit(storage, inserting(ADA), inserting(BOB), inserting(CYD))
    swapped = [ADA.but(email=BOB.email), BOB.but(email=ADA.email), CYD.but(email="cyd@example.com")]
    commit(storage, *(updating(*pair, keys_known=keys_known) for pair in zip([ADA, BOB, CYD], swapped, strict=True)))

    assert everyone(storage) == rows(swapped)


def test_a_unique_key_may_move_to_a_new_row_in_any_order_of_writes(storage: Storage) -> None:
    commit(storage, inserting(ADA), inserting(BOB))
    heirs = [Person(8, "heir of ada", ADA.email), Person(9, "heir of bob", BOB.email)]
    poor_bob = BOB.but(email=None)
    commit(storage, *map(inserting, heirs), deleting(ADA), updating(BOB, poor_bob))

    assert everyone(storage) == rows([poor_bob, *heirs])


def test_a_row_that_is_written_twice_ends_as_the_last_write_says(storage: Storage) -> None:
    commit(storage, inserting(ADA), inserting(BOB), inserting(CYD))
    new, again = Person(7, "new"), BOB.but(name="bob again", email=None)
    commit(
        storage,
        inserting(new),
        updating(new, new.but(name="newer")),
        updating(ADA, ADA.but(name="x")),
        updating(ADA.but(name="x"), ADA.but(name="y", email="y@example.com")),
        deleting(BOB),
        inserting(again),
        updating(CYD, CYD.but(name="gone")),
        deleting(CYD),
        inserting(Person(8, "never")),
        deleting(Person(8, "never")),
    )

    expected = [ADA.but(name="y", email="y@example.com"), again, new.but(name="newer")]
    for index in (BY_CREATION_TIME, BY_NAME, BY_EMAIL):
        assert everyone(storage, index) == sorted(rows(expected, index), key=lambda row: row.key)


@pytest.mark.parametrize("write", [updating(CYD, CYD.but(note="x")), deleting(CYD)], ids=["update", "delete"])
def test_a_write_to_a_row_that_is_not_there_fails_the_commit(storage: Storage, write: RowWrite) -> None:
    with pytest.raises(StorageError, match="not there"):
        commit(storage, inserting(ADA), write)

    assert everyone(storage) == []


def test_an_id_that_is_there_already_fails_the_commit(storage: Storage) -> None:
    commit(storage, inserting(ADA))
    with pytest.raises(StorageError, match="already there"):
        commit(storage, inserting(BOB), inserting(Person(1, "impostor")))

    assert everyone(storage) == rows([ADA])


def test_a_write_to_a_table_that_is_not_there_fails_the_commit(storage: Storage) -> None:
    with pytest.raises(StorageError, match="10999"):
        commit(storage, inserting(ADA), inserting(ADA, 10_999))

    assert everyone(storage) == []


@pytest.mark.parametrize(
    "document",
    [
        '{"a":"\\u0000","b":"é\U0001f600\\ud7ff"}',
        '{"n":-9223372036854775808}',
        '{"x":' + "[" * 63 + "]" * 63 + "}",
        "{}",
    ],
)
def test_a_document_comes_back_bit_for_bit(storage: Storage, document: str) -> None:
    """Also one of 64 levels, as deep as a value may be; the database refuses documents of more than 16."""
    commit(storage, inserting(ADA)._replace(document=document))

    found = storage.snapshot().get(PEOPLE.number, ADA.id)
    assert found is not None
    assert found.document == document


def test_keys_of_two_thousand_bytes_are_kept(storage: Storage) -> None:
    long = Person(5, "n" * 1_900, "e" * 1_900)
    commit(storage, inserting(long), inserting(ADA))

    assert everyone(storage, BY_EMAIL) == rows([ADA, long], BY_EMAIL)


PEOPLE_TO_BE = st.builds(
    Person, st.integers(0, 9), st.sampled_from(["a", "b", "aa"]), st.sampled_from([None, "x", "y", "z"])
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(st.tuples(PEOPLE_TO_BE, st.booleans(), st.booleans()), max_size=8), max_size=8))
def test_any_sequence_of_groups_leaves_what_a_dictionary_would(storage: Storage, groups: list) -> None:
    commit(storage, *(deleting(Person(int(row.id), "")) for row in everyone(storage)))
    model: dict[int, Person] = {}
    for group in groups:
        writes, after = _as_writes(group, model)
        try:
            commit(storage, *writes)
        except UniqueKeyTaken:
            assert _holds_an_email_twice(after)
        else:
            assert not _holds_an_email_twice(after)
            model = after
        for index in (BY_CREATION_TIME, BY_NAME, BY_EMAIL):
            assert everyone(storage, index) == sorted(rows(model.values(), index), key=lambda row: row.key)
        assert everyone(storage, BY_ID) == [model[number].row(None) for number in sorted(model)]


def _as_writes(
    group: list[tuple[Person, bool, bool]], before: dict[int, Person]
) -> tuple[list[RowWrite], dict[int, Person]]:
    """Insert who is not there, else delete or update; as the layer above would tell it, keys as of the snapshot."""
    writes: list[RowWrite] = []
    after = dict(before)
    for person, wants_delete, keys_known in group:
        known = after.get(person.number)
        if known is None:
            writes.append(inserting(person))
            after[person.number] = person
        elif wants_delete:
            writes.append(deleting(known))
            del after[person.number]
        else:
            writes.append(updating(known, person, keys_known=keys_known))
            after[person.number] = person
    return writes, after


def _holds_an_email_twice(people: dict[int, Person]) -> bool:
    emails = [person.email for person in people.values() if person.email is not None]
    return len(emails) != len(set(emails))
