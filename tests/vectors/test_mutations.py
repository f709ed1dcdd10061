"""mutations.json: what each step of a program answers, and what the tables hold after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from camber import UNSET, ConvexError, MutationCtx, QueryCtx
from camber.settings import Settings
from tests.database.playground import Playground, fields_of
from tests.vectors.queries import Recorded, build, schema_of
from tests.vectors.reading import cases, each, patch_of, same, value_of

UNBOUND = "unbound"


class Thrown(Exception):
    """What a recorded function throws."""


class Program:
    """One recorded database, with the ids that its inserts gave under the names the vectors use."""

    def __init__(self, recorded: Recorded) -> None:
        self.playground = Playground(schema_of(recorded["schema"]), settings=Settings(dev=True, mutation_seconds=60))
        self._ids: dict[str, str] = {}
        self._creation_times: dict[str, float] = {}
        self._cursors: dict[str, str] = {}
        self._known: dict[str, tuple[str, float]] = {}

    def run(self, step: Recorded) -> tuple[list[Any], Exception | None]:
        """The results of the operations that were reached, and what the call raised."""
        results: list[Any] = []

        def body(ctx: Any) -> None:
            results.clear()
            self._perform(ctx, step["ops"], results)

        try:
            if step["run"] == "mutation":
                self.playground.write(body)
            else:
                self.playground.read(body)
        except Exception as error:  # noqa: BLE001 - it is what is judged
            return results, error
        return results, None

    def state(self, table: str) -> list[dict[str, Any]]:
        """Every document of a table in the order of creation, under its name; system fields must stay what they were."""
        documents = self.playground.all(table)
        for document in documents:
            system = (document["_id"], document["_creationTime"])
            assert self._known.setdefault(document["_id"], system) == system
        return [self._named(document) for document in documents]

    def _perform(self, ctx: Any, operations: list[Recorded], results: list[Any]) -> None:
        for operation in operations:
            nested: list[Any] = []
            try:
                results.append(self._one(ctx, operation, nested))
            except Exception as error:
                data = {"data": error.data} if type(error) is ConvexError else {}
                results.append({"error": data, **({"results": nested} if "ops" in operation else {})})
                if not operation.get("catch"):
                    raise

    def _one(self, ctx: Any, operation: Recorded, nested: list[Any]) -> Any:
        match operation["op"]:
            case "insert":
                return {"id": self._insert(ctx, operation)}
            case "patch":
                value = operation["value"]
                fields = patch_of(value, UNSET, self._tokens()) if isinstance(value, dict) else value
                return ctx.db.patch(*self._target(operation), fields)
            case "replace":
                return ctx.db.replace(*self._target(operation), self._value(operation["value"]))
            case "delete":
                return ctx.db.delete(*self._target(operation))
            case "get":
                found = ctx.db.get(*self._target(operation))
                return {"doc": None if found is None else self._named(found)}
            case "query":
                return self._query(ctx, operation["query"])
            case "paginate":
                return self._paginate(ctx, operation)
            case "throw":
                raise Thrown(operation["message"])
            case "throwConvexError":
                raise ConvexError(self._value(operation["data"]))
            case "runMutation":
                self.playground.write_inside(ctx, lambda inner: self._perform(inner, operation["ops"], nested))
                return {"results": nested}
            case _:
                self.playground.read_inside(ctx, lambda inner: self._perform(inner, operation["ops"], nested))
                return {"results": nested}

    def _insert(self, ctx: MutationCtx, operation: Recorded) -> str | None:
        id = ctx.db.insert(operation["table"], self._value(operation["value"]))
        label = operation.get("as")
        if label is not None:
            self._ids[label] = id
            self._creation_times[label] = ctx.db.query(operation["table"]).order("desc").take(1)[0]["_creationTime"]
        return label

    def _query(self, ctx: QueryCtx, recorded: Recorded) -> Any:
        query = build(ctx, recorded, self._tokens())
        terminal = recorded["terminal"]
        if terminal["op"] in ("first", "unique"):
            found = query.first() if terminal["op"] == "first" else query.unique()
            return {"doc": None if found is None else self._label(found["_id"])}
        found = query.collect() if terminal["op"] == "collect" else query.take(terminal["n"])
        return {"docs": [self._label(document["_id"]) for document in found]}

    def _paginate(self, ctx: QueryCtx, operation: Recorded) -> Any:
        query = build(ctx, operation["query"], self._tokens())
        page = query.paginate({"numItems": operation["numItems"], "cursor": self._value(operation["cursor"])})
        if name := operation.get("saveCursor"):
            self._cursors[name] = page["continueCursor"]
        return {"docs": [self._label(document["_id"]) for document in page["page"]], "isDone": page["isDone"]}

    def _target(self, operation: Recorded) -> list[Any]:
        return [*([operation["table"]] if "table" in operation else []), self._value(operation["id"])]

    def _value(self, recorded: Any) -> Any:
        return value_of(recorded, self._tokens())

    def _tokens(self) -> dict[str, Any]:
        return {
            "$ref": lambda name: self._ids.get(name, UNBOUND),
            "$creationTimeOf": lambda name: self._creation_times.get(name, UNBOUND),
            "$cursor": lambda name: self._cursors[name],
        }

    def _named(self, document: dict[str, Any]) -> dict[str, Any]:
        return {"ref": self._label(document["_id"]), "value": fields_of(document)}

    def _label(self, id: str) -> str | None:
        return next((label for label, bound in self._ids.items() if bound == id), None)

    def decoded(self, recorded: Any) -> Any:
        """Recorded results with values in place of their JSON; of an error only its data is kept."""
        if isinstance(recorded, list):
            return [self.decoded(item) for item in recorded]
        if not isinstance(recorded, dict):
            return recorded
        if "error" in recorded:
            error = recorded["error"]
            kept = {"data": self._value(error["data"])} if error["kind"] == "ConvexError" else {}
            return {"error": kept, **({"results": self.decoded(recorded["results"])} if "results" in recorded else {})}
        if "value" in recorded:
            return {"ref": recorded["ref"], "value": self._value(recorded["value"])}
        return {name: self.decoded(item) for name, item in recorded.items()}


@contextmanager
def program(recorded: Recorded) -> Iterator[Program]:
    opened = Program(recorded)
    try:
        yield opened
    finally:
        opened.playground.close()


@pytest.mark.parametrize("recorded", each(cases("mutations.json")))
def test_a_program_answers_and_leaves_what_was_recorded(recorded: Recorded) -> None:
    with program(recorded) as opened:
        for step in recorded["steps"]:
            results, error = opened.run(step)
            expected = step["expected"]

            assert (error is None) == expected["ok"], error
            assert same(results, opened.decoded(expected["results"])), (results, expected["results"])
            if "data" in expected:
                assert isinstance(error, ConvexError)
                assert same(error.data, value_of(expected["data"]))
            for table, documents in expected["state"].items():
                if not documents and table not in recorded["schema"]["tables"]:
                    continue  # it may have a name that no table can have
                assert same(opened.state(table), opened.decoded(documents)), table
