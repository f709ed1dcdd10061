"""What calls will look up is foreseen from their arguments, and whoever is mistaken about it answers the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, v
from camber.database.foresight import MOST_LESSONS, Foresight, LookUp
from camber.storage import Row, Snapshot, open_storage
from camber.testing import Backend
from camber.values import AFTER_KEY, key_of
from tests.database.playground import UNHURRIED
from tests.storage.people import BY_NAME, PEOPLE, Person, commit, create_tables, inserting

PEOPLE_THERE = [Person(1, "ada"), Person(2, "bob"), *(Person(number, "eve") for number in range(3, 6))]


@pytest.fixture
def snapshot(tmp_path: Path, database_url: str) -> Iterator[Snapshot]:
    storage = open_storage(tmp_path / "data", create=True, durable=False, database_url=database_url)
    create_tables(storage, PEOPLE)
    commit(storage, *map(inserting, PEOPLE_THERE))
    yield storage.snapshot()
    storage.close()


def by_name(*names: str, limit: int = 2) -> LookUp:
    lower = b"".join(map(key_of, names))
    return PEOPLE.number, BY_NAME, lower, lower + AFTER_KEY, False, limit


def foreseen(foresight: Foresight, snapshot: Snapshot, **arguments: Any) -> dict[LookUp, list[Row]]:
    return {asked: list(rows) for asked, rows in foresight.look_up(snapshot, [("f", arguments)], {}).items()}


def test_a_look_up_by_an_argument_is_foreseen_after_one_run(snapshot: Snapshot) -> None:
    foresight = Foresight()
    assert foreseen(foresight, snapshot, name="bob") == {}

    foresight.learn(("f", {"name": "zoe", "other": 1.0}), [by_name("zoe")])

    assert foreseen(foresight, snapshot, name="bob") == {by_name("bob"): [Person(2, "bob").row(BY_NAME)]}
    assert foreseen(foresight, snapshot, name="nobody") == {by_name("nobody"): []}
    assert foreseen(foresight, snapshot, other="bob") == {}
    assert foreseen(foresight, snapshot, name=["bob"]) == {}
    assert foreseen(foresight, snapshot, name="bob \ud800") == {}
    assert foreseen(foresight, snapshot, **{f"name {number}": "bob" for number in range(100)}) == {}


def test_a_text_may_have_been_put_in_lower_case_and_several_may_stand_together(snapshot: Snapshot) -> None:
    foresight = Foresight()

    foresight.learn(("f", {"name": "Zoe", "code": "X1"}), [by_name("zoe"), by_name("a constant", "Zoe", "X1")])

    asked = foreseen(foresight, snapshot, name="ADA", code="ada")
    assert asked == {by_name("ada"): [Person(1, "ada").row(BY_NAME)], by_name("a constant", "ADA", "ada"): []}


def test_what_is_known_is_not_looked_up_again_and_what_is_long_is_left_to_the_call(snapshot: Snapshot) -> None:
    foresight = Foresight()
    foresight.learn(("f", {"name": "zoe"}), [by_name("zoe", limit=32)])
    coming = [("f", {"name": name}) for name in ("ada", "bob", "eve")]

    found = foresight.look_up(snapshot, coming, {by_name("ada", limit=32): ()})

    assert list(found) == [by_name("bob", limit=32)]


def test_what_does_not_follow_from_arguments_is_given_up(snapshot: Snapshot) -> None:
    foresight = Foresight()
    for number in range(MOST_LESSONS):
        foresight.learn(("f", {"name": "zoe"}), [by_name(f"somebody else {number}")])
    foresight.learn(("f", {"name": "zoe"}), [by_name("zoe")])

    assert foreseen(foresight, snapshot, name="bob") == {}


def test_many_who_add_the_same_names_at_once_add_each_once() -> None:
    """They are run in groups: each sees what those before it wrote, whatever was foreseen for it."""
    people = (
        define_table("people", {"name": v.string(), "key": v.string()})
        .index("by_key", ["key"], unique=True)
        .index("by_name", ["name"])
    )

    def add(ctx: MutationCtx, *, name: str) -> bool:
        if ctx.db.query(people).with_index("by_key", key=name.lower()).unique() is not None:
            return False
        same = ctx.db.query(people).with_index("by_name", name=name).collect()
        ctx.db.insert(people, {"name": name, "key": name.lower()})
        return not same

    names = [f"{'NAME' if number % 2 else 'name'} {number % 30}" for number in range(300)]

    def keys(ctx: QueryCtx) -> list[str]:
        return sorted(found["key"] for found in ctx.db.query(people).collect())

    functions = {"people:add": add, "people:keys": keys}
    opened = Backend.in_memory(define_schema(people), functions, settings=UNHURRIED)
    with opened as backend, ThreadPoolExecutor(50) as threads:
        added = list(threads.map(lambda name: backend.run("people:add", {"name": name}), names))
        assert backend.run("people:keys") == sorted({name.lower() for name in names})

    assert sum(added) == 30


def test_many_who_look_for_a_row_by_its_id_find_it() -> None:
    """An id is no key of an index, by which the database could look for many at once."""
    people = define_table("people", {"name": v.string(), "calls": v.number()})

    def add(ctx: MutationCtx, *, name: str) -> str:
        return ctx.db.insert(people, {"name": name, "calls": 0.0})

    def call(ctx: MutationCtx, *, id: str) -> str:
        found = ctx.db.query(people).with_index("by_id", _id=id).unique()
        assert found is not None
        ctx.db.patch(people, id, {"calls": found["calls"] + 1})
        return found["name"]

    functions = {"people:add": add, "people:call": call}
    opened = Backend.in_memory(define_schema(people), functions, settings=UNHURRIED)
    with opened as backend, ThreadPoolExecutor(30) as threads:
        ids = {backend.run("people:add", {"name": f"{number}"}): f"{number}" for number in range(10)}
        wanted = [*ids] * 20
        assert list(threads.map(lambda id: backend.run("people:call", {"id": id}), wanted)) == [
            ids[id] for id in wanted
        ]
