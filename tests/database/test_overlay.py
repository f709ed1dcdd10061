"""The overlay: writes that are not committed yet, what reads find in them, and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber import MutationCtx, define_table, field, v
from camber.database.overlay import Overlay, StoredDocument, id_key
from camber.database.ranges import WHOLE_INDEX, KeyRange
from camber.storage import BY_ID
from tests.database.playground import ids_of, playground

Model = dict[str, StoredDocument]

IDS = [f"id{number}" for number in range(4)]
KEYS = [b"\x01", b"\x02", b"\x02\x00", b"\xff"]


def document(id: str, text: str, first: bytes, second: bytes) -> StoredDocument:
    # As in the engine, no two documents have one key: the id stands behind it.
    return StoredDocument(1, id, 0.0, text, (first + id.encode(), second + id.encode()), (None,))


documents = st.builds(
    document, st.sampled_from(IDS), st.sampled_from("xyz"), st.sampled_from(KEYS), st.sampled_from(KEYS)
)
steps = st.lists(
    st.tuples(st.just("put"), documents)
    | st.tuples(st.just("delete"), st.sampled_from(IDS))
    | st.tuples(st.sampled_from(["begin", "roll back", "keep", "read"]), st.none()),
    max_size=30,
)


def found_in(model: Model, position: int, lower: bytes, upper: bytes | None) -> list[tuple[bytes, str]]:
    keyed = [(id_key(id) if position == BY_ID else one.keys[position], id) for id, one in model.items()]
    return sorted((key, id) for key, id in keyed if key >= lower and (upper is None or key < upper))


def play(overlay: Overlay, model: Model, steps: Sequence[tuple[str, Any]]) -> None:
    """The steps on both; the model keeps a whole copy for each mark."""
    marks: list[tuple[int, Model]] = []
    for step, given_ in steps:
        match step:
            case "put":
                overlay.put(1, given_.id, model.get(given_.id), given_)
                model[given_.id] = given_
            case "delete":
                if given_ in model:
                    overlay.put(1, given_, model.pop(given_), None)
            case "begin":
                marks.append((overlay.mark(), dict(model)))
            case "roll back":
                if marks:
                    mark, before = marks.pop()
                    overlay.rollback(mark)
                    model.clear()
                    model.update(before)
            case "keep":
                if marks:
                    marks.pop()
            case _:
                # An index is sorted at its first reading and kept sorted from then on.
                overlay.entries(1, 1, WHOLE_INDEX)


@given(st.lists(documents, unique_by=lambda one: one.id), steps, st.sampled_from(KEYS), st.sampled_from([*KEYS, None]))
def test_an_overlay_is_the_difference_to_the_state_below(
    stored: list[StoredDocument], steps: list[tuple[str, Any]], lower: bytes, upper: bytes | None
) -> None:
    below = {one.id: one for one in stored}
    model, overlay = dict(below), Overlay()

    play(overlay, model, steps)

    written = overlay.of_table(1) or {}
    assert {
        **{id: one for id, one in below.items() if id not in written},
        **{id: one for id, one in written.items() if one},
    } == model
    for position in (0, 1, BY_ID):
        of_written = {id: one for id, one in model.items() if id in written}
        assert overlay.entries(1, position, KeyRange(lower, upper)) == found_in(of_written, position, lower, upper)


@given(st.lists(documents, unique_by=lambda one: one.id), steps)
def test_a_commit_writes_what_ends_other_than_it_began(
    stored: list[StoredDocument], steps: list[tuple[str, Any]]
) -> None:
    below = {one.id: one for one in stored}
    model, overlay = dict(below), Overlay()

    play(overlay, model, steps)

    changed = {id for id in IDS if (id in below) != (id in model) or (id in model and below[id].text != model[id].text)}
    writes = {write.id: write for write in overlay.row_writes()}
    assert writes.keys() == changed
    for id, write in writes.items():
        after = model.get(id)
        assert write.document == (after and after.text)
        assert write.is_new == (id not in below)
        assert write.keys == (after.keys if after else ())
    touched = overlay.touched({1: (0, 5)}).keys
    for number, position in ((0, 0), (5, 1)):
        old_and_new = [one for id in changed for one in (below.get(id), model.get(id)) if one]
        assert set(touched.get((1, number), ())) == {one.keys[position] for one in old_and_new}
    assert set(touched.get((1, BY_ID), ())) == {id_key(id) for id in changed}


def test_nothing_is_left_of_what_was_taken_back() -> None:
    overlay = Overlay()
    mark = overlay.mark()
    one = document("id1", "x", b"\x01", b"\x01")
    overlay.put(1, "id1", None, one)
    overlay.put(1, "id1", one, None)
    overlay.rollback(mark)

    assert overlay.of_table(1) is None
    assert not overlay.wrote_since(mark)
    assert overlay.row_writes() == []


def test_a_unique_key_belongs_to_who_wrote_it_last_and_goes_back_with_a_rollback() -> None:
    overlay = Overlay()
    ada = StoredDocument(1, "ada", 0.0, "{}", (b"\x01",), (b"key",))
    bob = StoredDocument(1, "bob", 0.0, "{}", (b"\x02",), (b"key",))
    without = ada._replace(unique_keys=(None,))

    overlay.put(1, "ada", None, ada)
    assert (overlay.taken(bob), overlay.taken(ada)) == ((0, "ada"), None)

    mark = overlay.mark()
    overlay.put(1, "ada", ada, without)
    assert overlay.taken(bob) is None
    overlay.put(1, "bob", None, bob)
    assert (overlay.taken(bob), overlay.taken(ada)) == (None, (0, "bob"))

    overlay.rollback(mark)
    assert (overlay.taken(bob), overlay.taken(ada)) == ((0, "ada"), None)


# Through the front door: what a mutation has written lies between what is stored

NUMBERS = define_table("numbers", v.any()).index("by_n", ["n"])


def test_written_and_stored_documents_come_in_one_order() -> None:
    with playground(NUMBERS) as world:
        stored = world.insert("numbers", *({"n": n} for n in (1, 3, 5, 7)))

        def mixed(ctx: MutationCtx) -> list[Any]:
            ctx.db.insert("numbers", {"n": 4})
            ctx.db.patch(stored[0], {"n": 6})
            ctx.db.delete(stored[3])
            by_n = ctx.db.query("numbers").with_index("by_n")
            return [
                [one["n"] for one in by_n.collect()],
                [one["n"] for one in by_n.order("desc").take(3)],
                [
                    one["n"]
                    for one in ctx.db.query("numbers").with_index("by_n", field("n") > 3, field("n") < 6).collect()
                ],
                [one["n"] for one in ctx.db.query("numbers").collect()],
            ]

        assert world.write(mixed) == [[3, 4, 5, 6], [6, 5, 4], [4, 5], [6, 3, 5, 4]]


def test_a_loop_over_documents_sees_them_as_they_were_when_it_began() -> None:
    with playground(NUMBERS) as world:
        world.insert("numbers", *({"n": n} for n in range(200)))

        def shift(ctx: MutationCtx) -> list[float]:
            seen = []
            for one in ctx.db.query("numbers").with_index("by_n"):
                seen.append(one["n"])
                ctx.db.patch(one["_id"], {"n": one["n"] + 150})
                if one["n"] == 10:
                    ctx.db.insert("numbers", {"n": 10.5})
            return seen

        assert world.write(shift) == [float(n) for n in range(200)]
        assert sorted(one["n"] for one in world.all("numbers")) == sorted([10.5, *(float(n + 150) for n in range(200))])


def test_a_loop_goes_on_over_documents_that_it_deletes() -> None:
    with playground(NUMBERS) as world:
        world.insert("numbers", *({"n": n} for n in range(150)))

        def empty(ctx: MutationCtx) -> int:
            ctx.db.insert("numbers", {"n": -1})
            seen = 0
            for one in ctx.db.query("numbers").with_index("by_n"):
                ctx.db.delete(one["_id"])
                seen += 1
            return seen

        assert world.write(empty) == 151
        assert world.all("numbers") == []


def test_documents_are_fresh_each_time() -> None:
    with playground(NUMBERS) as world:
        [id] = world.insert("numbers", {"n": 1, "deep": {"list": [1]}})

        def change_what_was_got(ctx: MutationCtx) -> Any:
            found = ctx.db.get(id) or {}
            found["n"] = 99
            found["deep"]["list"].append(2)
            mine = {"n": 2, "deep": {"list": [5]}}
            other = ctx.db.insert("numbers", mine)
            mine["n"] = 3
            mine["deep"]["list"].append(6)
            return [
                (one["n"], one["deep"])
                for one in ctx.db.query("numbers").with_index("by_id").collect()
                if one["_id"] in (id, other)
            ]

        assert sorted(world.write(change_what_was_got), key=str) == [(1.0, {"list": [1.0]}), (2.0, {"list": [5.0]})]


def test_a_sub_transaction_that_fails_takes_back_its_own_writes_only() -> None:
    with playground(NUMBERS) as world:
        [kept, changed, gone] = world.insert("numbers", {"n": 1}, {"n": 2}, {"n": 3})

        def outer(ctx: MutationCtx) -> Any:
            ctx.db.patch(kept, {"n": 10})

            def inner(ctx: MutationCtx) -> None:
                ctx.db.patch(kept, {"n": 11})
                ctx.db.patch(changed, {"n": 20})
                ctx.db.delete(gone)
                ctx.db.insert("numbers", {"n": 4})
                assert [one["n"] for one in ctx.db.query("numbers").with_index("by_n").collect()] == [4, 11, 20]
                raise ZeroDivisionError

            try:
                world.write_inside(ctx, inner)
            except ZeroDivisionError:
                return ids_of(ctx.db.query("numbers").with_index("by_n").collect())

        assert world.write(outer) == [changed, gone, kept]
        assert [one["n"] for one in world.all("numbers")] == [10, 2, 3]


def test_a_sub_transaction_that_succeeds_goes_with_the_one_around_it() -> None:
    with playground(NUMBERS) as world:

        def fails_at_last(ctx: MutationCtx) -> None:
            world.write_inside(ctx, lambda inner: inner.db.insert("numbers", {"n": 1}))
            assert ctx.db.query("numbers").count() == 1
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            world.write(fails_at_last)
        assert world.all("numbers") == []
