"""What only the operator can do over HTTP: environment variables and SQL."""

from __future__ import annotations

import pytest

from tests.server.asking import Client, Reply


def change(client: Client, admin: dict[str, str], *changes: object) -> Reply:
    return client.post("/api/update_environment_variables", {"changes": changes}, headers=admin)


def value_of(client: Client, name: str) -> object:
    return client.query("notes:setting", {"name": name})


def test_variables_are_set_and_removed_and_queries_see_it(client: Client, admin: dict[str, str]) -> None:
    assert value_of(client, "COLOUR") is None

    answered = change(client, admin, {"name": "COLOUR", "value": "red"})
    assert (answered.status, answered.body) == (200, b"")
    assert value_of(client, "COLOUR") == "red"

    change(client, admin, {"name": "COLOUR"})
    assert value_of(client, "COLOUR") is None


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "1X", "value": "a"},
        {"name": "A" * 300, "value": "a"},
        {"name": "X", "value": "a" * 9_000},
        {"name": "CONVEX_SITE_URL", "value": "a"},
        {"name": "X", "value": 5},
        {"value": "a"},
        "X=a",
    ],
)
def test_a_bad_change_is_refused_with_all_that_came_along(client: Client, admin: dict[str, str], bad: object) -> None:
    answered = change(client, admin, {"name": "GOOD", "value": "a"}, bad)
    assert answered.status == 400
    assert answered.code
    assert value_of(client, "GOOD") is None


def sql(client: Client, admin: dict[str, str], statement: object, **more: object) -> Reply:
    return client.post("/api/camber/sql", {"statement": statement, **more}, headers=admin)


def test_sql_reads_the_data(client: Client, admin: dict[str, str]) -> None:
    client.mutation("notes:add", {"text": "one"})
    client.mutation("notes:add", {"text": "two"})

    assert sql(client, admin, "SELECT text FROM notes ORDER BY text").json == {
        "columns": ["text"],
        "rows": [["one"], ["two"]],
        "more": False,
    }
    assert sql(client, admin, "SELECT text FROM notes ORDER BY text", limit=1).json["more"] is True


CELLS = {
    "sqlite": "SELECT 9223372036854775807, 0.5, x'00ff', NULL, 9e999, 'ä'",
    "postgres": r"SELECT 9223372036854775807, 0.5::float8, '\x00ff'::bytea, NULL, 'inf'::float8, 'ä'",
}


def test_every_kind_of_cell_has_a_json_form(client: Client, admin: dict[str, str], engine: str) -> None:
    row = sql(client, admin, CELLS[engine]).json["rows"][0]
    assert row == [9223372036854775807, 0.5, {"$bytes": "AP8="}, None, "inf", "ä"]


@pytest.mark.parametrize(
    "statement", ["DELETE FROM notes", "nonsense", "", "SELECT 1; SELECT 2", "SELECT * FROM nowhere"]
)
def test_sql_that_is_wrong_or_writes_is_refused(client: Client, admin: dict[str, str], statement: str) -> None:
    answered = sql(client, admin, statement)
    assert (answered.status, answered.code) == (400, "BadSql")


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": "x"}, {"limit": 1.5}])
def test_a_limit_must_be_a_number_of_rows(client: Client, admin: dict[str, str], more: dict[str, object]) -> None:
    assert sql(client, admin, "SELECT 1", **more).code == "BadJsonBody"
