"""Several queries on one state while writes go on (protocol 4.1, `query_ts` and `query_at_ts`)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from camber import MutationCtx, QueryCtx, define_table, mutation, query, v
from camber.backend import Timestamp
from camber.database import held_snapshots
from camber.errors import RequestError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, PATIENCE, in_background, limited, message

T = TypeVar("T")

NOTES = define_table("notes", {"text": v.string()})
GATE = threading.Event()
TOOK: dict[float, float] = {}
"""How long each slow query has run."""


@query
def count(ctx: QueryCtx, *, key: float = 0) -> int:
    return ctx.db.query(NOTES).count()


@query
def slow(ctx: QueryCtx, *, key: float) -> int:
    began = time.monotonic()
    try:
        time.sleep(0.15)
        return ctx.db.query(NOTES).count()
    finally:
        TOOK[key] = time.monotonic() - began


@query
def wait(ctx: QueryCtx) -> int:
    GATE.wait(PATIENCE)
    return ctx.db.query(NOTES).count()


@mutation
def add(ctx: MutationCtx) -> None:
    ctx.db.insert(NOTES, {"text": "a"})


FUNCTIONS = {"it:count": count, "it:slow": slow, "it:wait": wait, "it:add": add}


@pytest.fixture(autouse=True)
def _open_at_the_end(serve: Serve) -> Iterator[None]:
    GATE.clear()
    TOOK.clear()
    yield
    GATE.set()


@pytest.fixture
def backend(serve: Serve) -> Backend:
    return serve(FUNCTIONS, NOTES)


def on_loop(backend: Backend, main: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        backend.engine.attach(asyncio.get_running_loop())
        return await main()

    return asyncio.run(run())


async def ask(backend: Backend, at: Timestamp | None, path: str = "it:count", **args: Any) -> Any:
    outcome = await backend.engine.run(path, json.dumps(args).encode(), ANONYMOUS, kind="query", request_id="", at=at)
    if outcome.exception is not None:
        raise outcome.exception
    return float(outcome.value or b"")


def test_queries_at_a_timestamp_see_its_state_however_much_is_written(backend: Backend) -> None:
    async def main() -> Any:
        backend.run("it:add")
        at = await backend.engine.hold_snapshot()
        seen: list[Any] = []
        for key in range(3):
            backend.run("it:add")
            seen += [await ask(backend, at, key=key), await ask(backend, None, key=key)]
        return seen

    assert on_loop(backend, main) == [1, 2, 1, 3, 1, 4]


def test_an_old_result_is_not_kept_for_those_who_ask_for_the_latest_state(backend: Backend) -> None:
    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        backend.run("it:add")
        return [await ask(backend, None), await ask(backend, at), await ask(backend, None), await ask(backend, at)]

    assert on_loop(backend, main) == [1, 0, 1, 0]


def test_a_timestamp_names_one_state(backend: Backend) -> None:
    async def main() -> Any:
        first, same = await backend.engine.hold_snapshot(), await backend.engine.hold_snapshot()
        backend.run("it:add")
        other = await backend.engine.hold_snapshot()
        return [first == same, other > first, await ask(backend, first), await ask(backend, other)]

    assert on_loop(backend, main) == [True, True, 0, 1]


def test_the_timestamp_of_the_answer_is_the_one_that_was_asked_for(backend: Backend) -> None:
    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        backend.run("it:add")
        outcome = await backend.engine.run("it:count", b"{}", ANONYMOUS, kind="query", request_id="", at=at)
        return at, outcome.timestamp

    at, answered = on_loop(backend, main)
    assert at == answered


def test_sixteen_are_kept_and_the_oldest_goes(backend: Backend) -> None:
    async def main() -> None:
        held: list[Timestamp] = []
        for _ in range(17):
            held.append(await backend.engine.hold_snapshot())
            backend.run("it:add")
        with pytest.raises(RequestError) as raised:
            await ask(backend, held[0])
        assert (raised.value.status, raised.value.short_code) == (400, "SnapshotExpired")
        assert "ask /api/query_ts for a new one" in str(raised.value)
        assert [await ask(backend, at) for at in held[1:]] == list(range(1, 17))

    on_loop(backend, main)


def test_a_timestamp_that_was_never_held_is_refused(backend: Backend) -> None:
    async def main() -> None:
        at = await backend.engine.hold_snapshot()
        for other in (0, at - 1, at + 1, 2**63):
            with pytest.raises(RequestError, match="is not kept any more"):
                await ask(backend, Timestamp(other))

    on_loop(backend, main)


def test_it_is_kept_for_30_seconds_after_it_was_last_asked_for(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(held_snapshots, "time", SimpleNamespace(monotonic=lambda: now))

    async def main() -> None:
        nonlocal now
        at = await backend.engine.hold_snapshot()
        now += 29
        assert await backend.engine.hold_snapshot() == at  # nothing was written since: held anew
        now += 29
        assert await ask(backend, at) == 0
        now += 2
        with pytest.raises(RequestError, match="is not kept any more"):
            await ask(backend, at)

    on_loop(backend, main)


def test_many_slow_queries_on_one_state_take_turns_and_all_are_answered(serve: Serve) -> None:
    limit = 1.0
    backend = serve(FUNCTIONS, NOTES, query_seconds=limit)

    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        backend.run("it:add")
        slow_ones = [ask(backend, at, "it:slow", key=key) for key in range(10)]
        return await asyncio.gather(*slow_ones, return_exceptions=True)

    answers = on_loop(backend, main)

    # On a machine that stood still one may have been too slow by itself.
    in_time = [answer for key, answer in enumerate(answers) if TOOK.get(key, limit) < limit]
    assert in_time == [0] * len(in_time)
    assert len(in_time) >= 9
    assert backend.engine.ready() is None


def test_queries_of_the_latest_state_do_not_wait_for_those(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES, query_threads=2)

    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        held = [asyncio.create_task(ask(backend, at, "it:wait")) for _ in range(5)]
        await asyncio.sleep(0.05)
        latest = [await ask(backend, None, key=key) for key in range(3)]
        waiting = not any(one.done() for one in held)
        GATE.set()
        return [latest, waiting, await asyncio.gather(*held)]

    assert on_loop(backend, main) == [[0, 0, 0], True, [0] * 5]


def test_who_comes_to_its_turn_too_late_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = serve(FUNCTIONS, NOTES)
    now = 1000.0
    monkeypatch.setattr(held_snapshots, "time", SimpleNamespace(monotonic=lambda: now))

    async def main() -> None:
        nonlocal now
        at = await backend.engine.hold_snapshot()
        first = asyncio.create_task(ask(backend, at, "it:wait"))
        await asyncio.sleep(0)
        second = asyncio.create_task(ask(backend, at, "it:wait"))
        now += 31
        backend.run("it:add")
        await backend.engine.hold_snapshot()
        GATE.set()
        assert await first == 0  # it had begun
        with pytest.raises(RequestError, match="is not kept any more"):
            await second

    on_loop(backend, main)


def test_one_that_does_not_end_gives_way_to_the_next(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)

    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        backend.run("it:add")
        with limited(backend, query_seconds=0.3):
            stuck = asyncio.create_task(ask(backend, at, "it:wait"))
            await asyncio.sleep(0)
        after = await ask(backend, at)
        with pytest.raises(Exception, match="timed out"):
            await stuck
        return after

    assert on_loop(backend, main) == 0


def test_a_mutation_at_a_timestamp_is_a_mutation(backend: Backend) -> None:
    async def main() -> Any:
        at = await backend.engine.hold_snapshot()
        told = await backend.engine.run("it:add", b"{}", ANONYMOUS, kind="query", request_id="", at=at)
        return message(told)

    assert on_loop(backend, main).startswith("Trying to execute it.js:add as Query")


def test_holding_does_not_keep_a_deployment_from_closing(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    on_loop(backend, backend.engine.hold_snapshot)

    assert in_background(backend.close).result(PATIENCE) is None
