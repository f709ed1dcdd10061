"""`ctx.db`: what its methods take, what they give, and in whose words they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest

from camber import (
    DatabaseUsageError,
    Int64,
    InvalidValueError,
    MutationCtx,
    NonexistentDocumentError,
    NotUniqueError,
    QueryBuildError,
    define_table,
    field,
    v,
)
from camber.values import decode_id, encode_id
from tests.database.playground import Playground, playground


class Person(TypedDict):
    name: str
    age: int
    score: float


PEOPLE = define_table("people", Person).index("by_name", ["name"])
THINGS = define_table("things", v.any())


@pytest.fixture(scope="module")
def world(engine: str) -> Iterator[Playground]:
    with playground(PEOPLE, THINGS) as opened:
        opened.insert("people", *({"name": name, "age": 30, "score": 1} for name in "abc"))
        yield opened


@pytest.fixture(scope="module")
def ids(world: Playground) -> dict[str, str]:
    """A stored person, a stored thing, a thing that is gone, and an id of a table that was never there."""
    [person] = world.insert("people", {"name": "ada", "age": 36, "score": 0.5})
    thing, gone = world.insert("things", {"n": 1}, {"n": 2})
    world.write(lambda ctx: ctx.db.delete(gone))
    return {"person": person, "thing": thing, "gone": gone, "nowhere": encode_id(54321, b"0123456789abcdef")}


def refusal(world: Playground, body: Callable[[MutationCtx], object]) -> DatabaseUsageError:
    with pytest.raises(DatabaseUsageError) as refused:
        world.write(body)
    return refused.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda db, ids: db.get(5),
            "Invalid argument `id` for `db.get`, expected string but got 'int': 5",
        ),
        (
            lambda db, ids: db.get("12345678"),
            "Invalid argument `id` for `db.get`: Unable to decode ID: Invalid ID length 8",
        ),
        (
            lambda db, ids: db.get("people", ids["thing"]),
            'Invalid argument `id` for `db.get`: expected to be an Id<"people">, got Id<"things"> instead.',
        ),
        (
            lambda db, ids: db.patch("people", ids["thing"], {}),
            'Invalid argument `id` for `db.patch`: expected to be an Id<"people">, got Id<"things"> instead.',
        ),
        (lambda db, ids: db.patch(ids["gone"], {}), "Update on nonexistent document ID {gone}"),
        (lambda db, ids: db.replace(ids["gone"], {}), "Replace on nonexistent document ID {gone}"),
        (lambda db, ids: db.delete(ids["gone"]), "Delete on nonexistent document ID {gone}"),
        (
            lambda db, ids: db.delete(ids["nowhere"]),
            'Invalid argument `id` for `db.delete`: Table for ID "{nowhere}" not found',
        ),
        (lambda db, ids: db.insert("things", 5), "Invalid argument `value` for `db.insert`: Value must be an Object"),
        (
            lambda db, ids: db.patch(ids["thing"], None),
            "Invalid argument `value` for `db.patch`: Value must be an Object",
        ),
        (
            lambda db, ids: db.patch(ids["thing"], {"_id": ids["gone"]}),
            "Provided document ID {thing} doesn't match '_id' field '{gone}'",
        ),
        (lambda db, ids: db.query("_tables"), "System tables can only be accessed with db.system."),
        (lambda db, ids: db.system.query("things"), "User tables cannot be accessed with db.system."),
        (lambda db, ids: db.insert("_tables", {}), "System tables (prefixed with `_`) are read-only."),
    ],
)
def test_misuse_is_refused_in_convex_s_words(
    world: Playground, ids: dict[str, str], call: Callable[[Any, dict[str, str]], object], message: str
) -> None:
    assert str(refusal(world, lambda ctx: call(ctx.db, ids))) == message.format(**ids)


@pytest.mark.parametrize(
    "call",
    [
        lambda db: db.query(5),
        lambda db: db.patch("x"),
        lambda db: db.delete(),
        lambda db: db.query("things").take(-1),
        lambda db: db.query("things").take(1.5),
        lambda db: db.query("things").take(True),
        lambda db: db.query("things").order("up"),
        lambda db: db.query("things").filter(True),
        lambda db: db.query("things").filter(lambda row: True),
        lambda db: db.query("people").with_index("by_name").with_index("by_name"),
        lambda db: db.query("people").order("desc").with_index("by_name"),
        lambda db: db.query("people").filter(field("a") == 1).with_index("by_name"),
    ],
)
def test_other_misuse_is_refused(world: Playground, call: Callable[[Any], object]) -> None:
    refusal(world, lambda ctx: call(ctx.db))


def test_a_query_has_at_most_256_operators(world: Playground) -> None:
    def many(ctx: MutationCtx) -> None:
        query = ctx.db.query("things")
        for _ in range(257):
            query = query.filter(field("n") == 1)

    assert "at most 256 operators" in str(refusal(world, many))


def test_what_is_not_there_is_none_for_get(world: Playground, ids: dict[str, str]) -> None:
    def ask(ctx: MutationCtx) -> list[Any]:
        return [ctx.db.get(ids["gone"]), ctx.db.get(ids["nowhere"]), ctx.db.get("nowhere", ids["nowhere"])]

    assert world.write(ask) == [None, None, None]


def test_a_missing_document_is_named(world: Playground, ids: dict[str, str]) -> None:
    refused = refusal(world, lambda ctx: ctx.db.patch(ids["gone"], {}))

    assert isinstance(refused, NonexistentDocumentError)
    assert (refused.code, refused.id) == ("NonexistentDocument", ids["gone"])


def test_unique_refuses_to_pick_one_of_several(world: Playground) -> None:
    refused = refusal(world, lambda ctx: ctx.db.query("people").unique())
    first, second = (one["_id"] for one in world.all("people")[:2])

    assert isinstance(refused, NotUniqueError)
    assert str(refused) == f"unique() query returned more than one result from table people:\n [{first}, {second}, ...]"


def test_system_tables_can_be_read_and_never_written(world: Playground) -> None:
    tables = world.read(lambda ctx: ctx.db.system.query("_tables").collect())
    id = tables[0]["_id"]

    assert {"people", "things"} <= {one["name"] for one in tables}
    assert world.read(lambda ctx: ctx.db.system.get(id)) == tables[0]
    for write in (
        lambda ctx: ctx.db.patch(id, {"name": "x"}),
        lambda ctx: ctx.db.replace(id, {"name": "x"}),
        lambda ctx: ctx.db.delete(id),
        lambda ctx: ctx.db.get(id),
    ):
        refusal(world, write)


def test_only_ids_of_the_table_are_normal(world: Playground, ids: dict[str, str]) -> None:
    def ask(ctx: MutationCtx) -> list[Any]:
        normal = ctx.db.normalize_id
        return [
            normal(THINGS, ids["thing"]),
            normal("things", ids["gone"]),
            normal("people", ids["thing"]),
            normal("things", ids["thing"].upper()),
            normal("things", "nonsense"),
            normal("things", "\ud800"),
            normal("nowhere", ids["nowhere"]),
        ]

    assert world.write(ask) == [ids["thing"], ids["gone"], None, None, None, None, None]


def test_numbers_come_as_the_table_s_class_says_them(world: Playground, ids: dict[str, str]) -> None:
    def ask(ctx: MutationCtx) -> list[Any]:
        by_name = ctx.db.query(PEOPLE).with_index("by_name", name="ada")
        found = [ctx.db.get(PEOPLE, ids["person"]), by_name.unique(), by_name.collect()[0], next(iter(by_name))]
        found += by_name.paginate({"numItems": 1, "cursor": None})["page"]
        return [(type(one["age"]), type(one["score"])) for one in found if one]

    assert world.write(ask) == [(int, float)] * 5


def test_a_python_int_is_a_number_and_int64_must_be_asked_for(world: Playground) -> None:
    def write(ctx: MutationCtx) -> dict[str, Any] | None:
        return ctx.db.get(ctx.db.insert("things", {"n": 1, "big": Int64(1), "list": (1, Int64(2))}))

    found = world.write(write) or {}
    assert [type(found["n"]), type(found["big"]), *map(type, found["list"])] == [float, Int64, float, Int64]
    with pytest.raises(InvalidValueError):
        world.insert("things", {"n": 2**53 + 1})


def test_a_table_can_be_named_by_its_value_or_its_name(world: Playground, ids: dict[str, str]) -> None:
    def ask(ctx: MutationCtx) -> list[Any]:
        return [ctx.db.get(THINGS, ids["thing"]), ctx.db.get("things", ids["thing"]), ctx.db.get(ids["thing"])]

    assert len({str(one) for one in world.write(ask)}) == 1


def test_new_ids_are_canonical_and_say_their_table(world: Playground) -> None:
    found = world.insert("things", *({} for _ in range(50)))
    numbers = {decode_id(id)[0] for id in found}

    assert len(set(found)) == 50
    assert len(numbers) == 1
    assert all(len(id) == 32 for id in found)


def test_a_query_can_not_write(world: Playground, ids: dict[str, str]) -> None:
    def write(ctx: Any) -> None:
        ctx.db.insert("things", {})

    with pytest.raises(DatabaseUsageError, match="A query can't write"):
        world.read(write)
    with pytest.raises(QueryBuildError):
        world.read(lambda ctx: ctx.db.query("things").with_index("nothing"))


def test_no_function_can_read_the_deployments_secrets(world: Playground) -> None:
    with pytest.raises(DatabaseUsageError, match="secrets"):
        world.read(lambda ctx: ctx.db.system.query("_deployment").first())
