"""Closing a server answers everybody who waits."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camber import QueryCtx, define_table, query, v
from camber.backend import Timestamp
from camber.errors import StorageError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, in_background

NOTES = define_table("notes", {"text": v.string()})
PATIENCE = 30.0
MANY = 400
"""More than could be answered one inside the other."""
BEGUN, GATE = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def _open_at_the_end(serve: Serve) -> Iterator[None]:
    BEGUN.clear()
    GATE.clear()
    yield
    GATE.set()


@query
def wait(ctx: QueryCtx) -> int:
    BEGUN.set()
    GATE.wait(PATIENCE)
    return ctx.db.query(NOTES).count()


@query
def count(ctx: QueryCtx, *, key: float) -> int:
    return ctx.db.query(NOTES).count()


async def ask(backend: Backend, path: str, at: Timestamp | None = None, **args: Any) -> Any:
    outcome = await backend.engine.run(path, json.dumps(args).encode(), ANONYMOUS, kind="query", request_id="", at=at)
    return float(outcome.value or b"nan")


async def until_no_query_is_taken(backend: Backend) -> None:
    deadline, key = time.monotonic() + PATIENCE, 0
    while True:
        try:
            await ask(backend, "it:count", key=(key := key + 1))
        except StorageError:
            return
        assert time.monotonic() < deadline


def test_all_who_wait_for_one_held_snapshot_are_answered(serve: Serve) -> None:
    backend = serve({"it:wait": wait, "it:count": count}, NOTES, query_seconds=PATIENCE)

    async def main() -> list[Any]:
        backend.engine.attach(asyncio.get_running_loop())
        at = await backend.engine.hold_snapshot()
        first = asyncio.create_task(ask(backend, "it:wait", at))
        await asyncio.to_thread(BEGUN.wait, PATIENCE)
        others = [asyncio.create_task(ask(backend, "it:count", at, key=key)) for key in range(MANY)]
        await asyncio.sleep(0)
        closing = in_background(backend.engine.close)
        await until_no_query_is_taken(backend)
        assert not any(each.done() for each in (first, *others))
        GATE.set()
        answers = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), PATIENCE)
        await asyncio.wait_for(asyncio.wrap_future(closing), PATIENCE)
        return answers

    first, *others = asyncio.run(main())

    assert first == 0
    assert {type(each) for each in others} == {StorageError}
    assert {str(each) for each in others} == {"The server is shutting down."}
