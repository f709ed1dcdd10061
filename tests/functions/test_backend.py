"""One deployment from outside: what it takes and refuses, reloading, being well or not, and its end."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import camber.backend
from camber import (
    ActionCtx,
    ConvexError,
    Document,
    LoadError,
    MutationCtx,
    QueryCtx,
    RegisteredFunction,
    SchemaMismatchError,
    Table,
    action,
    define_schema,
    define_table,
    mutation,
    query,
    v,
)
from camber.backend import Backend as Engine
from camber.errors import DataFolderError, DataFolderInUseError, RequestError, StorageError
from camber.functions import Application, application_of
from camber.settings import Settings
from tests.functions.conftest import Serve
from tests.functions.deployments import (
    ANONYMOUS,
    OPERATOR,
    PATIENCE,
    UNHURRIED,
    call,
    in_background,
    limited,
    message,
    together,
    until,
)

NOTES = define_table("notes", {"text": v.string()})


@query
def count(ctx: QueryCtx) -> int:
    return ctx.db.query("notes").count()


@mutation
def add(ctx: MutationCtx, *, text: str) -> str:
    return ctx.db.insert("notes", {"text": text})


FUNCTIONS: dict[str, RegisteredFunction[..., Any]] = {"it:count": count, "it:add": add}


def application(functions: dict[str, RegisteredFunction[..., Any]], *tables: Table[Any]) -> Application:
    return application_of("reloaded", define_schema(*tables), functions)


# What comes in


@pytest.mark.parametrize(
    "path",
    [
        "",
        ":",
        ":b",
        "a b:c",
        "a:b:c",
        "../x:y",
        "a//b:c",
        "a:" + "b" * 65,
        "/".join("a" * 501) + ":x",
        "ä:b",
        "a.py:b",
    ],
)
def test_a_path_that_is_none_is_refused(serve: Serve, path: str) -> None:
    with pytest.raises(RequestError) as raised:
        call(serve(FUNCTIONS), path)

    assert (raised.value.status, raised.value.short_code) == (400, "BadConvexFunctionIdentifier")
    assert "is not a valid path to a Convex function." in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"5",
        b"null",
        b'"x"',
        b"[1]",
        b"[{}, {}]",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"$a": 1}',
        b'{"a": {"$integer": "x"}}',
        b"[" * 100_000,
    ],
)
def test_arguments_that_are_none_are_refused_and_change_nothing(serve: Serve, text: bytes) -> None:
    backend = serve(FUNCTIONS, NOTES)
    with pytest.raises(RequestError) as raised:
        backend.engine.run_sync("it:add", text, ANONYMOUS, kind="mutation")

    assert (raised.value.status, raised.value.short_code) == (400, "InvalidArguments")
    assert backend.run("it:count") == 0


@pytest.mark.parametrize("text", [b"{}", b"[{}]", b"[]", b" [ { } ] "])
def test_arguments_are_an_object_or_an_array_of_one(serve: Serve, text: bytes) -> None:
    assert serve(FUNCTIONS, NOTES).engine.run_sync("it:count", text, ANONYMOUS, kind="query").ok


def test_a_mutation_tells_the_timestamp_of_its_commit_and_a_query_that_of_its_state(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    first = call(backend, "it:add", {"text": "a"}, kind="mutation").timestamp
    seen = call(backend, "it:count").timestamp
    second = call(backend, "it:add", {"text": "b"}, kind="mutation").timestamp

    assert first == seen < second


def test_calls_of_all_kinds_are_answered_on_the_event_loop(serve: Serve) -> None:
    @action
    async def act(ctx: ActionCtx) -> int:
        return await ctx.run_query(count)

    backend = serve({**FUNCTIONS, "it:act": act}, NOTES)
    for kind, path, args in (
        ("mutation", "it:add", {"text": "a"}),
        ("query", "it:count", {}),
        ("action", "it:act", {}),
        ("query", "it:nope", {}),
    ):
        outcomes = together(backend, *[(path, args, ANONYMOUS)] * 30, kind=kind)
        assert len({outcome.ok for outcome in outcomes}) == 1
    assert backend.run("it:count") == 30


def test_a_caller_who_gives_up_disturbs_nobody(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)

    async def main() -> Any:
        engine = backend.engine
        engine.attach(asyncio.get_running_loop())
        runs = [
            asyncio.create_task(engine.run("it:add", b'{"text":"a"}', ANONYMOUS, kind="mutation", request_id=""))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        for run in runs[::2]:
            run.cancel()
        return await asyncio.gather(*runs, return_exceptions=True)

    ended = asyncio.run(main())
    assert sum(isinstance(one, asyncio.CancelledError) for one in ended) <= 10
    assert all(one.ok for one in ended[1::2])
    assert backend.run("it:count") == 20  # a mutation that was sent is carried out


# Reloading


def test_the_new_functions_are_served_and_the_old_ones_are_gone(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)

    @query(name="texts")
    def texts(ctx: QueryCtx) -> list[str]:
        return [note["text"] for note in ctx.db.query("notes")]

    backend.run("it:add", {"text": "a"})
    backend.engine.reload_sync(application({"it:texts": texts}, NOTES))

    assert backend.run("it:texts") == ["a"]
    assert "Could not find public function" in message(call(backend, "it:count"))


def test_results_of_the_old_functions_are_not_kept(serve: Serve) -> None:
    @query(name="count")
    def count_twice(ctx: QueryCtx) -> int:
        return 2 * ctx.db.query("notes").count()

    backend = serve(FUNCTIONS, NOTES)
    backend.run("it:add", {"text": "a"})
    assert backend.run("it:count") == 1
    assert backend.engine.cached("it:count", b"{}", ANONYMOUS) is not None
    backend.engine.reload_sync(application({"it:count": count_twice}, NOTES))

    assert backend.engine.cached("it:count", b"{}", ANONYMOUS) is None
    assert backend.run("it:count") == 2
    backend.engine.reload_sync(application(FUNCTIONS, NOTES))
    assert backend.run("it:count") == 1


def test_who_asks_after_the_reload_does_not_join_a_run_of_before(serve: Serve) -> None:
    gate, begun = threading.Event(), threading.Event()

    def hold(ctx: QueryCtx) -> None:
        begun.set()
        gate.wait(PATIENCE)

    @query(name="version")
    def old(ctx: QueryCtx) -> str:
        return "old"

    @query(name="version")
    def new(ctx: QueryCtx) -> str:
        return "new"

    backend = serve({"it:version": old, "it:hold": query(hold)}, query_threads=1)
    in_background(lambda: call(backend, "it:hold"))
    assert begun.wait(PATIENCE)
    before = in_background(lambda: call(backend, "it:version").value)
    time.sleep(0.05)
    backend.engine.reload_sync(application({"it:version": new}))
    after = in_background(lambda: call(backend, "it:version").value)
    time.sleep(0.05)
    gate.set()

    assert before.result(PATIENCE) in (b'"old"', b'"new"')
    assert after.result(PATIENCE) == b'"new"'
    assert call(backend, "it:version").value == b'"new"'


def test_a_schema_that_the_data_does_not_fit_keeps_the_old_application_serving(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    ids = [backend.run("it:add", {"text": text}) for text in "ab"]
    stricter = define_table("notes", {"text": v.string(), "done": v.boolean()})
    before = backend.engine.application

    with pytest.raises(SchemaMismatchError) as raised:
        asyncio.run(backend.engine.reload(application({"it:add": add}, stricter)))

    assert len(raised.value.misfits) == 2
    assert all(any(note_id in misfit for misfit in raised.value.misfits) for note_id in ids)
    assert all('"notes"' in misfit and "`done`" in misfit for misfit in raised.value.misfits)
    assert backend.engine.application is before
    assert backend.run("it:count") == 2
    backend.run("it:add", {"text": "c"})
    assert backend.run("it:count") == 3


def test_a_new_schema_holds_from_the_reload_on(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    backend.run("it:add", {"text": "a"})
    wider = define_table("notes", v.object({"text": v.union(v.string(), v.null())})).index("by_text", ["text"])

    @query
    def find(ctx: QueryCtx, *, text: str) -> int:
        return ctx.db.query("notes").with_index("by_text", text=text).count()

    @mutation(name="add")
    def add_number(ctx: MutationCtx) -> None:
        ctx.db.insert("notes", {"text": 5})

    backend.engine.reload_sync(application({"it:find": find, "it:add": add_number}, wider))
    assert backend.run("it:find", {"text": "a"}) == 1
    with pytest.raises(Exception, match="does not match the schema"):
        backend.run("it:add")


def test_calls_go_on_during_reloads(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    stop = threading.Event()
    failed: list[Any] = []
    added = 0

    def ask() -> None:
        while not stop.is_set():
            outcome = call(backend, "it:count")
            if not outcome.ok:
                failed.append(outcome)

    asking = threading.Thread(target=ask)
    asking.start()
    for turn in range(20):
        index = ("by_text", ["text"]) if turn % 2 else ("by_other", ["text"])
        backend.engine.reload_sync(application(FUNCTIONS, define_table("notes", {"text": v.string()}).index(*index)))
        backend.run("it:add", {"text": str(turn)})
        added += 1
    stop.set()
    asking.join()

    assert failed == []
    assert backend.run("it:count") == added


def shelves(index: str) -> tuple[dict[str, RegisteredFunction[..., Any]], Table[Any]]:
    """An application whose functions need the index of this name, and a table that has no other."""

    @query
    def find(ctx: QueryCtx, *, shelf: float) -> int:
        return ctx.db.query("parcels").with_index(index, shelf=shelf).count()

    @mutation
    def put(ctx: MutationCtx, *, shelf: float) -> None:
        ctx.db.query("parcels").with_index(index, shelf=shelf).first()
        ctx.db.insert("parcels", {"shelf": shelf})

    return {"it:find": find, "it:put": put}, define_table("parcels", {"shelf": v.number()}).index(index, ["shelf"])


def test_no_call_fails_because_a_reload_has_taken_the_index_that_the_code_before_it_read_by(serve: Serve) -> None:
    functions, table = shelves("by_shelf")
    backend = serve(functions, table)
    stop = threading.Event()
    answered: list[Any] = []

    def calls(path: str, kind: str, shelf: float) -> None:
        while not stop.is_set():
            answered.append(call(backend, path, {"shelf": shelf}, kind=kind))

    calling = [threading.Thread(target=calls, args=("it:find", "query", shelf)) for shelf in (1, 1, 2, 3)]
    calling += [threading.Thread(target=calls, args=("it:put", "mutation", shelf)) for shelf in (1, 2)]
    for thread in calling:
        thread.start()
    for turn in range(8):
        functions, table = shelves("by_room" if turn % 2 == 0 else "by_shelf")
        backend.engine.reload_sync(application(functions, table))
    stop.set()
    for thread in calling:
        thread.join()

    assert {outcome.error for outcome in answered} == {None}


@pytest.mark.parametrize(("path", "kind"), [("it:find", "query"), ("it:put", "mutation")])
def test_a_call_that_a_reload_overtakes_before_it_is_under_way_is_answered_by_the_new_code(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    backend = serve(*shelves("by_shelf"))
    new, looks_up = iter([shelves("by_room")]), camber.backend.refusal

    def then_reload(*asked: Any) -> Any:
        refused = looks_up(*asked)
        for functions, table in new:
            backend.engine.reload_sync(application(functions, table))
        return refused

    monkeypatch.setattr(camber.backend, "refusal", then_reload)

    assert call(backend, path, {"shelf": 1}, kind=kind).error is None


def test_an_application_of_values_is_checked_as_a_whole() -> None:
    class Thing(Document):
        a: str

    @query
    def bad(ctx: QueryCtx, *, x: complex) -> None: ...

    with pytest.raises(LoadError) as raised:
        application({"it:bad": bad, "it:two words": count, "1:x": add}, define_table("things", Thing))
    assert len(raised.value.problems) == 3


# Being well


def test_a_deployment_is_ready_until_it_is_closed(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)

    assert backend.engine.ready() is None
    backend.close()
    assert backend.engine.ready() == "shutting down"


def test_after_three_functions_that_never_came_back_it_asks_to_be_replaced(serve: Serve) -> None:
    stop = threading.Event()

    @query
    def stuck(ctx: QueryCtx) -> None:
        stop.wait()

    @mutation(name="stuckToo")
    def stuck_too(ctx: MutationCtx) -> None:
        stop.wait()

    backend = serve({**FUNCTIONS, "it:stuck": stuck, "it:stuckToo": stuck_too}, NOTES)
    told: list[object] = []
    backend.engine.on_unhealthy = lambda: told.append(backend.engine.ready())
    for path, kind in (("it:stuck", "query"), ("it:stuckToo", "mutation"), ("it:stuckToo", "mutation")):
        assert told == []
        assert backend.engine.ready() is None
        with limited(backend, query_seconds=0.05, mutation_seconds=0.05):
            assert "timed out" in message(call(backend, path, kind=kind))
    until(lambda: told)

    assert told == ["3 functions did not stop when their time was over; restarting"]
    backend.run("it:add", {"text": "a"})
    assert backend.run("it:count") == 1
    stop.set()


# Opening and closing


def opened(data: Path, *, create: bool = False) -> Engine:
    return Engine.open(application(FUNCTIONS, NOTES), data, settings=Settings(dev=True, **UNHURRIED), create=create)


def test_what_was_stored_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    engine = opened(tmp_path / "data", create=True)
    engine.run_sync("it:add", b'{"text":"a"}', OPERATOR)
    engine.close()
    engine.close()

    engine = opened(tmp_path / "data")
    assert engine.run_sync("it:count", b"{}", OPERATOR).value == b"1.0"
    engine.close()


def test_a_folder_that_is_not_there_is_not_made_unless_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError):
        opened(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_has_one_backend_at_a_time(tmp_path: Path) -> None:
    engine = opened(tmp_path / "data", create=True)
    with pytest.raises(DataFolderInUseError):
        opened(tmp_path / "data")
    engine.close()
    opened(tmp_path / "data").close()


def test_a_schema_that_does_not_fit_changes_nothing_and_lets_the_folder_go(tmp_path: Path) -> None:
    engine = opened(tmp_path / "data", create=True)
    engine.run_sync("it:add", b'{"text":"a"}', OPERATOR)
    engine.close()
    stricter = application(FUNCTIONS, define_table("notes", {"text": v.number()}))

    with pytest.raises(SchemaMismatchError):
        Engine.open(stricter, tmp_path / "data", settings=Settings(), create=False)
    engine = opened(tmp_path / "data")
    assert engine.run_sync("it:count", b"{}", OPERATOR).value == b"1.0"
    engine.close()


def test_calls_after_the_end_are_refused(serve: Serve) -> None:
    backend = serve(FUNCTIONS, NOTES)
    backend.close()

    for path, kind, args in (("it:count", "query", {}), ("it:add", "mutation", {"text": "a"})):
        with pytest.raises(StorageError, match="shutting down"):
            in_background(lambda path=path, kind=kind, args=args: call(backend, path, args, kind=kind)).result(PATIENCE)


def test_what_waits_when_it_is_closed_is_answered(serve: Serve) -> None:
    @mutation(name="slow")
    def slow(ctx: MutationCtx) -> None:
        time.sleep(0.05)
        ctx.db.insert("notes", {"text": "a"})

    backend = serve({**FUNCTIONS, "it:slow": slow}, NOTES)
    waiting = [in_background(lambda: call(backend, "it:slow", kind="mutation")) for _ in range(5)]
    time.sleep(0.02)
    backend.close()

    for one in waiting:
        error = one.exception(PATIENCE)
        assert one.result().ok if error is None else "shutting down" in str(error)


def test_the_errors_of_a_call_and_of_a_request_are_told_apart(serve: Serve) -> None:
    @query
    def refuse(ctx: QueryCtx) -> None:
        raise ConvexError("no")

    backend = serve({"it:refuse": refuse})
    assert call(backend, "it:refuse").error_data == b'"no"'
    with pytest.raises(RequestError):
        call(backend, "not a path")
