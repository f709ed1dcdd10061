"""Pages: where they end, what their cursors say and hide, and how a page keeps its place while documents come and go."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from camber import MISSING, DatabaseUsageError, Int64, QueryCtx, define_table, field, v
from camber.database import DatabaseReader, RunState
from camber.errors import InvalidCursorError
from tests.database.playground import UNHURRIED, Playground, playground

NUMBERS = define_table("numbers", v.any()).index("by_n", ["n"]).index("by_text", ["text"])
OTHERS = define_table("others", v.any()).index("by_n", ["n"])


@pytest.fixture
def world() -> Any:
    with playground(NUMBERS, OTHERS) as opened:
        yield opened


def fill(world: Playground, *numbers: float) -> None:
    world.insert("numbers", *({"n": n} for n in numbers))


def by_n(ctx: Any) -> Any:
    return ctx.db.query("numbers").with_index("by_n")


def page(
    world: Playground, cursor: str | None = None, num_items: object = 2, query: Any = by_n, **options: object
) -> Any:
    return world.read(lambda ctx: query(ctx).paginate({"numItems": num_items, "cursor": cursor, **options}))


def numbers(found: Any) -> list[float]:
    return [one["n"] for one in found["page"]]


def test_pages_follow_each_other_to_the_end(world: Playground) -> None:
    fill(world, 1, 2, 3, 4, 5)
    first = page(world)
    second = page(world, first["continueCursor"])
    third = page(world, second["continueCursor"])

    assert [(numbers(one), one["isDone"]) for one in (first, second, third)] == [
        ([1, 2], False),
        ([3, 4], False),
        ([5], True),
    ]


def test_a_page_that_the_last_documents_fill_is_not_known_to_be_the_last(world: Playground) -> None:
    fill(world, 1, 2)
    first = page(world)
    second = page(world, first["continueCursor"])

    assert (numbers(first), first["isDone"], numbers(second), second["isDone"]) == ([1, 2], False, [], True)


def test_behind_the_end_there_is_nothing_more(world: Playground) -> None:
    fill(world, 1)
    end = page(world)["continueCursor"]
    fill(world, 2)

    behind = page(world, end)

    assert (numbers(behind), behind["isDone"], behind["continueCursor"]) == ([], True, end)


def test_an_end_cursor_fixes_the_page_whatever_comes_and_goes(world: Playground) -> None:
    fill(world, 1, 3, 5, 7)
    first = page(world)
    fill(world, 2, 4)

    fixed = page(world, None, 1, endCursor=first["continueCursor"], maximumRowsRead=1)
    rest = page(world, first["continueCursor"], 10)

    assert (numbers(fixed), numbers(rest)) == ([1, 2, 3], [4, 5, 7])
    assert fixed["continueCursor"] == first["continueCursor"]
    assert not fixed["isDone"]


def test_an_end_cursor_that_says_the_end_reads_to_the_end(world: Playground) -> None:
    fill(world, 1)
    end = page(world)["continueCursor"]
    fill(world, 2, 3, 4)

    assert numbers(page(world, None, 1, endCursor=end)) == [1, 2, 3, 4]


@pytest.mark.parametrize("descending", [False, True])
def test_a_split_cursor_halves_the_page(world: Playground, descending: bool) -> None:
    fill(world, 1, 2, 3, 4, 5, 6)
    query = (lambda ctx: by_n(ctx).order("desc")) if descending else by_n
    whole = page(world, None, 5, query)
    left = page(world, None, 1, query, endCursor=whole["splitCursor"])
    right = page(world, whole["splitCursor"], 1, query, endCursor=whole["continueCursor"])

    assert numbers(left) + numbers(right) == numbers(whole)
    assert numbers(left)
    assert numbers(right)


@pytest.mark.parametrize(("count", "splits"), [(1, False), (2, False), (3, True)])
def test_a_page_of_two_is_not_worth_splitting(world: Playground, count: int, splits: bool) -> None:
    fill(world, 1, 2, 3)
    assert (page(world, None, count)["splitCursor"] is not None) == splits


def test_a_page_that_reads_its_maximum_is_cut_short(world: Playground) -> None:
    fill(world, 1, 2, 3, 4, 5)
    by_rows = page(world, None, 5, maximumRowsRead=3)
    by_bytes = page(world, None, 5, maximumBytesRead=1)

    assert (numbers(by_rows), by_rows["pageStatus"], by_rows["isDone"]) == ([1, 2, 3], "SplitRequired", False)
    assert (numbers(by_bytes), by_bytes["pageStatus"]) == ([1], "SplitRequired")
    assert numbers(page(world, by_rows["continueCursor"], 5)) == [4, 5]


def test_a_page_near_the_limits_should_be_split_and_one_at_them_must() -> None:
    with playground(NUMBERS, settings=replace(UNHURRIED, documents_read=8)) as world:
        fill(world, *range(20))
        assert page(world, None, 6)["pageStatus"] is None
        assert page(world, None, 7)["pageStatus"] == "SplitRecommended"
        full = page(world, None, 20)

        assert (numbers(full), full["pageStatus"]) == ([float(n) for n in range(8)], "SplitRequired")


def test_a_page_of_very_many_documents_should_be_split(world: Playground) -> None:
    for start in range(0, 7000, 1000):
        fill(world, *range(start, start + 1000))

    assert page(world, None, 6144)["pageStatus"] is None
    assert page(world, None, 6145)["pageStatus"] == "SplitRecommended"


def test_with_a_filter_the_number_is_of_those_that_pass(world: Playground) -> None:
    fill(world, *range(10))
    odd = lambda ctx: by_n(ctx).filter(field("n") % 2 == 1)  # noqa: E731
    first = page(world, None, 3, odd)
    second = page(world, first["continueCursor"], 3, odd)

    assert (numbers(first), first["isDone"], numbers(second), second["isDone"]) == ([1, 3, 5], False, [7, 9], True)


def test_a_filter_that_drops_much_still_ends_at_the_maximum(world: Playground) -> None:
    fill(world, *range(10))
    none = lambda ctx: by_n(ctx).filter(field("n") < 0)  # noqa: E731
    first = page(world, None, 3, none, maximumRowsRead=4)

    assert (numbers(first), first["isDone"], first["pageStatus"]) == ([], False, "SplitRequired")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numItems": 0}, "Must request at least 1 document while paginating"),
        ({"numItems": 32_001}, "Requested too many items: 32001"),
        ({"numItems": -1}, "`options.numItems` must be a positive number. Received `-1`."),
        ({"numItems": 1.5}, "`options.numItems` must be a positive number. Received `1.5`."),
        ({"numItems": float("nan")}, "`options.numItems` must be a positive number. Received `nan`."),
        ({"numItems": float("inf")}, "`options.numItems` must be a positive number. Received `inf`."),
        ({"numItems": "2"}, "`options.numItems` must be a positive number. Received `2`."),
        ({"numItems": True}, "`options.numItems` must be a positive number. Received `True`."),
        ({"numItems": None}, "`options.numItems` must be a positive number. Received `None`."),
        ({"maximumRowsRead": 0}, "`options.maximumRowsRead` must be a positive number. Received `0`."),
        ({"maximumRowsRead": float("inf")}, "`options.maximumRowsRead` must be a positive number. Received `inf`."),
        ({"maximumBytesRead": float("nan")}, "`options.maximumBytesRead` must be a positive number. Received `nan`."),
        ({"cursor": 5}, "A pagination cursor is text that an earlier page gave as `continueCursor`, or None."),
        ({"endCursor": b""}, "A pagination cursor is text that an earlier page gave as `continueCursor`, or None."),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(world: Playground, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DatabaseUsageError) as refused:
        world.read(lambda ctx: by_n(ctx).paginate({"numItems": 2, "cursor": None, **options}))

    assert str(refused.value) == message


def test_a_function_reads_one_page_and_those_it_calls_one_each(world: Playground) -> None:
    fill(world, 1, 2, 3)

    def twice(ctx: QueryCtx) -> None:
        for _ in range(2):
            by_n(ctx).paginate({"numItems": 1, "cursor": None})

    with pytest.raises(DatabaseUsageError, match="Convex only supports a single paginated query in each function"):
        world.read(twice)

    def through_others(ctx: QueryCtx) -> list[list[float]]:
        first = world.read_inside(ctx, lambda inner: by_n(inner).paginate({"numItems": 2, "cursor": None}))
        options = {"numItems": 2, "cursor": first["continueCursor"]}
        return [numbers(first), numbers(world.read_inside(ctx, lambda inner: by_n(inner).paginate(options)))]

    assert world.read(through_others) == [[1, 2], [3]]


# Cursors

ONES: dict[str, Any] = {
    "another table": lambda ctx: ctx.db.query("others").with_index("by_n"),
    "another index": lambda ctx: ctx.db.query("numbers"),
    "another direction": lambda ctx: by_n(ctx).order("desc"),
    "a range": lambda ctx: ctx.db.query("numbers").with_index("by_n", field("n") > 0),
    "a filter": lambda ctx: by_n(ctx).filter(field("n") > 0),
}


@pytest.mark.parametrize("other", ONES.values(), ids=ONES)
def test_a_cursor_of_another_query_is_refused(world: Playground, other: Any) -> None:
    fill(world, 1, 2, 3)
    cursor = page(world, None, 1)["continueCursor"]
    end = page(world, None, 10)["continueCursor"]

    for options in ({"cursor": cursor}, {"cursor": end}, {"cursor": None, "endCursor": cursor}):
        with pytest.raises(InvalidCursorError) as refused:
            world.read(lambda ctx, options=options: other(ctx).paginate({"numItems": 1, **options}))

        assert refused.value.data == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
        assert str(refused.value) == (
            "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a different query."
        )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, Int64(1)),
        (1, "1"),
        (0.0, -0.0),
        (None, MISSING),
        ("x" * 500 + "a", "x" * 500 + "b"),
        ([1] * 50 + ["a"], [1] * 50 + ["b"]),
        (b"a" * 200, b"a" * 199 + b"b"),
    ],
    ids=["int64", "text", "zero", "missing", "long text", "long list", "long bytes"],
)
def test_a_filter_on_another_value_is_another_query(world: Playground, one: object, other: object) -> None:
    fill(world, 1, 2, 3)
    cursor = page(world, None, 1, lambda ctx: by_n(ctx).filter(field("n") != one), maximumRowsRead=1)["continueCursor"]

    with pytest.raises(InvalidCursorError):
        page(world, cursor, 1, lambda ctx: by_n(ctx).filter(field("n") != other))


def test_a_cursor_that_was_changed_is_refused(world: Playground) -> None:
    fill(world, 1, 2, 3)
    cursor = page(world, None, 1)["continueCursor"]
    changed = [
        cursor[:place] + ("A" if letter != "A" else "B") + cursor[place + 1 :]
        for place, letter in enumerate(cursor[:-3])
    ]

    for bad in [
        *changed,
        cursor[:-4],
        cursor + "AAAA",
        cursor + "\0",
        "",
        "A",
        "End",
        "é" * 40,
        "\ud800",
        "A" * 100_000,
    ]:
        with pytest.raises(InvalidCursorError):
            page(world, bad, 1)


def test_a_cursor_does_not_show_the_indexed_values_behind_it(world: Playground) -> None:
    secret = "very secret e-mail address"
    world.insert("numbers", {"text": secret, "n": 1}, {"text": secret, "n": 2}, {"text": "z", "n": 3})
    by_text = lambda ctx: ctx.db.query("numbers").with_index("by_text")  # noqa: E731
    first, second = (page(world, None, count, by_text)["continueCursor"] for count in (1, 2))

    for cursor in (first, second):
        opened = base64.urlsafe_b64decode(cursor)
        assert secret.encode() not in opened
        assert secret not in cursor
    # Two places behind the same text have nothing in common that would tell.
    assert sum(one == other for one, other in zip(first, second, strict=True)) < len(first) // 2


def test_cursors_hold_across_a_restart_and_for_the_longest_keys(world: Playground) -> None:
    texts = ["x" * 1950 + letter for letter in "abc"]
    world.insert("numbers", *({"text": text, "n": 1} for text in texts))
    by_text = lambda ctx: ctx.db.query("numbers").with_index("by_text")  # noqa: E731
    cursor = page(world, None, 1, by_text)["continueCursor"]

    world.restart()

    assert [one["text"] for one in page(world, cursor, 5, by_text)["page"]] == texts[1:]


def test_another_deployment_can_not_read_a_cursor(world: Playground) -> None:
    fill(world, 1, 2, 3)
    cursor = page(world, None, 1)["continueCursor"]
    with playground(NUMBERS, OTHERS) as another:
        fill(another, 1, 2, 3)
        with pytest.raises(InvalidCursorError):
            page(another, cursor, 1)


# The journal: a page that runs again ends where it ended


def journalled(
    world: Playground, journal: str | None, cursor: str | None = None, num_items: int = 2
) -> tuple[Any, str | None]:
    database = world.backend.engine.database
    with database.snapshot() as snapshot:
        state = RunState(database.transaction(snapshot), database.cursors, journal)
        query = DatabaseReader(state).query("numbers").with_index("by_n")
        return query.paginate({"numItems": num_items, "cursor": cursor}), state.journal_out


def test_a_page_that_runs_again_with_its_journal_ends_at_the_same_place(world: Playground) -> None:
    fill(world, 2, 4, 6, 8)
    first, journal = journalled(world, None)
    second, second_journal = journalled(world, None, first["continueCursor"])
    assert (numbers(first), numbers(second)) == ([2, 4], [6, 8])

    fill(world, 1, 3, 5, 7, 9)
    first_again, same = journalled(world, journal)
    second_again, _ = journalled(world, second_journal, first["continueCursor"])

    assert (numbers(first_again), numbers(second_again)) == ([1, 2, 3, 4], [5, 6, 7, 8])
    assert same == journal
    assert first_again["continueCursor"] == first["continueCursor"]


def test_a_page_keeps_its_end_when_the_document_there_goes(world: Playground) -> None:
    fill(world, 2, 4, 6, 8)
    first, journal = journalled(world, None)
    world.write(lambda ctx: [ctx.db.delete(one["_id"]) for one in ctx.db.query("numbers").with_index("by_n").take(2)])
    fill(world, 3)

    again, _ = journalled(world, journal)
    behind, _ = journalled(world, None, first["continueCursor"])

    assert (numbers(again), numbers(behind)) == ([3], [6, 8])


def test_the_last_page_stays_the_last(world: Playground) -> None:
    fill(world, 1)
    last, journal = journalled(world, None)
    fill(world, 2, 3, 4, 5)
    again, _ = journalled(world, journal)

    assert (numbers(last), last["isDone"]) == ([1], True)
    assert (numbers(again), again["isDone"]) == ([1, 2, 3, 4, 5], True)
