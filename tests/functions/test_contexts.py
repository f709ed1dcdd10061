"""What `ctx` gives a function: time, chance, the caller, environment variables, the log; and when it stops giving."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from camber import (
    DatabaseUsageError,
    Int64,
    MutationCtx,
    QueryCtx,
    define_table,
    fixed_window,
    minutes,
    mutation,
    query,
    v,
)
from camber.identity import Caller
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import OPERATOR, call, deployed, somebody

NOTES = define_table("notes", {"text": v.string()})


def do(ctx: MutationCtx, *, what: str) -> Any:
    return BODIES[what](ctx)


def ask(ctx: QueryCtx, *, what: str) -> Any:
    return BODIES[what](ctx)


BODIES: dict[str, Callable[[Any], Any]] = {}


@pytest.fixture
def backend(serve: Serve) -> Backend:
    return serve({"notes:do": do, "notes:ask": ask}, NOTES)


def done(backend: Backend, body: Callable[[MutationCtx], Any]) -> Any:
    BODIES["it"] = body
    return backend.run("notes:do", {"what": "it"})


def asked(backend: Backend, body: Callable[[QueryCtx], Any]) -> Any:
    BODIES["it"] = body
    backend.clock.advance(minutes(1))  # what was read of time and chance before is too old to be given again
    return backend.run("notes:ask", {"what": "it"})


# Time


def test_now_is_the_same_during_a_run_and_moves_between_runs(backend: Backend) -> None:
    def times(ctx: QueryCtx) -> list[float]:
        first = ctx.now
        backend.clock.advance(5000)
        return [first, ctx.now, ctx.run_query("notes:ask", {"what": "now"})]

    BODIES["now"] = lambda ctx: ctx.now
    start = backend.clock.now_ms

    assert done(backend, times) == [start] * 3
    assert done(backend, lambda ctx: ctx.now) == start + 5000


def test_now_is_milliseconds_since_the_epoch_as_a_float(backend: Backend) -> None:
    assert asked(backend, lambda ctx: [type(ctx.now).__name__, ctx.now]) == ["float", backend.clock.now_ms]


def test_a_document_is_created_now(backend: Backend) -> None:
    def insert(ctx: MutationCtx) -> Any:
        document = ctx.db.get(ctx.db.insert(NOTES, {"text": "a"}))
        assert document is not None
        return [document["_creationTime"], ctx.now]

    created, now = done(backend, insert)
    assert now <= created < now + 1  # no two are created at the same time


# Chance


@pytest.mark.parametrize("run", [done, asked])
def test_random_goes_on_within_a_run_and_differs_between_runs(backend: Backend, run: Any) -> None:
    drawn = [run(backend, lambda ctx: [ctx.random.random(), ctx.random.random()]) for _ in range(4)]

    assert len({number for pair in drawn for number in pair}) == 8


def test_a_token_is_unguessable_text_for_urls(backend: Backend) -> None:
    tokens = done(backend, lambda ctx: [ctx.token() for _ in range(100)])

    assert len(set(tokens)) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22,}", token) for token in tokens)


def test_a_uuid_is_a_random_one(backend: Backend) -> None:
    first, second = done(backend, lambda ctx: [ctx.uuid(), ctx.uuid()])

    assert first != second
    assert {uuid.UUID(text).version for text in (first, second)} == {4}
    assert str(uuid.UUID(first)) == first


# Who calls


def test_the_identity_is_that_of_the_caller(serve: Serve) -> None:
    @query
    def who(ctx: QueryCtx) -> Any:
        identity = ctx.auth.get_user_identity()
        return None if identity is None else [identity.subject, identity.token_identifier, identity.get("team")]

    backend = serve({"people:who": who})
    assert backend.anonymous.run(who) is None
    assert backend.run(who) is None
    assert backend.as_user(subject="ann", team="red").run(who) == ["ann", "https://camber.test|ann", "red"]


def test_the_operator_is_the_admin_key_without_impersonation(serve: Serve) -> None:
    @query
    def is_operator(ctx: QueryCtx) -> bool:
        return ctx.auth.is_operator

    backend = serve({"people:isOperator": is_operator})
    callers = [OPERATOR, somebody("ann"), Caller(), Caller(somebody("ann").identity, is_admin=True)]
    answers = [call(backend, "people:isOperator", by=caller).value for caller in callers]

    assert answers == [b"true", b"false", b"false", b"false"]


def test_inner_calls_are_made_by_the_same_caller(serve: Serve) -> None:
    @query
    def who(ctx: QueryCtx) -> str | None:
        identity = ctx.auth.get_user_identity()
        return identity.subject if identity else None

    @mutation
    def outer(ctx: MutationCtx) -> Any:
        return [who(ctx), ctx.run_query(who)]

    backend = serve({"people:who": who, "people:outer": outer})
    assert backend.as_user(subject="ann").run(outer) == ["ann", "ann"]


def test_the_client_address_is_that_of_the_call_and_none_for_the_operator(serve: Serve) -> None:
    @mutation
    def address(ctx: MutationCtx) -> str | None:
        return ctx.client_address

    backend = serve({"people:address": address})
    assert backend.from_address("192.0.2.1").run(address) == "192.0.2.1"
    assert backend.as_user(subject="ann", address="2001:db8::/64").run(address) == "2001:db8::/64"
    assert backend.anonymous.run(address) is None
    assert backend.run(address) is None


# Environment variables


def set_variables(backend: Backend, **values: str | None) -> None:
    changes = [{"name": name, "value": value} for name, value in values.items()]
    backend.run("_system/camber/environment:update", {"changes": changes})


def test_environment_variables(backend: Backend) -> None:
    set_variables(backend, SITE="https://example.com")

    def read(ctx: QueryCtx) -> Any:
        with pytest.raises(DatabaseUsageError, match='OTHER is not set; set it with: camber env set OTHER "…"'):
            ctx.env["OTHER"]
        return [ctx.env.get("SITE"), ctx.env["SITE"], ctx.env.get("OTHER"), ctx.env.get("OTHER", "default")]

    assert asked(backend, read) == ["https://example.com", "https://example.com", None, "default"]
    assert done(backend, lambda ctx: ctx.env.get("SITE")) == "https://example.com"


def test_the_deployments_own_addresses_are_among_them(serve: Serve) -> None:
    backend = serve({"notes:ask": ask}, cloud_url="https://api.example.com", site_url="https://example.com")

    found = asked(backend, lambda ctx: [ctx.env["CONVEX_CLOUD_URL"], ctx.env.get("CONVEX_SITE_URL")])
    assert found == ["https://api.example.com", "https://example.com"]


def test_a_query_runs_again_when_a_variable_that_it_reads_changes(backend: Backend) -> None:
    runs: list[str | None] = []

    def read(ctx: QueryCtx) -> Any:
        runs.append(ctx.env.get("TIER"))
        return runs[-1]

    BODIES["it"] = read
    answers: list[Any] = []
    for change in (None, {"OTHER": "x"}, {"TIER": "gold"}, {"OTHER": "y"}, {"TIER": None}):
        set_variables(backend, **(change or {}))
        answers += [backend.run("notes:ask", {"what": "it"}) for _ in range(2)]

    assert answers == [None] * 4 + ["gold"] * 4 + [None] * 2
    assert runs == [None, "gold", None]


# The log


@pytest.fixture(scope="module")
def logging() -> Iterator[Backend]:
    with deployed({"notes:do": do}) as backend:
        yield backend


def lines(backend: Backend, body: Callable[[Any], Any]) -> list[str]:
    done(backend, body)
    return backend.log_lines


def test_each_level_is_a_line_in_the_order_of_the_calls(backend: Backend) -> None:
    def log(ctx: QueryCtx) -> None:
        ctx.log("plain")
        ctx.log.debug("debug")
        ctx.log.info("info", 2)  # noqa: PLE1205  no logger of Python's
        ctx.log.warn()
        ctx.log.error("error")

    assert lines(backend, log) == [
        "[LOG] 'plain'",
        "[DEBUG] 'debug'",
        "[INFO] 'info' 2",
        "[WARN] ",
        "[ERROR] 'error'",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        (5.0, "5"),
        (0.5, "0.5"),
        (-0.0, "-0"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (Int64(7), "7n"),
        (True, "true"),
        (None, "null"),
        ("it's", r"'it\'s'"),
        ("a\nb\\", r"'a\nb\\'"),
        (b"abc", "<3 bytes>"),
        ([1, "a"], "[ 1, 'a' ]"),
        ([], "[]"),
        ({"a": {"b": [None]}}, "{ a: { b: [ null ] } }"),
        ({}, "{}"),
        ([[[[[5]]]]], "[ [ [ [ … ] ] ] ]"),
        ("\ud800", "'?'"),
    ],
)
def test_values_are_shown_as_javascript_shows_them(logging: Backend, value: object, shown: str) -> None:
    assert lines(logging, lambda ctx: ctx.log(value)) == [f"[LOG] {shown}"]


def test_a_run_logs_256_lines_and_no_more(backend: Backend) -> None:
    def log(ctx: MutationCtx) -> None:
        for number in range(1000):
            ctx.log(number)

    found = lines(backend, log)
    assert len(found) == 257
    assert found[255:] == ["[LOG] 255", "[ERROR] 'Log overflow: this run logged more than 256 lines'"]


def test_a_line_is_cut_at_32_kib(backend: Backend) -> None:
    (ascii_line,) = lines(backend, lambda ctx: ctx.log("a" * 100_000))
    (other_line,) = lines(backend, lambda ctx: ctx.log("ä" * 16_390))
    (short_line,) = lines(backend, lambda ctx: ctx.log("ä" * 16_000))

    for line in (ascii_line, other_line):
        assert line.endswith(" (truncated due to length)")
        assert len(line.removeprefix("[LOG] ").encode()) <= 32_768
    assert short_line == "[LOG] '" + "ä" * 16_000 + "'"


def test_inner_calls_log_into_the_same_lines(backend: Backend) -> None:
    BODIES["inner"] = lambda ctx: ctx.log("inner")

    def outer(ctx: MutationCtx) -> None:
        ctx.log("before")
        ctx.run_mutation("notes:do", {"what": "inner"})
        ctx.run_query("notes:ask", {"what": "inner"})
        ctx.log("after")

    assert lines(backend, outer) == ["[LOG] 'before'", "[LOG] 'inner'", "[LOG] 'inner'", "[LOG] 'after'"]


def test_what_a_function_logged_before_it_raised_goes_back_too(backend: Backend) -> None:
    def fail(ctx: MutationCtx) -> None:
        ctx.log("so far")
        raise ValueError("no further")

    with pytest.raises(ValueError, match="no further"):
        done(backend, fail)
    assert backend.log_lines == ["[LOG] 'so far'"]


def test_a_kept_result_brings_its_lines_along(backend: Backend) -> None:
    BODIES["it"] = lambda ctx: ctx.log("once")
    for _ in range(2):
        backend.run("notes:ask", {"what": "it"})
        assert backend.log_lines == ["[LOG] 'once'"]


# The end of a run

KEPT: dict[str, Any] = {}

LATE: dict[str, Callable[[Any], object]] = {
    "get": lambda ctx: ctx.db.get(KEPT["id"]),
    "collect": lambda ctx: ctx.db.query(NOTES).collect(),
    "count": lambda ctx: ctx.db.query(NOTES).count(),
    "first": lambda ctx: ctx.db.query(NOTES).first(),
    "iterate": lambda ctx: next(iter(ctx.db.query(NOTES))),
    "go on": lambda ctx: next(KEPT["iterator"]),
    "env": lambda ctx: ctx.env.get("X"),
    "query": lambda ctx: ctx.run_query("notes:ask", {"what": "count"}),
}
LATE_WRITES: dict[str, Callable[[Any], object]] = {
    "insert": lambda ctx: ctx.db.insert(NOTES, {"text": "late"}),
    "patch": lambda ctx: ctx.db.patch(KEPT["id"], {"text": "late"}),
    "delete": lambda ctx: ctx.db.delete(KEPT["id"]),
    "rate limit": lambda ctx: ctx.rate_limit(fixed_window("late", 1, per=minutes(1)), "key"),
    "mutation": lambda ctx: ctx.run_mutation("notes:do", {"what": "insert"}),
}


def keep(ctx: Any) -> None:
    iterator = iter(ctx.db.query(NOTES))
    next(iterator)
    KEPT.update(ctx=ctx, iterator=iterator)


@pytest.mark.parametrize(
    ("kind", "use"), [*(("query", use) for use in LATE), *(("mutation", use) for use in [*LATE, *LATE_WRITES])]
)
def test_a_context_gives_nothing_after_its_run(backend: Backend, kind: str, use: str) -> None:
    BODIES["count"] = LATE["count"]
    BODIES["insert"] = LATE_WRITES["insert"]
    KEPT["id"], _ = backend.transact(lambda ctx: [ctx.db.insert(NOTES, {"text": text}) for text in "ab"])
    (asked if kind == "query" else done)(backend, keep)

    with pytest.raises(DatabaseUsageError, match="has ended; its ctx can't be used any more"):
        (LATE | LATE_WRITES)[use](KEPT["ctx"])
    assert backend.transact(lambda ctx: [row["text"] for row in ctx.db.query(NOTES)]) == ["a", "b"]


# Queries read only


@pytest.mark.parametrize("use", ["insert", "patch", "delete"])
def test_a_query_can_not_write(backend: Backend, use: str) -> None:
    KEPT["id"] = backend.transact(lambda ctx: ctx.db.insert(NOTES, {"text": "a"}))

    with pytest.raises(DatabaseUsageError, match="A query can't write. Declare the function with @mutation."):
        asked(backend, LATE_WRITES[use])


def test_documents_that_a_function_gets_are_its_own(backend: Backend) -> None:
    def change(ctx: MutationCtx) -> Any:
        note_id = ctx.db.insert(NOTES, {"text": "a"})
        first = ctx.db.get(note_id)
        assert first is not None
        first["text"] = "changed"
        second = ctx.db.get(note_id)
        assert second is not None
        return second["text"]

    assert done(backend, change) == "a"
