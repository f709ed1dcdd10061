"""What one transaction may read and write: each limit with its text, adjustable, and nothing left behind beyond it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from camber import LimitError, MutationCtx, define_table, field, v
from camber.settings import Settings
from tests.database.playground import UNHURRIED, Playground, playground

NUMBERS = define_table("numbers", v.any()).index("by_n", ["n"])
ADVICE = (
    " Consider using smaller limits in your queries, paginating your queries, or using indexed queries with a selective index "
    "range expressions."
)


def limited(**limits: int) -> Any:
    return playground(NUMBERS, settings=replace(UNHURRIED, **limits))  # pyright: ignore[reportArgumentType]


def fill(world: Playground, count: int, **fields: object) -> None:
    world.insert("numbers", *({"n": n, **fields} for n in range(count)))


@pytest.mark.parametrize(
    ("limits", "body", "limit", "message"),
    [
        (
            {"documents_read": 5},
            lambda ctx: ctx.db.query("numbers").collect(),
            "documents_read",
            f"Too many documents read in a single function execution (limit: 5).{ADVICE}",
        ),
        (
            {"bytes_read": 1000},
            lambda ctx: ctx.db.query("numbers").collect(),
            "bytes_read",
            f"Too many bytes read in a single function execution (limit: 1000 bytes).{ADVICE}",
        ),
        (
            {"ranges_read": 5},
            lambda ctx: [ctx.db.query("numbers").with_index("by_n", n=n).first() for n in range(6)],
            "ranges_read",
            f"Too many reads in a single function execution (limit: 5).{ADVICE}",
        ),
        (
            {"documents_written": 6},
            lambda ctx: [ctx.db.insert("numbers", {}) for _ in range(7)],
            "documents_written",
            "Too many writes in a single function execution (limit: 6)",
        ),
        (
            {"bytes_written": 3000},
            lambda ctx: [ctx.db.insert("numbers", {"text": "x" * 1100}) for _ in range(3)],
            "bytes_written",
            "Too many bytes written in a single function execution (limit: 3000 bytes)",
        ),
    ],
)
def test_a_transaction_beyond_a_limit_is_refused_with_convex_s_text(
    limits: dict[str, int], body: Callable[[MutationCtx], object], limit: str, message: str
) -> None:
    with limited(**limits) as world:
        fill(world, 6, text="x" * 200)
        with pytest.raises(LimitError) as refused:
            world.write(body)

        assert (refused.value.limit, str(refused.value)) == (limit, message)
        assert world.read(lambda ctx: ctx.db.query("numbers").count()) == 6


def test_bytes_are_counted_not_characters() -> None:
    with limited(bytes_read=1000) as world:
        world.insert("numbers", {"text": "é" * 600})
        with pytest.raises(LimitError, match="Too many bytes read"):
            world.read(lambda ctx: ctx.db.query("numbers").first())


def test_as_much_as_the_limit_is_allowed() -> None:
    with limited(documents_read=5, ranges_read=2, documents_written=5) as world:
        fill(world, 5)
        assert len(world.all("numbers")) == 5
        world.read(lambda ctx: [ctx.db.query("numbers").with_index("by_n", n=n).first() for n in range(2)])


def test_the_defaults_are_convex_s() -> None:
    limits = Settings()

    assert (limits.documents_read, limits.bytes_read, limits.ranges_read) == (32_000, 16 << 20, 4096)
    assert (limits.documents_written, limits.bytes_written) == (16_000, 16 << 20)


def test_documents_that_a_filter_drops_count_as_read() -> None:
    with limited(documents_read=5) as world:
        fill(world, 6)
        with pytest.raises(LimitError):
            world.read(lambda ctx: ctx.db.query("numbers").filter(field("n") == -1).collect())


def test_what_is_not_reached_is_not_read() -> None:
    with limited(documents_read=5) as world:
        fill(world, 6)

        def first_three(ctx: MutationCtx) -> int:
            for place, _ in enumerate(ctx.db.query("numbers")):
                if place == 2:
                    return place
            return -1

        assert world.write(first_three) == 2
        assert len(world.read(lambda ctx: ctx.db.query("numbers").take(5))) == 5


def test_counting_is_one_range_and_no_documents() -> None:
    with limited(documents_read=1, ranges_read=1) as world:
        fill(world, 6)
        assert world.read(lambda ctx: ctx.db.query("numbers").count()) == 6


def test_sub_transactions_share_the_limits_of_the_call() -> None:
    with limited(documents_read=5) as world:
        fill(world, 3)

        def twice(ctx: MutationCtx) -> None:
            for _ in range(2):
                world.read_inside(ctx, lambda inner: inner.db.query("numbers").collect())

        with pytest.raises(LimitError):
            world.write(twice)


def test_a_limit_that_was_caught_stays_reached() -> None:
    with limited(documents_written=3) as world:

        def stubborn(ctx: MutationCtx) -> int:
            refused = 0
            for n in range(6):
                try:
                    ctx.db.insert("numbers", {"n": n})
                except LimitError:
                    refused += 1
            return refused

        assert world.write(stubborn) == 3
        assert [one["n"] for one in world.all("numbers")] == [0, 1, 2]


def test_a_key_that_is_too_long_names_table_index_field_and_size() -> None:
    table = define_table("pages", v.any()).index("by_url_title", ["url", "title"])
    with playground(table) as world:
        with pytest.raises(
            Exception, match=r'index "pages\.by_url_title" is too long \(21\d\d bytes > maximum 2000\).*"title"'
        ) as refused:
            world.insert("pages", {"url": "u" * 50, "title": "t" * 2050})

        assert refused.value.path == ".title"  # pyright: ignore[reportAttributeAccessIssue]
        world.insert("pages", {"url": "u" * 50, "title": "t" * 1800})
        assert len(world.all("pages")) == 1
