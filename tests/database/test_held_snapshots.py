"""Snapshots kept for several queries of one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, v
from camber.errors import RequestError
from camber.identity import OPERATOR
from camber.storage import Timestamp
from camber.testing import Backend
from tests.database.playground import UNHURRIED, Call

COUNTERS = define_table("counters", v.any())


def count(ctx: QueryCtx) -> int:
    return ctx.db.query("counters").count()


def add(ctx: MutationCtx) -> None:
    ctx.db.insert("counters", {})


@pytest.fixture
def backend() -> Iterator[Backend]:
    functions = {"c:count": count, "c:add": add}
    with Backend.in_memory(define_schema(COUNTERS), functions, settings=UNHURRIED) as opened:
        yield opened


def hold(backend: Backend) -> Timestamp:
    async def ask() -> Timestamp:
        return await backend.engine.hold_snapshot()

    return asyncio.run(ask())


def count_at(backend: Backend, at: Timestamp) -> float:
    async def ask() -> Any:
        backend.engine.attach(asyncio.get_running_loop())
        return await backend.engine.run("c:count", b"{}", OPERATOR, kind="query", request_id="r", at=at)

    return float(asyncio.run(ask()).value)


def test_queries_at_a_timestamp_see_that_moment_whatever_comes_after(backend: Backend) -> None:
    moments: list[Timestamp] = []
    for _ in range(4):
        moments.append(hold(backend))
        backend.run("c:add", {})

    assert [count_at(backend, at) for at in reversed(moments)] == [3, 2, 1, 0]
    assert backend.run("c:count", {}) == 4


def test_the_same_state_is_kept_once(backend: Backend) -> None:
    assert len({hold(backend) for _ in range(20)}) == 1


def test_sixteen_are_kept_and_the_oldest_goes_first(backend: Backend) -> None:
    moments: list[Timestamp] = []
    for _ in range(17):
        moments.append(hold(backend))
        backend.run("c:add", {})

    with pytest.raises(RequestError) as refused:
        count_at(backend, moments[0])
    assert (refused.value.status, refused.value.short_code) == (400, "SnapshotExpired")
    assert count_at(backend, moments[1]) == 1


def test_a_timestamp_that_was_never_held_is_refused(backend: Backend) -> None:
    with pytest.raises(RequestError, match="is not kept any more"):
        count_at(backend, Timestamp(12345))


def test_held_snapshots_keep_nobody_else_waiting(backend: Backend) -> None:
    for _ in range(40):
        hold(backend)
        backend.run("c:add", {})

    calls = [Call(backend.run, "c:count", {}) for _ in range(8)]
    assert [call.outcome() for call in calls] == [40] * 8
    backend.run("c:add", {})
    assert backend.run("c:count", {}) == 41
