"""Every driver reads rows by id and by ranges of any index, in both directions."""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camber.errors import StorageError
from camber.storage import BY_CREATION_TIME, BY_ID, IndexLayout, Row, RowWrite, Storage, TableLayout
from tests.storage.people import (
    BY_EMAIL,
    BY_NAME,
    PEOPLE,
    Person,
    commit,
    create_tables,
    everyone,
    id_key,
    inserting,
    name_key,
    rows,
)

ADA = Person(1, "ada", "ada@example.com")
BOB = Person(2, "bob")
CYD = Person(3, "ada", "cyd@example.com")


@pytest.fixture
def people(storage: Storage) -> Storage:
    commit(storage, inserting(ADA), inserting(BOB), inserting(CYD))
    return storage


def test_a_row_is_found_by_its_id(people: Storage) -> None:
    snapshot = people.snapshot()

    assert snapshot.get(PEOPLE.number, BOB.id) == BOB.row(None)
    assert snapshot.get(PEOPLE.number, "nobody") is None


def test_each_index_has_its_own_order(people: Storage) -> None:
    assert everyone(people, BY_CREATION_TIME) == rows([ADA, BOB, CYD], BY_CREATION_TIME)
    assert everyone(people, BY_NAME) == rows([ADA, CYD, BOB], BY_NAME)
    assert everyone(people, BY_EMAIL) == rows([BOB, ADA, CYD], BY_EMAIL)
    assert everyone(people, BY_ID) == rows([ADA, BOB, CYD], None)


def test_a_range_has_its_lower_bound_in_it_and_its_upper_bound_not(people: Storage) -> None:
    snapshot = people.snapshot()
    lower, upper = ADA.keys[BY_NAME], BOB.keys[BY_NAME]

    assert list(snapshot.scan(PEOPLE.number, BY_NAME, lower, upper)) == rows([ADA, CYD], BY_NAME)
    assert list(snapshot.scan(PEOPLE.number, BY_NAME, upper, None)) == rows([BOB], BY_NAME)
    assert list(snapshot.scan(PEOPLE.number, BY_NAME, upper, lower)) == []


def test_a_prefix_of_a_key_is_a_bound(people: Storage) -> None:
    snapshot = people.snapshot()

    found = snapshot.scan(PEOPLE.number, BY_NAME, name_key("ada"), name_key("ada") + b"\xff")

    assert list(found) == rows([ADA, CYD], BY_NAME)


def test_the_first_rows_of_many_ranges_are_read_in_one_step(people: Storage) -> None:
    snapshot = people.snapshot()
    names = ["bob", "nobody", "ada", "bob"]
    ranges = [(name_key(name), name_key(name) + b"\xff") for name in names]

    def first_of_each(limit: int) -> list[list[Row]]:
        return [list(found) for found in snapshot.first_of_each(PEOPLE.number, BY_NAME, ranges, limit=limit)]

    bob = rows([BOB], BY_NAME)
    assert first_of_each(5) == [bob, [], rows([ADA, CYD], BY_NAME), bob]
    assert first_of_each(1) == [bob, [], rows([ADA], BY_NAME), bob]
    assert first_of_each(5) == [
        bob,
        [],
        rows([ADA, CYD], BY_NAME),
        bob,
    ]  # prepared by now, where that makes a difference
    assert not snapshot.first_of_each(PEOPLE.number, BY_NAME, [], limit=5)
    assert [list(found) for found in snapshot.first_of_each(404, BY_NAME, ranges, limit=5)] == [[]] * 4
    with pytest.raises(StorageError):
        snapshot.first_of_each(PEOPLE.number, 77, ranges, limit=5)


def test_a_descending_scan_begins_at_the_end(people: Storage) -> None:
    snapshot = people.snapshot()

    down = snapshot.scan(PEOPLE.number, BY_NAME, b"", None, descending=True)
    below_bob = snapshot.scan(PEOPLE.number, BY_NAME, b"", BOB.keys[BY_NAME], descending=True, limit=1)

    assert list(down) == rows([BOB, CYD, ADA], BY_NAME)
    assert list(below_bob) == rows([CYD], BY_NAME)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_a_limit_ends_a_scan(people: Storage, limit: int) -> None:
    found = people.snapshot().scan(PEOPLE.number, BY_NAME, b"", None, limit=limit)

    assert list(found) == rows([ADA, CYD, BOB], BY_NAME)[:limit]


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("index", [BY_NAME, BY_ID])
@pytest.mark.parametrize("descending", [False, True])
def test_the_first_rows_are_those_of_a_scan(people: Storage, index: int, limit: int, descending: bool) -> None:
    snapshot = people.snapshot()
    bounds = [
        (b"", None),
        (ADA.keys[BY_NAME] + b"\0", None),
        (b"", id_key(CYD)),
        (id_key(BOB), b"\x08"),
        (b"\x08", None),
    ]

    for lower, upper in bounds:
        found = snapshot.first(PEOPLE.number, index, lower, upper, descending=descending, limit=limit)
        scanned = snapshot.scan(PEOPLE.number, index, lower, upper, descending=descending, limit=limit)
        assert list(found) == list(scanned)


def test_who_has_a_unique_key_is_found_by_it(people: Storage) -> None:
    snapshot = people.snapshot()

    assert list(snapshot.holders(PEOPLE.number, [ADA.email_key])) == [(0, ADA.id)]
    assert list(snapshot.holders(PEOPLE.number, [name_key("nobody@example.com")])) == []
    assert list(snapshot.holders(PEOPLE.number, [None])) == []
    assert list(snapshot.holders(10_999, [ADA.email_key])) == []


def test_who_has_which_of_several_unique_keys_is_told_apart(storage: Storage) -> None:
    indexes = tuple(IndexLayout(number, f"by_{number}", unique=True) for number in (1, 2, 3))
    layout = TableLayout(10_002, "keyed", indexes)
    keys = (b"one", None, b"three")
    create_tables(storage, layout)
    commit(storage, RowWrite(10_002, ADA.id, 1.0, "{}", (b"0", b"1", b"2", b"3"), keys, True))
    snapshot = storage.snapshot()

    assert sorted(snapshot.holders(10_002, keys)) == [(0, ADA.id), (2, ADA.id)]
    assert list(snapshot.holders(10_002, (b"three", b"two", b"one"))) == []
    assert list(snapshot.holders(10_002, (None, None, b"three"))) == [(2, ADA.id)]
    assert list(snapshot.highest_keys(10_002)) == [b"one", b"", b"three"]


def test_the_highest_unique_key_is_the_last_one_in_order(people: Storage) -> None:
    snapshot = people.snapshot()

    assert list(snapshot.highest_keys(PEOPLE.number)) == [CYD.email_key]
    assert list(snapshot.highest_keys(10_999)) == []


def test_counting_a_range_gives_what_a_scan_of_it_yields(people: Storage) -> None:
    snapshot = people.snapshot()

    assert snapshot.count(PEOPLE.number, BY_NAME, b"", None) == 3
    assert snapshot.count(PEOPLE.number, BY_NAME, b"", BOB.keys[BY_NAME]) == 2
    assert snapshot.count(PEOPLE.number, BY_ID, id_key(BOB), None) == 2
    assert snapshot.count(PEOPLE.number, BY_ID, b"\x08", None) == 0


def test_a_table_that_does_not_exist_has_no_rows(people: Storage) -> None:
    snapshot = people.snapshot()

    assert snapshot.get(10_999, ADA.id) is None
    assert list(snapshot.scan(10_999, BY_NAME, b"", None)) == []
    assert list(snapshot.first(10_999, BY_NAME, b"", None, limit=1)) == []
    assert snapshot.count(10_999, BY_ID, b"", None) == 0


def test_an_index_that_does_not_exist_is_an_error(people: Storage) -> None:
    with pytest.raises(StorageError, match=r"people.* has no index 7"):
        people.snapshot().scan(PEOPLE.number, 7, b"", None)


def test_a_closed_snapshot_refuses_to_read(people: Storage) -> None:
    snapshot = people.snapshot()
    scan = snapshot.scan(PEOPLE.number, BY_NAME, b"", None)
    snapshot.close()
    snapshot.close()

    with pytest.raises(StorageError, match="closed"):
        snapshot.get(PEOPLE.number, ADA.id)
    with pytest.raises(StorageError, match="closed"):
        next(scan)


MANY = [Person(number, f"name {number * 7919 % 1000:03d}", note="x" * (number % 300)) for number in range(1500)]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("index", [BY_ID, BY_CREATION_TIME, BY_NAME])
def test_long_scans_are_whole_and_may_end_anywhere(storage: Storage, index: int, descending: bool) -> None:
    commit(storage, *map(inserting, MANY))
    snapshot = storage.snapshot()
    expected = rows(MANY, None) if index == BY_ID else sorted(rows(MANY, index), key=lambda row: row.key)
    if descending:
        expected.reverse()

    assert list(snapshot.scan(PEOPLE.number, index, b"", None, descending=descending)) == expected
    assert list(snapshot.scan(PEOPLE.number, index, b"", None, descending=descending, limit=777)) == expected[:777]
    assert list(islice(snapshot.scan(PEOPLE.number, index, b"", None, descending=descending), 100)) == expected[:100]
    snapshot.close()


def test_scans_may_take_turns(storage: Storage) -> None:
    commit(storage, *map(inserting, MANY))
    snapshot = storage.snapshot()

    up = snapshot.scan(PEOPLE.number, BY_CREATION_TIME, b"", None)
    down = snapshot.scan(PEOPLE.number, BY_CREATION_TIME, b"", None, descending=True)

    assert [row.id for pair in zip(up, down, strict=True) for row in pair] == [
        person.id for pair in zip(MANY, reversed(MANY), strict=True) for person in pair
    ]


def test_documents_of_a_mebibyte_are_read_a_few_at_a_time(storage: Storage) -> None:
    large = [Person(number, "large", note="é" * 500_000) for number in range(40)]
    commit(storage, *map(inserting, large))

    assert everyone(storage) == rows(large)


# Bounds of the order by id can be any bytes: a prefix, a cursor's successor, a key of another kind.
ID_BOUNDS = st.one_of(
    st.binary(max_size=4),
    st.sampled_from([b"\x07", b"\x08", b"\x07\x00", b"\x07\xff", b"\x07a\x00\xff", b"\x07ab\xff\x00\x00"]),
    st.tuples(
        st.text("abc", max_size=4), st.sampled_from([b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\xff", b"\x01"])
    ).map(lambda parts: b"\x07" + parts[0].encode() + parts[1]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lower=ID_BOUNDS, upper=st.none() | ID_BOUNDS, descending=st.booleans())
def test_bounds_of_ids_are_compared_with_the_bytes_of_their_keys(
    some_ids: tuple[Storage, list[str]], lower: bytes, upper: bytes | None, descending: bool
) -> None:
    storage, ids = some_ids
    keys = [b"\x07" + id.encode() + b"\x00" for id in ids]
    end = len(keys) if upper is None else bisect_left(keys, upper)
    expected = ids[bisect_left(keys, lower) : end]

    snapshot = storage.snapshot()
    found = [row.id for row in snapshot.scan(PEOPLE.number, BY_ID, lower, upper, descending=descending)]
    counted = snapshot.count(PEOPLE.number, BY_ID, lower, upper)
    snapshot.close()

    assert (found[::-1] if descending else found) == expected
    assert counted == len(expected)


@pytest.fixture
def some_ids(storage: Storage) -> tuple[Storage, list[str]]:
    """Ids of which some are the beginnings of others."""
    ids = sorted({a + b + c for a in "abc" for b in ("", "a", "b", "c") for c in ("", "a", "bb")})
    people = [Person(number, "") for number in range(len(ids))]
    commit(storage, *(inserting(person)._replace(id=id) for person, id in zip(people, ids, strict=True)))
    return storage, ids


def test_tables_do_not_see_each_others_rows(storage: Storage) -> None:
    others = 10_002
    create_tables(storage, PEOPLE.__class__(others, "others", PEOPLE.indexes))
    commit(storage, inserting(ADA), inserting(BOB, others))
    snapshot = storage.snapshot()

    assert list(snapshot.scan(others, BY_CREATION_TIME, b"", None)) == rows([BOB])
    assert snapshot.get(others, ADA.id) is None
