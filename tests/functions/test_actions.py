"""Actions: at the same time, in the way of nobody, and calling queries, mutations and each other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camber import (
    ActionCtx,
    ArgumentValidationError,
    ConvexError,
    DatabaseUsageError,
    Int64,
    MutationCtx,
    QueryCtx,
    action,
    define_table,
    internal_mutation,
    internal_query,
    mutation,
    query,
    v,
)
from camber.errors import FunctionTimeoutError, RequestError, StorageError, WrongKindError
from camber.functions import action_pool
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import (
    PATIENCE,
    call,
    deployed,
    in_background,
    limited,
    message,
    somebody,
    together,
    until,
)

NOTES = define_table("notes", {"text": v.string()})
STOP, GATE = threading.Event(), threading.Event()
BLOCKED: list[str] = []
ALL = 20
MET: list[str] = []


@pytest.fixture(autouse=True)
def _stop_at_the_end(serve: Serve) -> Iterator[None]:  # before what is served is closed
    STOP.clear()
    GATE.clear()
    BLOCKED.clear()
    MET.clear()
    yield
    GATE.set()
    STOP.set()


@query
def count(ctx: QueryCtx) -> int:
    return ctx.db.query(NOTES).count()


@internal_query
def texts(ctx: QueryCtx) -> list[str]:
    ctx.log("looking")
    return [note["text"] for note in ctx.db.query(NOTES)]


@internal_mutation
def add(ctx: MutationCtx, *, text: str, then: str | None = None) -> int:
    ctx.db.insert(NOTES, {"text": text})
    ctx.log("adding", text)
    if then:
        raise ConvexError({"text": then})
    return count(ctx)


@mutation
def slow_add(ctx: MutationCtx) -> None:
    time.sleep(0.1)
    ctx.db.insert(NOTES, {"text": "slow"})


@mutation
def add_behind_the_gate(ctx: MutationCtx) -> None:
    GATE.wait(PATIENCE)
    ctx.db.insert(NOTES, {"text": "late"})


@query
def who(ctx: QueryCtx) -> list[Any]:
    identity = ctx.auth.get_user_identity()
    return [identity and identity.subject, ctx.auth.is_operator]


@action
async def wait(ctx: ActionCtx, *, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@action
async def meet(ctx: ActionCtx) -> str:
    """Wait until all are here."""
    MET.append("one")
    async with asyncio.timeout(PATIENCE):
        while len(MET) < ALL:  # noqa: ASYNC110  they are on other threads
            await asyncio.sleep(0.01)
    return "met"


@action
async def block(ctx: ActionCtx) -> str:
    BLOCKED.append("one")
    STOP.wait()
    return "blocked"


BASE: dict[str, Any] = {
    "it:count": count,
    "it:texts": texts,
    "it:add": add,
    "it:slowAdd": slow_add,
    "it:addBehindTheGate": add_behind_the_gate,
    "it:who": who,
    "it:wait": wait,
    "it:meet": meet,
    "it:block": block,
}


def acting(serve: Serve, body: Any, **settings: Any) -> Backend:
    """A backend whose action `it:act` does this."""

    @action
    async def act(ctx: ActionCtx):
        return await body(ctx)

    return serve({**BASE, "it:act": act}, NOTES, **settings)


def acted(serve: Serve, body: Any, **settings: Any) -> Any:
    return acting(serve, body, **settings).run("it:act")


# What it works with


def test_an_action_calls_queries_and_mutations_by_function_and_by_path(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        first = await ctx.run_mutation(add, text="one")
        second = await ctx.run_mutation("it:add", {"text": "two"})
        return [first, second, type(first).__name__, await ctx.run_query(count), await ctx.run_query("it:texts")]

    assert acted(serve, body) == [1.0, 2.0, "int", 2.0, ["one", "two"]]


def test_each_call_is_a_transaction_of_its_own(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        await ctx.run_mutation(add, text="one")
        with pytest.raises(ConvexError) as raised:
            await ctx.run_mutation(add, text="two", then="no")
        raise ConvexError([raised.value.data, await ctx.run_query(texts)])

    backend = acting(serve, body)
    with pytest.raises(ConvexError) as raised:
        backend.run("it:act")
    assert raised.value.data == [{"text": "no"}, ["one"]]
    assert backend.run("it:count") == 1


def test_an_error_that_is_not_caught_is_the_actions(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        await ctx.run_mutation(add, text="one", then="no")

    outcome = call(acting(serve, body), "it:act", kind="action")
    assert outcome.error_data == b'{"text":"no"}'


def test_an_action_calls_another_one(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        both = await asyncio.gather(ctx.run_action(wait, seconds=0.01), ctx.run_action("it:wait", {"seconds": 0}))
        return list(both)

    assert acted(serve, body) == ["waited", "waited"]


def test_calls_can_be_made_at_the_same_time(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        await asyncio.gather(*(ctx.run_mutation(add, text=str(number)) for number in range(20)))
        return sorted(map(int, await ctx.run_query(texts)))

    assert acted(serve, body) == [float(number) for number in range(20)]


def test_wrong_calls_are_refused(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        with pytest.raises(
            WrongKindError, match="it:add is a mutation; call it with ctx.run_mutation, not ctx.run_query"
        ):
            await ctx.run_query("it:add", {"text": "a"})
        with pytest.raises(ArgumentValidationError):
            await ctx.run_mutation("it:add", {"txt": "a"})
        with pytest.raises(TypeError):
            await ctx.run_mutation(add, "a", "b", "c")  # pyright: ignore

    acted(serve, body)


def test_what_is_called_logs_into_the_actions_lines(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        ctx.log("before")
        await ctx.run_mutation(add, text="one")
        with pytest.raises(ConvexError):
            await ctx.run_mutation(add, text="two", then="no")
        ctx.log.info("after")

    outcome = call(acting(serve, body), "it:act", kind="action")
    assert outcome.log_lines == ["[LOG] 'before'", "[LOG] 'adding' 'one'", "[LOG] 'adding' 'two'", "[INFO] 'after'"]


def test_the_lines_of_an_action_are_bounded_with_those_of_what_it_calls(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        for _ in range(300):
            await ctx.run_query(texts)
        ctx.log("never")

    outcome = call(acting(serve, body), "it:act", kind="action")
    assert len(outcome.log_lines) == 257
    assert "Log overflow" in outcome.log_lines[-1]


def test_the_caller_is_the_same_in_what_it_calls(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        identity = ctx.auth.get_user_identity()
        return [identity and identity.subject, await ctx.run_query(who), ctx.auth.is_operator, ctx.client_address]

    backend = acting(serve, body)
    assert call(backend, "it:act", by=somebody("ann"), kind="action").value == b'["ann",["ann",false],false,null]'
    assert backend.run("it:act") == [None, [None, True], True, None]
    assert backend.from_address("192.0.2.1").run("it:act") == [None, [None, False], False, "192.0.2.1"]


def test_time_chance_and_environment(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        same = ctx.random.random() == ctx.random.random()
        return [
            ctx.now,
            len({ctx.token(), ctx.token(), ctx.uuid(), ctx.uuid()}),
            same,
            ctx.env.get("TIER"),
            ctx.env.get("X", "?"),
        ]

    backend = acting(serve, body)
    backend.run("_system/camber/environment:update", {"changes": [{"name": "TIER", "value": "gold"}]})
    assert backend.run("it:act") == [backend.clock.now_ms, 4.0, False, "gold", "?"]
    backend.run("_system/camber/environment:update", {"changes": [{"name": "TIER", "value": "silver"}]})
    assert backend.run("it:act")[3] == "silver"


def test_the_deployments_addresses_are_in_the_environment(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        return ctx.env["CONVEX_SITE_URL"]

    assert acted(serve, body, site_url="https://example.com") == "https://example.com"


def test_arguments_and_results_are_checked(serve: Serve) -> None:
    @action
    async def act(ctx: ActionCtx, *, count: int, big: Int64) -> int:
        return "no" if big == 2 else count + 1  # type: ignore[return-value]  # pyright: ignore

    backend = serve({"it:act": act})
    assert backend.run(act, count=1, big=Int64(1)) == 2
    assert message(call(backend, "it:act", {"count": 1.5, "big": 1}, kind="action")).startswith(
        "ArgumentValidationError"
    )
    with pytest.raises(Exception, match="Value does not match validator"):
        backend.run(act, count=1, big=Int64(2))


# Beside each other


def test_actions_run_at_the_same_time(serve: Serve) -> None:
    backend = serve(BASE, NOTES)
    outcomes = together(backend, *[("it:meet", {}, somebody("ann"))] * ALL, kind="action")

    assert [outcome.value for outcome in outcomes] == [b'"met"'] * ALL


def test_an_action_that_blocks_holds_up_nobody(serve: Serve) -> None:
    backend = serve(BASE, NOTES)
    blocked = in_background(lambda: backend.run("it:block"))
    until(lambda: BLOCKED)

    assert backend.run("it:wait", {"seconds": 0}) == "waited"
    backend.run("it:add", {"text": "a"})
    assert backend.run("it:count") == 1
    assert not blocked.done()
    STOP.set()
    assert blocked.result(PATIENCE) == "blocked"


def test_an_action_that_waits_for_a_mutation_lets_it_run(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        await asyncio.gather(*(ctx.run_mutation("it:slowAdd") for _ in range(3)), ctx.run_query(count))
        return await ctx.run_query(count)

    assert acted(serve, body) == 3


def test_more_actions_than_may_run_are_refused(serve: Serve) -> None:
    backend = serve(BASE, NOTES, running_actions=2)
    blocked = [in_background(lambda: backend.run("it:block")) for _ in range(2)]
    until(lambda: len(BLOCKED) == 2)

    with pytest.raises(RequestError) as raised:
        call(backend, "it:wait", {"seconds": 0}, kind="action")
    assert (raised.value.status, raised.value.short_code) == (503, "TooManyConcurrentActions")
    assert raised.value.headers == {"Retry-After": "1"}

    STOP.set()
    assert [one.result(PATIENCE) for one in blocked] == ["blocked", "blocked"]
    assert call(backend, "it:wait", {"seconds": 0}, kind="action").ok


def test_an_action_that_calls_more_actions_than_may_run_is_told(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        await ctx.run_action(wait, seconds=0)

    with pytest.raises(RequestError, match="1 actions run already"):
        acted(serve, body, running_actions=1)


# Their time


def test_an_action_that_takes_too_long_is_cancelled_and_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_pool, "_LATE_SECONDS", PATIENCE)  # it is not interrupted before it has been cancelled
    cleaned_up = threading.Event()

    async def body(ctx: ActionCtx) -> Any:
        ctx.log("begun")
        try:
            await asyncio.sleep(2 * PATIENCE)
        finally:
            cleaned_up.set()

    outcome = call(acting(serve, body, action_seconds=0.2), "it:act", kind="action")
    assert message(outcome).startswith("Uncaught Error: Function execution timed out (maximum duration: 0.2s)")
    assert isinstance(outcome.exception, FunctionTimeoutError)
    assert outcome.log_lines == ["[LOG] 'begun'"]
    assert cleaned_up.is_set()


def test_a_time_limit_of_the_functions_own_is_an_error_of_its_own(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    outcome = call(acting(serve, body), "it:act", kind="action")
    assert message(outcome).startswith("Uncaught TimeoutError")


def loop() -> None:
    while not STOP.is_set():
        sum(range(1000))


def catch_all() -> None:
    while not STOP.is_set():
        try:
            sum(range(1000))
        except BaseException:  # noqa: BLE001
            continue


@pytest.mark.parametrize("block", [loop, STOP.wait, catch_all])
def test_an_action_that_blocks_beyond_its_time_is_told_too(serve: Serve, block: Any) -> None:
    async def body(ctx: ActionCtx) -> Any:
        block()

    backend = acting(serve, body, running_actions=1)
    with limited(backend, action_seconds=0.2):
        outcome = call(backend, "it:act", kind="action")
    assert message(outcome).split("\n")[0] == "Uncaught Error: Function execution timed out (maximum duration: 0.2s)"
    assert call(backend, "it:wait", {"seconds": 0}, kind="action").ok


def test_an_action_that_will_not_be_cancelled_is_told_too(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        while not STOP.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    outcome = call(acting(serve, body, action_seconds=0.2), "it:act", kind="action")
    assert "Function execution timed out (maximum duration: 0.2s)" in message(outcome)


def test_three_that_never_come_back_make_the_server_ask_for_its_replacement(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        STOP.wait()

    backend = acting(serve, body, action_seconds=0.05)
    told = threading.Event()
    backend.engine.on_unhealthy = told.set
    for _ in range(3):
        assert backend.engine.ready() is None
        call(backend, "it:act", kind="action")

    assert told.wait(PATIENCE)
    assert "3 functions did not stop" in (backend.engine.ready() or "")


# Giving up


def test_an_action_that_gives_up_waiting_disturbs_nobody(serve: Serve) -> None:
    async def body(ctx: ActionCtx) -> Any:
        for name in ("it:addBehindTheGate", "it:addBehindTheGate", "it:add"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ctx.run_mutation(name, {"text": "a"} if name == "it:add" else {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await ctx.run_query("it:count")
        GATE.set()
        return await ctx.run_mutation(add, text="last")

    backend = acting(serve, body)
    assert backend.run("it:act") == 4.0
    assert backend.run("it:add", {"text": "more"}) == 5
    assert backend.run("it:count") == 5


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_an_action_can_not_end_the_thread_that_runs_it(serve: Serve, error: Any) -> None:
    async def body(ctx: ActionCtx) -> Any:
        raise error

    backend = acting(serve, body, running_actions=1)
    for _ in range(3):
        assert error.__name__ in message(call(backend, "it:act", kind="action"))
    assert backend.run("it:wait", {"seconds": 0}) == "waited"


def test_what_an_action_leaves_running_ends_with_it(serve: Serve) -> None:
    ended, kept = threading.Event(), list[Any]()

    async def body(ctx: ActionCtx) -> Any:
        async def go_on() -> None:
            try:
                await asyncio.sleep(2 * PATIENCE)
            finally:
                ended.set()

        kept.append(asyncio.create_task(go_on()))
        await asyncio.sleep(0)
        return "done"

    assert acted(serve, body) == "done"
    assert ended.wait(PATIENCE)


def test_the_context_of_an_action_gives_nothing_after_it(serve: Serve) -> None:
    late = list[Any]()

    async def body(ctx: ActionCtx) -> Any:
        late.append(ctx)

    backend = acting(serve, body)
    backend.run("it:act")

    for use in (lambda ctx: ctx.run_mutation(add, text="late"), lambda ctx: ctx.run_query(count)):
        with pytest.raises(DatabaseUsageError, match="This action has ended; its ctx can't be used any more"):
            asyncio.run(use(late[0]))
    with pytest.raises(DatabaseUsageError):
        late[0].env.get("X")
    assert backend.run("it:count") == 0


def test_closing_waits_once_for_all_that_block() -> None:
    backend = deployed({"it:block": block})
    running = [in_background(lambda: call(backend, "it:block", kind="action")) for _ in range(ALL)]
    until(lambda: len(BLOCKED) == ALL)
    began = time.monotonic()
    backend.close()
    took = time.monotonic() - began
    STOP.set()

    assert 1 < took < 30  # each is waited for two seconds, and so are all of them together
    assert [outcome.exception(PATIENCE) for outcome in running] == [None] * ALL


def test_closing_cancels_what_runs() -> None:
    begun, cleaned_up = threading.Event(), threading.Event()

    async def body(ctx: ActionCtx) -> None:
        try:
            begun.set()
            await asyncio.sleep(2 * PATIENCE)
        finally:
            cleaned_up.set()

    backend = deployed({"it:act": action(body)})
    running = in_background(lambda: call(backend, "it:act", kind="action"))
    assert begun.wait(PATIENCE)
    backend.close()

    assert cleaned_up.wait(PATIENCE)
    with pytest.raises(StorageError, match="shutting down"):
        running.result(PATIENCE)
