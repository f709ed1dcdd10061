"""Read sets: what a run has read, and which commits make it stale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber import MISSING, Int64, MutationCtx, define_table, field, v
from camber.database import DatabaseReader, Read, RunState
from camber.database.catalog import TableInfo
from camber.database.ranges import after_prefix, equal_range
from camber.database.reads import IntervalTree, ReadIndex, Touched, part_ends
from camber.storage import BY_ID, Timestamp
from camber.values import key_of
from tests.database.playground import Playground, playground
from tests.values.strategies import any_floats, any_values

BACKERS = (
    define_table("backers", v.any())
    .index("by_tier_username", ["tier", "username"])
    .index("by_email", ["email"], unique=True)
)
OTHERS = define_table("others", v.any())


@pytest.fixture
def world() -> Iterator[Playground]:
    with playground(BACKERS, OTHERS) as opened:
        yield opened


class Reader:
    """A run that has read something; it is told once when that is no longer so."""

    def __init__(self, world: Playground, body: Callable[[DatabaseReader], object]) -> None:
        database = world.backend.engine.database
        with database.snapshot() as snapshot:
            transaction = database.transaction(snapshot)
            body(DatabaseReader(RunState(transaction, database.cursors)))
        self.reads: Sequence[Read] = transaction.reads
        self.times_told = 0
        assert database.feed.watch(self, transaction.timestamp)

    def became_stale(self, timestamp: Timestamp) -> None:
        self.times_told += 1

    @property
    def is_stale(self) -> bool:
        return self.times_told > 0


def gold(username: str) -> dict[str, object]:
    return {"tier": "gold", "username": username}


def silver(username: str) -> dict[str, object]:
    return {"tier": "silver", "username": username}


def test_a_commit_inside_a_range_that_was_read_makes_it_stale_and_one_outside_does_not(world: Playground) -> None:
    reader = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").collect())

    world.insert("backers", silver("ada"))
    world.insert("others", gold("ada"))
    assert not reader.is_stale

    world.insert("backers", gold("ada"))
    assert reader.is_stale


@pytest.mark.parametrize("edge", [255, 65_535])
def test_a_range_between_two_round_numbers_is_no_prefix(world: Playground, edge: int) -> None:
    """The keys behind 255 and 511 differ in their next-to-last byte only: as prefixes they would end inside a number."""
    between = [field("tier") > Int64(edge), field("tier") <= Int64(2 * edge + 1)]
    reader = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", *between).collect())

    world.insert("backers", {"tier": Int64(edge)})
    assert not reader.is_stale
    world.insert("backers", {"tier": Int64(edge + 1)})
    assert reader.is_stale


def test_many_different_ranges_of_one_value_are_all_found(world: Playground) -> None:
    world.insert("backers", *(gold(f"user{number:02d}") for number in range(40)))

    def first(count: int) -> Callable[[DatabaseReader], object]:
        return lambda db: db.query("backers").with_index("by_tier_username", tier="gold").take(count)

    readers = [Reader(world, first(count)) for count in range(1, 40)]
    world.insert("backers", gold("user19a"))

    assert [reader.is_stale for reader in readers] == [count > 20 for count in range(1, 40)]


def test_a_run_is_told_once(world: Playground) -> None:
    reader = Reader(world, lambda db: (db.query("backers").collect(), db.query("others").collect()))

    world.write(lambda ctx: (ctx.db.insert("backers", gold("ada")), ctx.db.insert("others", {})))
    world.insert("backers", gold("bob"))

    assert reader.times_told == 1


def test_a_change_that_moves_a_document_out_of_a_range_makes_it_stale(world: Playground) -> None:
    [ada] = world.insert("backers", gold("ada"))
    golden = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").collect())
    silvern = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="silver").collect())
    bronze = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="bronze").collect())

    world.write(lambda ctx: ctx.db.patch(ada, {"tier": "silver"}))

    assert (golden.is_stale, silvern.is_stale, bronze.is_stale) == (True, True, False)


def test_a_change_to_a_field_that_is_not_indexed_is_seen_through_every_index(world: Playground) -> None:
    [ada] = world.insert("backers", gold("ada"))
    readers = [
        Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").first()),
        Reader(world, lambda db: db.query("backers").with_index("by_id", _id=ada).first()),
        Reader(world, lambda db: db.query("backers").first()),
        Reader(world, lambda db: db.get(ada)),
    ]

    world.write(lambda ctx: ctx.db.patch(ada, {"note": "hello"}))

    assert all(reader.is_stale for reader in readers)


@pytest.mark.parametrize(
    "write",
    [
        lambda ctx, id: ctx.db.patch(id, {}),
        lambda ctx, id: ctx.db.patch(id, {"tier": "gold"}),
        lambda ctx, id: ctx.db.replace(id, gold("ada")),
        lambda ctx, id: (ctx.db.patch(id, {"tier": "silver"}), ctx.db.patch(id, {"tier": "gold"})),
        lambda ctx, _: ctx.db.delete(ctx.db.insert("backers", gold("bob"))),
    ],
    ids=["empty patch", "same value", "same document", "there and back", "inserted and deleted"],
)
def test_a_mutation_that_changes_nothing_in_the_end_makes_nothing_stale(
    world: Playground, write: Callable[[MutationCtx, str], object]
) -> None:
    [ada] = world.insert("backers", gold("ada"))
    reader = Reader(world, lambda db: db.query("backers").collect())

    world.write(lambda ctx: write(ctx, ada))

    assert not reader.is_stale


def test_looking_for_an_id_in_vain_is_reading_it(world: Playground) -> None:
    [ada] = world.insert("backers", gold("ada"))
    world.write(lambda ctx: ctx.db.delete(ada))
    reader = Reader(world, lambda db: db.get(ada))

    world.insert("backers", gold("ada"))

    assert not reader.is_stale


def test_the_first_of_a_range_depends_on_what_comes_before_it_but_not_on_what_comes_after(world: Playground) -> None:
    def first() -> Reader:
        return Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").first())

    world.insert("backers", gold("m"))
    reader = first()
    world.insert("backers", gold("z"))
    assert not reader.is_stale
    world.insert("backers", gold("a"))
    assert reader.is_stale


def test_the_last_of_a_range_depends_on_what_comes_after_it_but_not_on_what_comes_before(world: Playground) -> None:
    world.insert("backers", gold("m"))
    query = lambda db: db.query("backers").with_index("by_tier_username", tier="gold").order("desc")  # noqa: E731
    reader = Reader(world, lambda db: query(db).first())

    world.insert("backers", gold("a"))
    assert not reader.is_stale
    world.insert("backers", gold("z"))
    assert reader.is_stale


def test_an_iteration_that_is_broken_off_has_read_as_far_as_it_came(world: Playground) -> None:
    world.insert("backers", *(gold(name) for name in "bdfh"))

    def two(db: DatabaseReader) -> None:
        for document in db.query("backers").with_index("by_tier_username", tier="gold"):
            if document["username"] == "d":
                break

    reader = Reader(world, two)
    world.insert("backers", gold("e"))
    assert not reader.is_stale
    world.insert("backers", gold("c"))
    assert reader.is_stale


def test_a_filter_depends_on_every_document_it_looked_at(world: Playground) -> None:
    world.insert("backers", *(gold(name) for name in "bdf"))
    search = lambda db: db.query("backers").with_index("by_tier_username", tier="gold").filter(field("username") == "d")  # noqa: E731
    first, every = Reader(world, lambda db: search(db).first()), Reader(world, lambda db: search(db).collect())

    world.insert("backers", gold("e"))
    assert (first.is_stale, every.is_stale) == (False, True)
    world.insert("backers", gold("a"))
    assert first.is_stale


def test_a_range_that_found_too_little_depends_on_all_of_it(world: Playground) -> None:
    world.insert("backers", gold("a"))
    reader = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").take(2))

    world.insert("backers", gold("z"))

    assert reader.is_stale


def test_counting_depends_on_the_range_it_counted(world: Playground) -> None:
    reader = Reader(world, lambda db: db.query("backers").with_index("by_tier_username", tier="gold").count())

    world.insert("backers", silver("ada"))
    assert not reader.is_stale
    world.insert("backers", gold("ada"))
    assert reader.is_stale


def test_a_page_depends_on_its_own_stretch_only(world: Playground) -> None:
    world.insert("backers", *(gold(name) for name in "bdf"))
    query = lambda db: db.query("backers").with_index("by_tier_username", tier="gold")  # noqa: E731
    reader = Reader(world, lambda db: query(db).paginate({"numItems": 2, "cursor": None}))

    world.insert("backers", gold("e"))
    assert not reader.is_stale
    world.insert("backers", gold("c"))
    assert reader.is_stale


def test_looking_into_a_table_that_is_not_there_yet_depends_on_its_creation(world: Playground) -> None:
    reader = Reader(world, lambda db: db.query("later").collect())
    other = Reader(world, lambda db: db.query("never").collect())

    world.insert("later", {})

    assert reader.is_stale
    assert other.is_stale  # creating a table touches all of them: coarse, but never wrong


def test_a_result_whose_reads_were_touched_since_its_snapshot_is_not_taken_up(world: Playground) -> None:
    database = world.backend.engine.database
    with database.snapshot() as snapshot:
        transaction = database.transaction(snapshot)
        DatabaseReader(RunState(transaction, database.cursors)).query("backers").collect()
        world.insert("backers", gold("ada"))

        class Late:
            reads: Sequence[Read] = transaction.reads

            def became_stale(self, timestamp: Timestamp) -> None: ...

        assert not database.feed.watch(Late(), transaction.timestamp)


# The structures, against the plain comparison

TABLE = TableInfo(10_001, define_table("t", v.any()).index("by_a_b", ["a", "b"]), {"by_a_b": 1})


@given(
    st.lists(any_values() | st.just(MISSING), min_size=2, max_size=2), any_floats(), st.binary(min_size=16, max_size=16)
)
def test_the_parts_of_a_key_end_where_one_field_ends_and_the_next_begins(
    values: list[Any], creation_time: float, internal: bytes
) -> None:
    document = {name: value for name, value in zip("ab", values, strict=True) if value is not MISSING}
    key = TABLE.keys_of(document, creation_time, internal, 1_000_000)[0][1]
    first, second = (len(key_of(value)) for value in values)

    assert list(part_ends(key)) == [first, first + second, len(key) - 16, len(key)]


def test_the_key_of_an_id_is_one_part() -> None:
    key = b"\x07kg27rxfv99gzp01wmph0gvt92d6hnvy6\x00"

    assert list(part_ends(key)) == [len(key)]


@st.composite
def some_keys(draw: st.DrawFn) -> bytes:
    """Full keys of by_a_b; few different values, so that they often share their first parts."""
    few = st.sampled_from(
        ["", "a", "a\0", "a\0b", ["a"], [["a"], "b"], {"": 1.0}, {"a": "b"}, {"a\x1f": []}, None, 1.0, b"\0", MISSING]
    )
    document = {name: value for name in "ab" if (value := draw(few)) is not MISSING}
    internal = draw(st.sampled_from([b"\x00" * 16, b"\xff" * 16, b"\x80" + b"\x00" * 15]))
    return TABLE.keys_of(document, draw(st.sampled_from([0.0, 1.0, -1.0])), internal, 1_000_000)[0][1]


@st.composite
def some_reads(draw: st.DrawFn) -> Read:
    key = draw(some_keys())
    ends = [0, *part_ends(key)]
    match draw(st.sampled_from(["equal", "whole", "between", "narrowed"])):
        case "equal":
            return Read(10_001, 1, *equal_range([draw(st.sampled_from(["a", "a\0", ["a"], 1.0, MISSING, {"a": "b"}]))]))
        case "whole":
            return Read(10_001, 1, b"", None)
        case "between":
            lower, upper = sorted((key[: draw(st.sampled_from(ends))], draw(some_keys())))
            return Read(10_001, 1, lower, draw(st.sampled_from([upper, None])))
        case _:
            prefix = key[: draw(st.sampled_from(ends))]
            lower, upper = draw(st.sampled_from([(prefix, key + b"\0"), (key, after_prefix(prefix)), (key, key)]))
            return Read(10_001, 1, lower, upper, prefix)


@given(st.lists(some_reads(), max_size=8), st.lists(some_keys(), max_size=3), st.data())
def test_the_index_of_readers_finds_exactly_those_that_comparing_finds(
    reads: list[Read], keys: list[bytes], data: st.DataObject
) -> None:
    index: ReadIndex[int] = ReadIndex()
    sets = {reader: data.draw(st.lists(st.sampled_from(reads), max_size=4)) for reader in range(4)} if reads else {}
    for reader, found in sets.items():
        index.add(reader, found)
    for reader in data.draw(st.sets(st.integers(0, 3))):
        index.remove(reader, sets.pop(reader, []))
    touched = Touched({(10_001, 1): keys})

    assert index.touched_by(touched) == {reader for reader, found in sets.items() if touched.meets(found)}


def test_an_index_of_readers_that_all_left_keeps_nothing() -> None:
    index: ReadIndex[int] = ReadIndex()
    spans = [Read(1, 2, b"\x02", bytes([2, number]), b"\x02") for number in range(40)]
    reads = [Read(1, 1, b"\x02", b"\x03"), Read(1, 1, b"\x02", b"\x09"), Read(2, BY_ID, b"", None), *spans]
    index.add(1, reads)
    index.remove(1, reads)

    assert not any(vars(index).values())


@given(
    st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=2), st.integers(0, 3)), max_size=40),
    st.data(),
)
def test_a_tree_of_intervals_finds_exactly_those_that_hold_a_key(
    intervals: list[tuple[bytes, bytes | None, int]], data: st.DataObject
) -> None:
    tree: IntervalTree[int] = IntervalTree()
    present = set(intervals)
    for lower, upper, reader in intervals:
        tree.add(lower, upper, reader)
    for gone in data.draw(st.lists(st.sampled_from(intervals), max_size=20)) if intervals else []:
        tree.remove(*gone)
        present.discard(gone)
    key = data.draw(st.binary(max_size=3))

    assert len(tree) == len({(lower, upper) for lower, upper, _ in present})
    assert set(tree.containing(key)) == {
        reader for lower, upper, reader in present if key >= lower and (upper is None or key < upper)
    }


@given(st.dictionaries(st.tuples(st.integers(1, 9), st.integers(-1, 9)), st.lists(st.binary(max_size=5), max_size=3)))
def test_what_a_commit_touched_comes_back_from_the_log(keys: dict[tuple[int, int], list[bytes]]) -> None:
    decoded = Touched.decode(Touched(keys, [7]).encode())

    assert {name: list(found) for name, found in decoded.keys.items()} == keys
    assert decoded.tables == {7}


def test_a_commit_of_very_many_keys_says_only_which_tables() -> None:
    many = Touched({(10_001, 1): [b"%100d" % number for number in range(1000)], (10_002, 1): [b"x"]})
    decoded = Touched.decode(many.brief().encode())

    assert (decoded.keys, decoded.tables) == ({}, {10_001, 10_002})
    assert decoded.meets([Read(10_002, 1, b"y", b"z")])
    assert not decoded.meets([Read(10_003, 1, b"", None)])
