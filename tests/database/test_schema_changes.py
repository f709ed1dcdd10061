"""Changing the schema: every document that does not fit is named and nothing is changed, or all of it takes effect."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import pytest

from camber import (
    MutationCtx,
    QueryBuildError,
    QueryCtx,
    SchemaEnforcementError,
    SchemaMismatchError,
    Table,
    UniqueIndexError,
    define_schema,
    define_table,
    field,
    v,
)
from camber.functions import application_of
from tests.database.playground import Playground, fields_of, playground

USERS: Table[Any] = define_table("users", v.any())
NOTES: Table[Any] = define_table("notes", v.any())


@pytest.fixture
def world() -> Any:
    with playground(USERS, NOTES) as opened:
        yield opened


def refused(world: Playground, *tables: Table[Any]) -> SchemaMismatchError:
    """What a restart with these tables says; it must leave everything as it was."""
    before = {name: world.all(name) for name in ("users", "notes")}
    with pytest.raises(SchemaMismatchError) as found:
        world.restart(*tables)

    assert {name: world.all(name) for name in ("users", "notes")} == before
    return found.value


# Documents that don't fit


def test_every_document_that_does_not_fit_is_named_with_table_id_and_field(world: Playground) -> None:
    users = world.insert("users", {"name": 5}, {"name": "ada"}, {}, {"name": "bob", "age": 3})
    notes = world.insert("notes", {"tags": ["a", 1]}, {"tags": []})
    found = refused(
        world,
        define_table("users", {"name": v.string()}),
        define_table("notes", {"tags": v.array(v.string())}),
    )

    assert found.total == len(found.misfits) == 4
    for misfit, table, id, field_name in zip(
        found.misfits,
        ["users", "users", "users", "notes"],
        [users[0], users[2], users[3], notes[0]],
        [".name", "`name`", "`age`", ".tags[0]"[:5]],
        strict=True,
    ):
        assert f'Document with ID "{id}" in table "{table}" does not match the schema: ' in misfit
        assert field_name in misfit
    assert str(found) == "\n".join(found.misfits)


def test_many_misfits_are_all_counted_and_the_first_thousand_listed(world: Playground) -> None:
    world.insert("users", *({"n": n} for n in range(1100)))
    found = refused(world, define_table("users", {}), NOTES)

    assert (len(found.misfits), found.total) == (1000, 1100)
    assert str(found).endswith("\n… and 100 more")


def test_a_schema_that_does_not_fit_leaves_the_old_one_in_force(world: Playground) -> None:
    world.restart(define_table("users", {"name": v.string()}), NOTES)
    world.insert("users", {"name": "ada"})
    refused(world, define_table("users", {"name": v.number()}).index("by_name", ["name"]), NOTES)

    with pytest.raises(SchemaEnforcementError):
        world.insert("users", {"name": 5})
    with pytest.raises(QueryBuildError):
        world.read(lambda ctx: ctx.db.query("users").with_index("by_name"))


def test_a_reload_that_does_not_fit_leaves_the_old_one_serving(world: Playground) -> None:
    engine = world.backend.engine
    world.insert("users", {"name": 5})
    misfit = define_schema(define_table("users", {"name": v.string()}), NOTES)
    with pytest.raises(SchemaMismatchError):
        engine.reload_sync(application_of("in_memory", misfit, {}))
    assert world.insert("users", {"name": 6})

    fitting = define_schema(define_table("users", {"name": v.number()}).index("by_name", ["name"]), NOTES)
    engine.reload_sync(application_of("in_memory", fitting, dict(engine.application.functions)))
    assert [one["name"] for one in world.read(lambda ctx: ctx.db.query("users").with_index("by_name").collect())] == [
        5,
        6,
    ]
    with pytest.raises(SchemaEnforcementError):
        world.insert("users", {"name": "ada"})


class Whole(TypedDict):
    n: int


class Fraction(TypedDict):
    n: float


class Perhaps(TypedDict):
    n: NotRequired[float]


def test_a_field_that_now_has_to_be_whole_is_checked(world: Playground) -> None:
    world.restart(define_table("users", Fraction), NOTES)
    [id] = world.insert("users", {"n": 1.5})
    found = refused(world, define_table("users", Whole), NOTES)

    assert id in str(found)


def test_a_wider_schema_takes_what_is_there(world: Playground) -> None:
    world.restart(define_table("users", Whole), NOTES)
    world.insert("users", {"n": 1})
    world.restart(define_table("users", Perhaps), NOTES)
    world.insert("users", {}, {"n": 0.5})

    assert [fields_of(one) for one in world.all("users")] == [{"n": 1.0}, {}, {"n": 0.5}]


def test_a_field_that_stays_whole_is_handed_over_as_an_int_after_a_restart(world: Playground) -> None:
    table = define_table("users", Whole)
    world.restart(table, NOTES)
    world.insert("users", {"n": 1})
    world.restart()

    found = world.read(lambda ctx: ctx.db.query(table).collect())
    assert [type(one["n"]) for one in found] == [int]


def test_ids_must_be_of_the_table_that_the_schema_says(world: Playground) -> None:
    [user] = world.insert("users", {})
    [note] = world.insert("notes", {"owner": user})
    world.restart(USERS, define_table("notes", {"owner": v.id("users")}))
    found = refused(world, USERS, define_table("notes", {"owner": v.id("notes")}))

    assert note in str(found)
    assert ".owner" in str(found)


def test_without_schema_validation_nothing_is_checked_and_indexes_are_there(world: Playground) -> None:
    world.insert("users", {"name": 5})
    world.restart(define_table("users", {"name": v.string()}).index("by_name", ["name"]), NOTES, check=False)
    world.insert("users", {"anything": True})

    assert world.read(lambda ctx: ctx.db.query("users").with_index("by_name").count()) == 2


# Indexes


def test_a_new_index_finds_the_documents_that_were_there(world: Playground) -> None:
    world.insert("users", {"n": 2}, {"n": 1}, {}, {"n": "x"})
    world.restart(USERS.index("by_n", ["n"]), NOTES)
    world.insert("users", {"n": 1.5})

    found = world.read(lambda ctx: ctx.db.query("users").with_index("by_n").collect())
    assert [one.get("n") for one in found] == [None, 1, 1.5, 2, "x"]
    assert world.read(lambda ctx: ctx.db.query("users").with_index("by_n", n=1).count()) == 1


def test_an_index_that_went_is_not_found_any_more(world: Playground) -> None:
    world.restart(USERS.index("by_n", ["n"]).index("by_m", ["m"]), NOTES)
    world.insert("users", {"n": 1, "m": 2})
    world.restart(USERS.index("by_m", ["m"]), NOTES)
    world.insert("users", {"n": 1, "m": 1})

    with pytest.raises(QueryBuildError, match=r"Index users\.by_n not found"):
        world.read(lambda ctx: ctx.db.query("users").with_index("by_n").collect())
    found = world.read(lambda ctx: ctx.db.query("users").with_index("by_m").collect())
    assert [one["m"] for one in found] == [1, 2]


def test_an_index_of_the_same_name_on_other_fields_is_built_anew(world: Playground) -> None:
    world.restart(USERS.index("by_it", ["n"]), NOTES)
    world.insert("users", {"n": 1, "m": 2}, {"n": 2, "m": 1})
    for fields, expected in ((["m"], [2, 1]), (["m", "n"], [2, 1]), (["n", "m"], [1, 2])):
        world.restart(USERS.index("by_it", fields), NOTES)
        found = world.read(lambda ctx: ctx.db.query("users").with_index("by_it").collect())
        assert [one["n"] for one in found] == expected


def test_indexes_may_change_their_order_and_number_many_times(world: Playground) -> None:
    world.insert("users", *({"a": n % 3, "b": -n} for n in range(6)))
    by_a, by_b = ("by_a", ["a"]), ("by_b", ["b"])
    for indexes in ([by_a], [by_b], [by_a, by_b], [], [by_b, by_a], [by_a]):
        table = USERS
        for name, fields in indexes:
            table = table.index(name, fields)
        world.restart(table, NOTES)
        world.insert("users", {"a": 1, "b": 1})
        for name, fields in indexes:
            found = world.read(lambda ctx, name=name: ctx.db.query("users").with_index(name).collect())
            values = [one[fields[0]] for one in found]
            assert values == sorted(values)
            assert len(values) == len(world.all("users"))


def test_a_new_unique_index_over_doubles_names_each_and_changes_nothing(world: Playground) -> None:
    ids = world.insert("users", *({"email": email} for email in ("a", "b", "a", "c", "a", "b", "a\0")))
    world.insert("users", {}, {}, {"email": None})
    table = USERS.index("by_email", ["email"], unique=True)
    found = refused(world, table, NOTES)

    assert found.total == 3
    for misfit, double, first in zip(found.misfits, (2, 4, 5), (0, 0, 1), strict=True):
        assert misfit == (
            f'Document with ID "{ids[double]}" in table "users" has the same values in the fields email of unique index '
            f'"by_email" as document "{ids[first]}"'
        )
    world.write(lambda ctx: [ctx.db.delete(ids[place]) for place in (2, 4, 5)])
    world.restart(table, NOTES)
    with pytest.raises(UniqueIndexError):
        world.insert("users", {"email": "c"})


def test_an_index_that_becomes_unique_or_stops_being_so(world: Playground) -> None:
    plain, unique = USERS.index("by_email", ["email"]), USERS.index("by_email", ["email"], unique=True)
    world.restart(plain, NOTES)
    world.insert("users", {"email": "a"})
    world.restart(unique, NOTES)
    with pytest.raises(UniqueIndexError):
        world.insert("users", {"email": "a"})
    world.restart(plain, NOTES)
    world.insert("users", {"email": "a"})
    refused(world, unique, NOTES)


def test_a_document_whose_key_would_be_too_long_for_a_new_index_is_named(world: Playground) -> None:
    _, long = world.insert("users", {"url": "x"}, {"url": "x" * 2000})
    found = refused(world, USERS.index("by_url", ["url"]), NOTES)

    assert found.total == 1
    assert long in str(found)
    assert "url" in str(found)


# Tables


def test_a_table_that_left_the_schema_keeps_its_documents_and_loses_its_rules(world: Playground) -> None:
    world.restart(define_table("users", {"name": v.string()}).index("by_name", ["name"], unique=True), NOTES)
    [ada] = world.insert("users", {"name": "ada"})
    world.restart(NOTES)

    assert [one["_id"] for one in world.all("users")] == [ada]
    world.insert("users", {"name": "ada"}, {"anything": 1})
    found = refused(world, define_table("users", {"name": v.string()}), NOTES)
    assert found.total == 1
    world.restart(USERS.index("by_name", ["name"]), NOTES)
    assert world.read(lambda ctx: ctx.db.query("users").with_index("by_name", name="ada").count()) == 2


def test_ids_and_creation_times_stay_what_they_are_through_all_changes(world: Playground) -> None:
    world.insert("users", {"n": 1}, {"n": 2})
    before = world.all("users")
    for tables in (
        [NOTES, USERS],
        [USERS.index("by_n", ["n"]), NOTES],
        [NOTES],
        [define_table("aaa", v.any()), USERS, NOTES],
    ):
        world.restart(*tables)
        assert world.all("users") == before


def test_a_start_looks_at_documents_only_where_something_changed(world: Playground) -> None:
    users = define_table("users", {"n": v.number()}).index("by_n", ["n"], unique=True)
    world.restart(users, NOTES)
    world.insert("users", *({"n": n} for n in range(50)))
    world.insert("notes", {})
    looked_at: list[str] = []

    def note(what: str, done: int, total: int) -> None:
        looked_at.append(what)

    world.restart(users, NOTES, progress=note)
    world.restart(NOTES, users, define_table("third", v.any()), progress=note)
    assert looked_at == []
    world.restart(
        define_table("users", {"n": v.float64(), "m": v.optional(v.string())}).index("by_n", ["n"]),
        NOTES,
        progress=note,
    )
    assert set(looked_at) == {"checking users", "building indexes"}


def test_tables_whose_names_differ_in_case_only_are_two() -> None:
    with playground(define_table("Users", v.any()), define_table("users", v.any())) as world:
        world.insert("Users", {"n": 1})
        world.insert("users", {"n": 2})
        world.restart()

        assert [one["n"] for name in ("Users", "users") for one in world.all(name)] == [1, 2]


# Tables without a schema


def test_a_table_is_created_by_its_first_document(world: Playground) -> None:
    [id] = world.insert("things", {"n": 1})
    assert [one["_id"] for one in world.all("things")] == [id]
    world.restart()
    assert [one["_id"] for one in world.all("things")] == [id]
    assert world.insert("things", {"n": 2})


def test_the_function_that_needs_a_new_table_is_run_once_as_far_as_anyone_can_tell(world: Playground) -> None:
    def several(ctx: MutationCtx) -> None:
        ctx.db.insert("users", {"n": ctx.db.query("users").count()})
        for name in ("one", "two", "three"):
            ctx.db.insert(name, {"n": ctx.db.query(name).count()})

    world.write(several)
    world.write(several)

    assert [[one["n"] for one in world.all(name)] for name in ("users", "one", "two", "three")] == [[0, 1]] * 4


def test_a_function_that_catches_everything_can_create_tables_too(world: Playground) -> None:
    def careful(ctx: MutationCtx) -> str:
        try:
            return ctx.db.insert("things", {"n": 1})
        except Exception:  # noqa: BLE001
            return "could not insert"

    assert world.write(careful) == world.all("things")[0]["_id"]


def test_a_failed_function_may_leave_an_empty_table_and_nothing_in_it(world: Playground) -> None:
    def fails(ctx: MutationCtx) -> None:
        ctx.db.insert("things", {"n": 1})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.write(fails)

    assert world.all("things") == []
    assert world.insert("things", {"n": 2})


def test_a_new_table_in_the_middle_of_a_group_does_not_disturb_the_others(world: Playground) -> None:
    def count(ctx: MutationCtx) -> int:
        ctx.db.insert("users", {})
        return ctx.db.query("users").count()

    def count_and_create(ctx: MutationCtx) -> int:
        ctx.db.insert("things", {})
        return count(ctx)

    assert world.in_one_group(count, count, count_and_create, count, count_and_create, count) == [1, 2, 3, 4, 5, 6]
    assert len(world.all("things")) == 2


def test_a_query_built_on_a_table_that_is_not_there_is_checked_all_the_same(world: Playground) -> None:
    def ask(ctx: QueryCtx) -> list[Any]:
        query = ctx.db.query("nowhere")
        page = ctx.db.query("nowhere").paginate({"numItems": 5, "cursor": None})
        by_time = query.with_index("by_creation_time", field("_creationTime") > 5).collect()
        return [
            query.collect(),
            list(query),
            query.first(),
            query.unique(),
            query.count(),
            by_time,
            page["page"],
            page["isDone"],
        ]

    assert world.read(ask) == [[], [], None, None, 0, [], [], True]
    with pytest.raises(QueryBuildError, match=r"Index nowhere\.by_n not found"):
        world.read(lambda ctx: ctx.db.query("nowhere").with_index("by_n"))
    with pytest.raises(QueryBuildError):
        world.read(lambda ctx: ctx.db.query("nowhere").order("desc").order("desc"))


def test_a_table_may_have_more_fields_than_a_view_has_columns() -> None:
    """A union of objects names the fields of all of them; the databases have room for 1,600 and 2,000 columns."""
    members = [v.object({f"{letter}{number}": v.optional(v.number()) for number in range(1_000)}) for letter in "abc"]
    table: Table[Any] = define_table("wide", v.union(*members))

    with playground(table) as world:
        world.insert("wide", {"a0": 1.0}, {"c999": 2.0})
        result = world.backend.engine.sql_sync('SELECT a0 FROM wide ORDER BY "_creationTime"', limit=5)
        assert result.rows == [(1.0,), (None,)]
