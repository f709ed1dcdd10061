"""The engine's own functions, for the command lines of Convex and Camber (protocol 6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from camber import ActionCtx, MutationCtx, QueryCtx, action, define_table, internal_mutation, query, v
from camber.identity import Caller
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, call, deployed, message, somebody

BOOKS = define_table("books", {"title": v.string()}, write_with="books:add").index("by_title", ["title"])
EMPTY = define_table("empty", {"a": v.string()})


@query
def titles(ctx: QueryCtx, *, shelf: str | None = None) -> list[str]:
    return [book["title"] for book in ctx.db.query(BOOKS)]


@internal_mutation
def add(ctx: MutationCtx, *, title: str) -> None:
    ctx.db.insert(BOOKS, {"title": title})


@action(args={})
async def order(ctx: ActionCtx):
    return None


@pytest.fixture
def backend(serve: Serve) -> Backend:
    functions = {"books:titles": titles, "books:add": add, "shop/orders:order": order}
    return serve(functions, BOOKS, EMPTY, cloud_url="https://api.example.com", site_url="https://example.com")


@pytest.fixture(scope="module")
def untouched() -> Iterator[Backend]:
    with deployed({}, BOOKS) as backend:
        yield backend


def page(number: int, cursor: str | None = None) -> dict[str, Any]:
    return {"numItems": number, "cursor": cursor}


def test_tables(backend: Backend) -> None:
    found = backend.run("_system/cli/tables", {"paginationOpts": page(10_000)})

    assert found == {"page": [{"name": "books"}, {"name": "empty"}], "isDone": True, "continueCursor": "end"}


@pytest.mark.parametrize(("order", "first"), [("asc", "a"), ("desc", "c")])
def test_table_data_comes_in_pages(backend: Backend, order: str, first: str) -> None:
    for title in "abc":
        backend.run(add, title=title)
    asked = {"table": "books", "order": order}

    one = backend.run("_system/cli/tableData", {**asked, "paginationOpts": page(2)})
    assert one["page"][0]["title"] == first
    assert set(one["page"][0]) == {"_id", "_creationTime", "title"}
    two = backend.run("_system/cli/tableData:default", {**asked, "paginationOpts": page(2, one["continueCursor"])})
    assert (one["isDone"], len(two["page"]), two["isDone"]) == (False, 1, True)


@pytest.mark.parametrize("table", ["_storage", "_scheduled_functions"])
def test_table_data_of_the_system_tables_that_are_shown(backend: Backend, table: str) -> None:
    found = backend.run("_system/cli/tableData", {"table": table, "order": "desc", "paginationOpts": page(5)})
    assert (found["page"], found["isDone"]) == ([], True)


@pytest.mark.parametrize("table", ["_environment_variables", "_deployment", "_session_requests", "_nope"])
def test_table_data_of_other_system_tables_is_refused(backend: Backend, table: str) -> None:
    with pytest.raises(Exception, match=f'The table "{table}" is the engine\'s own and is not shown'):
        backend.run("_system/cli/tableData", {"table": table, "order": "asc", "paginationOpts": page(5)})


def test_table_data_of_a_table_that_is_not_there_names_those_that_are(backend: Backend) -> None:
    with pytest.raises(Exception, match='There is no table "boks". Tables: books, empty'):
        backend.run("_system/cli/tableData", {"table": "boks", "order": "asc", "paginationOpts": page(5)})


def test_the_function_spec(backend: Backend) -> None:
    found = backend.run("_system/cli/modules:apiSpec")

    assert [one["identifier"] for one in found] == ["books.js:add", "books.js:titles", "shop/orders.js:order"]
    assert found[0] == {
        "identifier": "books.js:add",
        "functionType": "Mutation",
        "visibility": {"kind": "internal"},
        "args": {"type": "object", "value": {"title": {"fieldType": {"type": "string"}, "optional": False}}},
        "returns": {"type": "null"},
    }
    assert [one["functionType"] for one in found] == ["Mutation", "Query", "Action"]
    assert found[1]["visibility"] == {"kind": "public"}
    assert found[1]["args"]["value"]["shelf"]["optional"] is True
    assert found[2]["returns"] == {"type": "any"}
    assert backend.run("_system/cli/modules:apiSpec", {"componentId": None}) == found


def test_the_deployments_addresses(backend: Backend) -> None:
    assert backend.run("_system/cli/convexUrl:cloudUrl") == "https://api.example.com"
    assert backend.run("_system/cli/convexUrl:siteUrl") == "https://example.com"


def test_tables_are_described_for_people(backend: Backend) -> None:
    backend.run(add, title="a")
    books, empty = backend.run("_system/camber/tables:describe")

    assert (books["name"], books["count"], books["writeWith"]) == ("books", 1.0, "books:add")
    assert {"name": "by_title", "fields": ["title"], "unique": False} in books["indexes"]
    assert (empty["name"], empty["count"]) == ("empty", 0.0)


PATHS = [
    "_system/cli/tables",
    "_system/cli/tables:default",
    "_system/cli/tableData",
    "_system/cli/modules:apiSpec",
    "_system/cli/convexUrl:cloudUrl",
    "_system/camber/tables:describe",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("caller", [ANONYMOUS, somebody("ann")])
def test_they_are_for_the_operator_only(untouched: Backend, path: str, caller: Caller) -> None:
    told = message(call(untouched, path, by=caller))
    canonical = path if ":" in path else f"{path}:default"
    assert told == f"Could not find public function for '{canonical}'."


def test_whoever_impersonates_keeps_them(backend: Backend) -> None:
    impersonating = Caller(somebody("ann").identity, is_admin=True)

    assert call(backend, "_system/cli/convexUrl:cloudUrl", by=impersonating).ok
    assert call(backend, "books:add", {"title": "a"}, by=impersonating, kind="mutation").ok
