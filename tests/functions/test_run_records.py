"""What the operator can see of runs of functions: every run that ended, no argument and no result, in bounded memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from camber import ActionCtx, ConvexError, MutationCtx, QueryCtx, action, internal_query, mutation, query
from camber.backend import RunRecord
from camber.clock import HeldClock, SystemClock
from camber.functions.run_records import MOST_BYTES, MOST_RECORDS, RECORD_LINE_BYTES, RunRecords
from camber.functions.running import RunOutcome
from camber.identity import ANONYMOUS, OPERATOR
from camber.testing import Backend
from tests.functions.deployments import call, deployed, somebody

SECRET = "hunter2-5f0e"


@query
def greet(ctx: QueryCtx, *, name: str) -> str:
    ctx.log.info("greeting")
    return f"hello {name}"


@query
def quiet(ctx: QueryCtx, *, name: str = "") -> str:
    return name


@mutation
def note(ctx: MutationCtx, *, text: str) -> None:
    ctx.log("noting")
    ctx.db.insert("notes", {"text": text})


@mutation
def break_down(ctx: MutationCtx) -> None:
    ctx.log.warn("about to break")
    raise ValueError("the cupboard is bare")


@query
def refuse(ctx: QueryCtx) -> None:
    raise ConvexError({"code": "Refused"})


@query
def misfit(ctx: QueryCtx) -> int:
    return SECRET  # type: ignore[return-value]


@query
def with_env(ctx: QueryCtx) -> bool:
    return ctx.env.get("TOKEN") is not None


@internal_query
def hidden(ctx: QueryCtx) -> None:
    return None


@action
async def tour(ctx: ActionCtx, *, text: str) -> None:
    ctx.log("before")
    await ctx.run_mutation(note, text=text)
    ctx.log("after")


@query
def chatty(ctx: QueryCtx, *, number: int) -> int:
    for _ in range(200):
        ctx.log("x" * 4_000)
    return number


FUNCTIONS = {
    f"things:{function.name}": function
    for function in (greet, quiet, note, break_down, refuse, misfit, with_env, hidden, tour, chatty)
}


def records(backend: Backend) -> list[RunRecord]:
    return backend.engine.run_records.newer(0.0).records


def only_record(backend: Backend) -> RunRecord:
    (record,) = records(backend)
    return record


@pytest.fixture(params=[True, False], ids=["development", "production"])
def backend(request: pytest.FixtureRequest) -> Any:
    with deployed(FUNCTIONS, check=False, dev=request.param) as opened:
        yield opened


def test_a_run_is_noted_with_its_lines_also_where_clients_are_told_none(backend: Backend) -> None:
    began = time.perf_counter()
    call(backend, "things:greet", {"name": SECRET}, by=somebody("ada"), request_id="r1")
    took = time.perf_counter() - began

    record = only_record(backend)
    assert (record.kind, record.path, record.request_id, record.origin) == ("query", "things:greet", "r1", "HttpApi")
    assert (record.lines, record.error, record.identity) == (("[INFO] 'greeting'",), None, "user")
    assert 0 < record.seconds < took


def test_a_failure_is_noted_with_its_text_and_place(backend: Backend) -> None:
    call(backend, "things:breakDown", kind="mutation", by=OPERATOR)

    record = only_record(backend)
    assert record.lines == ("[WARN] 'about to break'",)
    assert record.error is not None
    assert record.error.startswith("Uncaught ValueError: the cupboard is bare\n    at break_down (")
    assert record.identity == "instance_admin"


def test_what_a_function_refused_on_purpose_is_noted(backend: Backend) -> None:
    call(backend, "things:refuse")

    record = only_record(backend)
    assert (record.error or "").startswith('Uncaught ConvexError: {"code":"Refused"}')
    assert record.identity == "unknown"


def test_an_action_and_what_it_calls_are_noted_each_with_its_own_lines(backend: Backend) -> None:
    call(backend, "things:tour", {"text": "a"}, kind="action", request_id="r2")

    called, tour = records(backend)
    assert (called.kind, called.path, called.origin, called.lines) == (
        "mutation",
        "things:note",
        "Action",
        ("[LOG] 'noting'",),
    )
    assert (tour.kind, tour.origin, tour.lines) == ("action", "HttpApi", ("[LOG] 'before'", "[LOG] 'after'"))
    assert called.request_id == tour.request_id == "r2"


def test_an_answer_from_the_cache_is_no_run(backend: Backend) -> None:
    first = call(backend, "things:greet", {"name": "ada"})
    second = call(backend, "things:greet", {"name": "ada"})

    assert first.value == second.value
    assert len(records(backend)) == 1


@pytest.mark.parametrize(
    ("path", "kind"), [("things:nothing", "query"), ("things:hidden", "query"), ("things:note", "query")]
)
def test_a_call_that_is_refused_is_no_run(backend: Backend, path: str, kind: str) -> None:
    assert not call(backend, path, kind=kind).ok
    assert records(backend) == []


def test_the_engines_own_functions_are_not_noted(backend: Backend) -> None:
    assert call(backend, "_system/cli/modules:apiSpec", by=OPERATOR).ok
    assert records(backend) == []


def test_neither_arguments_nor_results_nor_variables_are_noted(backend: Backend) -> None:
    changes = {"changes": [{"name": "TOKEN", "value": SECRET}]}
    assert call(backend, "_system/camber/environment:update", changes, kind="mutation", by=OPERATOR).ok
    assert call(backend, "things:withEnv").value == b"true"
    assert call(backend, "things:quiet", {"name": SECRET}).value == f'"{SECRET}"'.encode()
    assert call(backend, "things:note", {"text": SECRET}, kind="mutation").ok
    assert not call(backend, "things:note", {"text": [SECRET]}, kind="mutation").ok
    assert not call(backend, "things:note", {"text": "a", "more": SECRET}, kind="mutation").ok
    assert not call(backend, "things:misfit").ok
    assert call(backend, "things:tour", {"text": SECRET}, kind="action").ok

    noted = records(backend)
    assert [record.path.partition(":")[2] for record in noted] == [
        *("withEnv", "quiet", "note", "note", "note", "misfit", "note", "tour")
    ]
    assert SECRET not in repr(noted)
    errors = [record.error.partition("\n")[0] for record in noted if record.error is not None]
    assert errors == [
        "ArgumentValidationError: NoMatch at .text",
        "ArgumentValidationError: ExtraField at the top",
        "ReturnsValidationError: NoMatch at the top",
    ]


def test_cursors_grow_strictly_though_the_clock_stands_still() -> None:
    kept = RunRecords(HeldClock())
    cursors: list[float] = []
    for _ in range(500):
        add(kept)
    cursor = 0.0
    while True:
        newer = kept.newer(cursor)
        if not newer.records:
            break
        cursors += [record.cursor for record in newer.records]
        cursor = newer.cursor
        assert cursor == cursors[-1]

    assert len(cursors) == 500
    assert all(earlier < later for earlier, later in pairwise(cursors))


def test_who_begins_where_there_is_nothing_misses_nothing() -> None:
    kept = RunRecords(HeldClock())

    begun = kept.newer(0.0)
    add(kept)

    assert begun.records == []
    assert begun.cursor > 0
    assert len(kept.newer(begun.cursor).records) == 1


def test_a_cursor_from_a_server_whose_clock_was_ahead_hides_nothing() -> None:
    kept = RunRecords(HeldClock(now_ms=1_000_000))
    add(kept)

    assert len(kept.newer(2_000_000).records) == 1


def test_memory_is_bounded_under_50_000_runs_on_several_threads() -> None:
    kept = RunRecords(SystemClock())

    def run(thread: int) -> None:
        for number in range(12_500):
            add(kept, f"[LOG] {thread} {number} " + "y" * (number % 7) * 1_000)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))

    newer = kept.newer(0.0)
    cursors = [record.cursor for record in newer.records]
    assert 0 < len(kept) == len(newer.records) <= MOST_RECORDS
    assert sum(record.size for record in newer.records) == kept.size <= MOST_BYTES
    assert cursors == sorted(set(cursors))
    assert kept.newer(1.0).missed
    assert not kept.newer(cursors[-1]).missed


def test_a_run_that_logs_without_end_does_not_push_out_the_others(backend: Backend) -> None:
    call(backend, "things:greet", {"name": "ada"})
    for number in range(5):
        assert call(backend, "things:chatty", {"number": number}).ok

    greeted, *chatty = records(backend)
    assert greeted.path == "things:greet"
    for record in chatty:
        assert record.size < RECORD_LINE_BYTES + 2_000
        assert "further lines of this run are not kept" in record.lines[-1]


def add(kept: RunRecords, *lines: str) -> None:
    """One more run, with these lines."""
    run = RunOutcome()
    run.seconds, run.log_lines = 0.001, list(lines)
    kept.add("query", "things:greet", "0123456789abcdef", ANONYMOUS, "HttpApi", run, None)
