"""count(): as many as collect() would find, without reading them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camber import MutationCtx, QueryBuildError, define_table, field, v
from tests.database.playground import playground

NUMBERS = define_table("numbers", v.any()).index("by_n", ["n"])


def delete_all(ctx: MutationCtx) -> None:
    for document in ctx.db.query("numbers").collect():
        ctx.db.delete(document["_id"])


def counts(ctx: MutationCtx) -> list[tuple[int, int]]:
    queries = [
        ctx.db.query("numbers"),
        ctx.db.query("numbers").order("desc"),
        ctx.db.query("numbers").with_index("by_n", n=2),
        ctx.db.query("numbers").with_index("by_n", field("n") >= 2),
        ctx.db.query("numbers").with_index("by_n", field("n") < 2),
        ctx.db.query("numbers").with_index("by_id"),
    ]
    return [(query.count(), len(query.collect())) for query in queries]


def test_a_count_includes_what_the_transaction_itself_has_written() -> None:
    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.integers(0, 4), max_size=6),
        st.lists(
            st.tuples(st.sampled_from(["insert", "patch", "delete"]), st.integers(0, 5), st.integers(0, 4)), max_size=8
        ),
    )
    def count_during_writes(stored: list[int], writes: list[tuple[str, int, int]]) -> None:
        world.write(delete_all)
        ids = world.insert("numbers", *({"n": n} for n in stored))

        def write_and_count(ctx: MutationCtx) -> Any:
            present = list(ids)
            for write, place, n in writes:
                if write == "insert" or not present:
                    present.append(ctx.db.insert("numbers", {"n": n}))
                elif write == "patch":
                    ctx.db.patch(present[place % len(present)], {"n": n})
                else:
                    ctx.db.delete(present.pop(place % len(present)))
                assert all(count == found for count, found in counts(ctx))
            return counts(ctx)

        during = world.write(write_and_count)

        assert during == world.write(counts)

    with playground(NUMBERS) as world:
        count_during_writes()


def test_a_filter_can_not_be_counted() -> None:
    with playground(NUMBERS) as world, pytest.raises(QueryBuildError, match="has to read its documents"):
        world.read(lambda ctx: ctx.db.query("numbers").filter(field("n") == 1).count())


def test_a_table_that_is_not_there_holds_nothing() -> None:
    with playground(NUMBERS) as world:
        assert world.read(lambda ctx: ctx.db.query("nowhere").count()) == 0
