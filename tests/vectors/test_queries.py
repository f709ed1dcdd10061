"""queries.json: what each query finds, on stored documents and on those that its own transaction has just written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from camber import UNSET, CamberError, MutationCtx, QueryCtx
from camber.settings import Settings
from tests.database.playground import Playground, ids_of
from tests.vectors.queries import Recorded, build, page_options, schema_of
from tests.vectors.reading import Token, cases, each, patch_of, value_of

T = TypeVar("T")

Reader = Callable[[Callable[[QueryCtx], Any]], Any]
"""Runs a body as a function of its own, and gives what it returned."""

PROGRAMS = cases("queries.json")


class Program:
    """One recorded database: its documents, by their positions."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.playground = Playground(schema_of(recorded["schema"]), settings=Settings(dev=True, mutation_seconds=60))
        self._loaded = 0
        self._ids: list[str] = []
        self._creation_times: dict[int, float] = {}

    def load(self, ctx: MutationCtx, *, until: int) -> None:
        """Insert the first documents."""
        self._ids, self._creation_times, self._loaded = [], {}, until
        self._insert(ctx, self.recorded["documents"][:until])

    def load_rest(self, ctx: MutationCtx) -> None:
        """Insert the documents that are still wanting, then write what the set-up says."""
        del self._ids[self._loaded :]
        self._insert(ctx, self.recorded["documents"][self._loaded :])
        for step in self.recorded.get("setup", []):
            id = self._ids[step["doc"]]
            match step["op"]:
                case "patch":
                    ctx.db.patch(id, patch_of(step["value"], UNSET))
                case "replace":
                    ctx.db.replace(id, value_of(step["value"]))
                case _:
                    ctx.db.delete(id)

    def answer(self, query: Recorded, read: Reader) -> dict[str, Any]:
        """What the query finds, in the vectors' terms. Raises what it raises."""
        terminal = query["terminal"]
        if terminal["op"] == "paginate":
            return {"pages": self._pages(query, read)}
        found = read(lambda ctx: _last_word(self._build(ctx, query), terminal))
        if terminal["op"] in ("first", "unique"):
            return {"doc": None if found is None else self._position(found)}
        return {"docs": [self._position(document) for document in found]}

    def _pages(self, query: Recorded, read: Reader) -> list[dict[str, Any]]:
        pages: list[dict[str, Any]] = []
        cursor: str | None = query.get("cursorText")
        if other := query.get("cursorFrom"):
            cursor = read(lambda ctx: self._build(ctx, other).paginate({"numItems": 1, "cursor": None}))[
                "continueCursor"
            ]
        while True:
            options = page_options(query["terminal"], cursor)
            page = read(lambda ctx, options=options: self._page(ctx, query, options))
            found = {"docs": [self._position(document) for document in page["page"]], "isDone": page["isDone"]}
            pages.append(found | ({"pageStatus": page["pageStatus"]} if page["pageStatus"] else {}))
            if page["isDone"]:
                return pages
            cursor = page["continueCursor"]

    def _page(self, ctx: QueryCtx, query: Recorded, options: dict[str, Any]) -> Any:
        if query.get("twice"):
            self._build(ctx, query).paginate(options)
        return self._build(ctx, query).paginate(options)

    def _build(self, ctx: QueryCtx, query: Recorded) -> Any:
        return build(ctx, query, self._tokens())

    def _tokens(self) -> dict[str, Token]:
        return {"$docId": self._ids.__getitem__, "$creationTime": self._creation_times.__getitem__}

    def _insert(self, ctx: MutationCtx, documents: list[Recorded]) -> None:
        for document in documents:
            id = ctx.db.insert(document["table"], value_of(document["value"], self._tokens()))
            self._creation_times[len(self._ids)] = (ctx.db.get(id) or {})["_creationTime"]
            self._ids.append(id)

    def _position(self, document: dict[str, Any]) -> int:
        return self._ids.index(document["_id"])


def _last_word(query: Any, terminal: Recorded) -> Any:
    match terminal["op"]:
        case "collect":
            found = query.collect()
            assert ids_of(query) == ids_of(found), "iterating gives what collect() gives"
            return found
        case "take":
            count = terminal["n"]
            return query.take(value_of(count) if isinstance(count, dict) else count)
        case "first":
            return query.first()
        case _:
            return query.unique()


def judge(query: Recorded, ask: Callable[[], dict[str, Any]]) -> None:
    """Hold an answer to what was recorded; whether there is an error is what binds."""
    expected = query["expected"]
    if "error" in expected:
        with pytest.raises(CamberError):
            ask()
        return
    found = ask()
    if query.get("unordered"):
        found["docs"] = sorted(found["docs"])
    assert found == {name: value for name, value in expected.items() if name in ("docs", "doc", "pages")}


LOADED: dict[str, Program] = {}


@pytest.fixture(scope="module", autouse=True)
def close_programs(engine: str) -> Iterator[None]:
    yield
    while LOADED:
        LOADED.popitem()[1].playground.close()


def loaded(program: Recorded) -> Program:
    """The program's database with all documents stored; the queries of a program share it, because none of them writes."""
    name = program["name"]
    if name not in LOADED:
        LOADED[name] = Program(program)
        LOADED[name].playground.write(LOADED[name].load_rest)
    return LOADED[name]


QUERIES = [{**query, "program": program} for program in PROGRAMS for query in program["queries"]]


@pytest.mark.parametrize("query", each(QUERIES))
def test_a_query_finds_what_was_recorded(query: Recorded) -> None:
    program = loaded(query["program"])

    judge(query, lambda: program.answer(query, program.playground.read))


@pytest.mark.parametrize("stored", ["nothing", "half"])
@pytest.mark.parametrize("recorded", each(PROGRAMS))
def test_a_mutation_finds_the_same_among_what_it_wrote_itself(recorded: Recorded, stored: str) -> None:
    program = Program(recorded)
    playground = program.playground

    def ask_everything(ctx: MutationCtx) -> None:
        program.load_rest(ctx)
        for query in recorded["queries"]:
            judge(query, lambda query=query: program.answer(query, lambda body: playground.read_inside(ctx, body)))

    if stored == "half":
        half = len(recorded["documents"]) // 2
        playground.write(lambda ctx: program.load(ctx, until=half))
    playground.write(ask_everything)
    playground.close()
