"""More calls than can be taken: each is refused at once with a status that says so, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_table, mutation, query, v
from camber.errors import RequestError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, PATIENCE, all_taken_in, call, in_background

NOTES = define_table("notes", {"text": v.string()})
GATE, BUSY = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def _open_at_the_end(serve: Serve) -> Iterator[None]:
    GATE.clear()
    BUSY.clear()
    yield
    GATE.set()


@query
def hold_query(ctx: QueryCtx) -> None:
    BUSY.set()
    GATE.wait(PATIENCE)


@mutation
def hold_mutation(ctx: MutationCtx) -> None:
    BUSY.set()
    GATE.wait(PATIENCE)


@query
def count(ctx: QueryCtx, *, key: float = 0) -> int:
    return ctx.db.query(NOTES).count()


@mutation
def add(ctx: MutationCtx) -> None:
    ctx.db.insert(NOTES, {"text": "a"})


FUNCTIONS = {"it:holdQuery": hold_query, "it:holdMutation": hold_mutation, "it:count": count, "it:add": add}


def answers(backend: Backend, path: str, arguments: list[bytes], kind: Any, *, then: Any) -> list[Any]:
    """What calls made at once end with, when `then` happens after all were made."""

    async def main() -> list[Any]:
        backend.engine.attach(asyncio.get_running_loop())
        runs = [backend.engine.run(path, text, ANONYMOUS, kind=kind, request_id="") for text in arguments]
        tasks = [asyncio.ensure_future(run) for run in runs]
        await all_taken_in(backend)
        then()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def test_mutations_beyond_those_that_may_wait_are_refused_and_the_others_are_stored(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, queued_mutations=5)
    in_background(lambda: backend.run("it:holdMutation"))
    assert BUSY.wait(PATIENCE)
    ended = answers(backend, "it:add", [b"{}"] * 20, "mutation", then=GATE.set)

    refused = [one for one in ended if isinstance(one, RequestError)]
    assert len(refused) == 15
    assert {(one.status, one.short_code) for one in refused} == {(503, "TooManyConcurrentMutations")}
    assert refused[0].headers == {"Retry-After": "1"}
    assert backend.run("it:count") == 5


def test_queries_beyond_those_that_may_wait_are_refused(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, queued_queries=5, query_threads=1)
    in_background(lambda: backend.run("it:holdQuery"))
    assert BUSY.wait(PATIENCE)
    arguments = [b'{"key":%d}' % key for key in range(20)]
    ended = answers(backend, "it:count", arguments, "query", then=GATE.set)

    refused = [one for one in ended if isinstance(one, RequestError)]
    assert len(refused) == 15
    assert {(one.status, one.short_code) for one in refused} == {(503, "TooManyConcurrentQueries")}
    assert [one.value for one in ended if not isinstance(one, RequestError)] == [b"0.0"] * 5


def test_queries_that_share_a_run_take_one_place(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, queued_queries=1, query_threads=1)
    in_background(lambda: backend.run("it:holdQuery"))
    assert BUSY.wait(PATIENCE)
    ended = answers(backend, "it:count", [b"{}"] * 20, "query", then=GATE.set)

    assert [one.value for one in ended] == [b"0.0"] * 20


def test_kept_results_are_given_also_when_no_query_can_be_taken(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, queued_queries=1, query_threads=1)
    backend.run("it:count", {"key": 0})
    in_background(lambda: backend.run("it:holdQuery"))
    assert BUSY.wait(PATIENCE)
    in_background(lambda: backend.run("it:count", {"key": 1}))

    assert call(backend, "it:count", {"key": 0}).value == b"0.0"


def test_after_the_rush_everything_goes_on(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, queued_mutations=2, queued_queries=2, query_threads=1)
    for _ in range(3):
        answers(backend, "it:add", [b"{}"] * 30, "mutation", then=lambda: None)
        answers(backend, "it:count", [b'{"key":%d}' % key for key in range(30)], "query", then=lambda: None)

    before = backend.run("it:count")
    backend.run("it:add")
    assert backend.run("it:count") == before + 1
