"""How large arguments and results may be, and how long a function may take."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from camber import ActionCtx, MutationCtx, QueryCtx, define_table, query, v
from camber.backend import Outcome
from camber.errors import FunctionTimeoutError
from camber.values import normalize, size_of
from tests.functions.conftest import Serve
from tests.functions.deployments import PATIENCE, UNHURRIED, call, in_background, limited, message, somebody, until

MIB = 1 << 20
NOTES = define_table("notes", {"text": v.string()})

EACH = pytest.mark.parametrize(("path", "kind"), [("it:ask", "query"), ("it:do", "mutation"), ("it:act", "action")])


def ask_size(ctx: QueryCtx, *, given: Any = None, size: float = 0) -> Any:
    return "x" * int(size)


def do_size(ctx: MutationCtx, *, given: Any = None, size: float = 0) -> Any:
    ctx.db.insert(NOTES, {"text": "written"})
    return "x" * int(size)


async def act_size(ctx: ActionCtx, *, given: Any = None, size: float = 0) -> Any:
    return "x" * int(size)


SIZES = {"it:ask": ask_size, "it:do": do_size, "it:act": act_size}


# Sizes


@EACH
def test_arguments_above_the_limit_are_refused(serve: Serve, path: str, kind: str) -> None:
    backend = serve(SIZES, NOTES, arguments_bytes=1000)
    smallest = size_of({"given": ""})

    assert call(backend, path, {"given": "x" * (1000 - smallest)}, kind=kind).ok
    refused = call(backend, path, {"given": "x" * (1001 - smallest)}, kind=kind)
    assert (
        message(refused)
        == f"Uncaught Error: Arguments for {path} are too large (actual: 1001 bytes, limit: 1000 bytes)"
    )


def test_small_text_can_stand_for_large_arguments(serve: Serve) -> None:
    backend = serve(SIZES, NOTES, arguments_bytes=1000)

    assert call(backend, "it:ask", {"given": [1] * 100}).ok
    assert "are too large" in message(call(backend, "it:ask", {"given": [1] * 120}))


def test_arguments_of_16_mib_pass_and_more_are_refused(serve: Serve) -> None:
    backend = serve(SIZES, NOTES)
    part = "x" * (MIB // 2)
    rest = 16 * MIB - size_of(normalize({"given": [part] * 31 + [""]}))

    assert call(backend, "it:do", {"given": [part] * 31 + ["x" * rest]}, kind="mutation").ok
    refused = call(backend, "it:do", {"given": [part] * 31 + ["x" * (rest + 1)]}, kind="mutation")
    assert message(refused).endswith("Arguments for it:do are too large (actual: 16777217 bytes, limit: 16 MiB)")
    assert backend.transact(lambda ctx: ctx.db.query(NOTES).count()) == 1


@EACH
def test_a_result_above_the_limit_is_refused_and_leaves_nothing(serve: Serve, path: str, kind: str) -> None:
    backend = serve(SIZES, NOTES, result_bytes=1000)

    assert call(backend, path, {"size": 998}, kind=kind).ok
    refused = call(backend, path, {"size": 999}, kind=kind)
    told = message(refused).split("\n")[0]
    assert told == f"Uncaught Error: The result of {path} is too large (actual: 1001 bytes, limit: 1000 bytes)"
    assert backend.transact(lambda ctx: ctx.db.query(NOTES).count()) == (1 if kind == "mutation" else 0)


def test_the_limit_of_results_is_16_mib(serve: Serve) -> None:
    backend = serve(SIZES, NOTES)

    assert call(backend, "it:ask", {"size": 16 * MIB - 2}).ok
    assert "limit: 16 MiB" in message(call(backend, "it:ask", {"size": 16 * MIB - 1}))


# Time

STOP, BEGUN = threading.Event(), threading.Event()
LOGGED: list[str] = []


@pytest.fixture(autouse=True)
def _stop_at_the_end(serve: Serve) -> Iterator[None]:  # before what is served is closed
    STOP.clear()
    BEGUN.clear()
    LOGGED.clear()
    yield
    STOP.set()
    time.sleep(0.01)


def loop() -> None:
    while not STOP.is_set():
        sum(range(100))


def sleep() -> None:
    STOP.wait(PATIENCE)


def catch_all() -> None:
    while not STOP.is_set():
        try:
            sum(range(100))
        except BaseException:  # noqa: BLE001
            continue


def loop_in_c() -> None:
    sum(range(10**9))


WAYS: dict[str, Callable[[], None]] = {"loop": loop, "sleep": sleep, "catch all": catch_all}


def ask_long(ctx: QueryCtx, *, how: str, key: float = 0) -> None:
    ctx.log("begun")
    LOGGED.append("[LOG] 'begun'")
    WAYS[how]()


def do_long(ctx: MutationCtx, *, how: str) -> None:
    ctx.log("begun")
    LOGGED.append("[LOG] 'begun'")
    ctx.db.insert(NOTES, {"text": "never"})
    WAYS[how]()


def count(ctx: QueryCtx, *, key: float = 0) -> int:
    return ctx.db.query(NOTES).count()


def add(ctx: MutationCtx) -> None:
    ctx.db.insert(NOTES, {"text": "a"})


LONG = {"it:ask": ask_long, "it:do": do_long, "it:count": count, "it:add": add}
QUICK: dict[str, Any] = {"query_seconds": 0.2, "mutation_seconds": 0.2}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(("path", "kind"), [("it:ask", "query"), ("it:do", "mutation")])
def test_a_function_that_does_not_end_is_refused_in_words_and_the_next_one_runs(
    serve: Serve, path: str, kind: str, how: str
) -> None:
    backend = serve(LONG, NOTES)
    began = time.monotonic()
    with limited(backend, **QUICK):
        outcome = call(backend, path, {"how": how}, kind=kind)
    took = time.monotonic() - began

    assert message(outcome).split("\n")[0] == "Uncaught Error: Function execution timed out (maximum duration: 0.2s)"
    assert isinstance(outcome.exception, FunctionTimeoutError)
    assert took < PATIENCE / 2
    backend.run("it:add")
    assert backend.run("it:count") == 1
    assert backend.engine.ready() is None


@pytest.mark.parametrize(("path", "kind"), [("it:ask", "query"), ("it:do", "mutation")])
def test_what_it_logged_until_then_is_told(serve: Serve, path: str, kind: str) -> None:
    backend = serve(LONG, NOTES, **QUICK)

    assert call(backend, path, {"how": "loop"}, kind=kind).log_lines == LOGGED


def test_a_slow_query_delays_only_those_who_wait_for_it(serve: Serve) -> None:
    backend = serve(LONG, NOTES)
    slow = in_background(lambda: call(backend, "it:ask", {"how": "loop"}))
    until(lambda: LOGGED)
    for key in range(5):
        assert backend.run("it:count", {"key": key}) == key
        backend.run("it:add")

    assert not slow.done()
    STOP.set()
    assert slow.result(PATIENCE).ok


def test_queries_that_never_come_back_cost_their_threads_and_nobody_else(serve: Serve) -> None:
    backend = serve(LONG, NOTES, query_threads=2)

    for key in range(2):
        with limited(backend, **QUICK):
            assert not call(backend, "it:ask", {"how": "sleep", "key": key}).ok
    assert backend.run("it:count") == 0


def test_those_who_share_a_run_that_looked_at_its_caller_each_get_their_own(serve: Serve) -> None:
    def ask(ctx: QueryCtx) -> str | None:
        identity = ctx.auth.get_user_identity()
        if identity and identity.subject == "ann":
            BEGUN.set()
            loop()
        return identity.subject if identity else None

    backend = serve({**LONG, "it:ask": query(ask)}, NOTES, query_threads=1)

    async def asked(*names: str) -> list[Outcome]:
        engine, runs = backend.engine, list[asyncio.Task[Outcome]]()
        engine.attach(asyncio.get_running_loop())
        for name in names:
            with limited(backend, **(QUICK if name == "ann" else UNHURRIED)):
                run = engine.run("it:ask", b"{}", somebody(name), kind="query", request_id="")
                runs.append(asyncio.create_task(run))
                await asyncio.sleep(0)
        return await asyncio.gather(*runs)

    with limited(backend, **QUICK):
        blocker = in_background(lambda: call(backend, "it:ask", by=somebody("ann")))
        # Its run has begun, so that the next ones wait together for one run.
        until(lambda: BEGUN.is_set() or blocker.done())
    ann, bob, other_ann = asyncio.run(asked("ann", "bob", "ann"))

    assert not ann.ok
    assert not other_ann.ok
    assert bob.value == b'"bob"'
    assert not blocker.result(PATIENCE).ok
