"""What a client is told when a function fails, and what the log says of it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from camber import ActionCtx, ConvexError, Int64, MutationCtx, QueryCtx, define_table, query, v
from camber.errors import InvalidValueError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import OPERATOR, call, deployed, message, somebody

BOOKS = define_table("books", {"title": v.string()}).index("by_title", ["title"], unique=True)

SECRET = "hunter2-the-password"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


FAILURES: dict[str, Any] = {
    "value error": lambda: ValueError("a detail"),
    "own error": lambda: ConvexError({"code": "Refused", "count": Int64(3)}),
    "text": lambda: ConvexError("not today"),
    "null": lambda: ConvexError(None),
    "list": lambda: ConvexError([1, "a"]),
    "no value": lambda: ConvexError({"when": complex(1, 2)}),
    "unprintable": Unprintable,
    "half a pair": lambda: ValueError("\ud800"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
}


def ask(ctx: QueryCtx, *, how: str) -> None:
    ctx.log("before")
    raise FAILURES[how]()


def do(ctx: MutationCtx, *, how: str) -> None:
    ctx.db.insert(BOOKS, {"title": "never"})
    raise FAILURES[how]()


async def act(ctx: ActionCtx, *, how: str) -> None:
    raise FAILURES[how]()


def login(ctx: MutationCtx, *, password: str, length: float) -> str:
    if length < 0:
        raise ValueError("a mistake of the author")
    ctx.db.insert(BOOKS, {"title": password})
    return password


def badly_returned(ctx: QueryCtx, *, password: str) -> int:
    return password  # type: ignore[return-value]  # pyright: ignore


def badly_stored(ctx: MutationCtx, *, password: str) -> None:
    ctx.db.insert(BOOKS, {"title": {"secret": password}})


def count(ctx: QueryCtx) -> int:
    return ctx.db.query(BOOKS).count()


FUNCTIONS: dict[str, Any] = {
    "books:ask": ask,
    "books:do": do,
    "books:act": act,
    "books:login": login,
    "books:badlyReturned": badly_returned,
    "books:badlyStored": badly_stored,
    "books:count": count,
}
EACH = pytest.mark.parametrize(
    ("path", "kind"), [("books:ask", "query"), ("books:do", "mutation"), ("books:act", "action")]
)


@pytest.fixture(scope="module")
def development() -> Iterator[Backend]:
    """For calls that leave nothing behind."""
    with deployed(FUNCTIONS, BOOKS) as backend:
        yield backend


@pytest.fixture(scope="module")
def production() -> Iterator[Backend]:
    """The same, where clients are told nothing of errors."""
    with deployed(FUNCTIONS, BOOKS, dev=False) as backend:
        yield backend


# In development


@EACH
def test_in_development_the_message_says_what_happened_and_where(development: Backend, path: str, kind: str) -> None:
    outcome = call(development, path, {"how": "value error"}, kind=kind, request_id="0123456789abcdef")

    assert outcome.error is not None
    head, first, *places = outcome.error.split("\n")
    assert head == "[Request ID: 0123456789abcdef] Server Error"
    assert first == "Uncaught ValueError: a detail"
    assert re.fullmatch(r"    at (ask|do|act) \(functions/test_failures.py:\d+\)", places[0])
    assert all("src/camber" not in place for place in places)
    assert outcome.error_data is None
    assert outcome.value is None


@EACH
@pytest.mark.parametrize(
    ("how", "shown", "data"),
    [
        ("own error", 'Uncaught ConvexError: {"code":"Refused","count":{"$integer":"AwAAAAAAAAA="}}', None),
        ("text", "Uncaught ConvexError: not today", b'"not today"'),
        ("null", "Uncaught ConvexError: null", b"null"),
        ("list", 'Uncaught ConvexError: [1.0,"a"]', b'[1.0,"a"]'),
    ],
)
def test_a_convex_error_brings_its_data(
    development: Backend, path: str, kind: str, how: str, shown: str, data: bytes | None
) -> None:
    outcome = call(development, path, {"how": how}, kind=kind)

    assert message(outcome).split("\n")[0] == shown
    assert outcome.error_data == (data or shown.removeprefix("Uncaught ConvexError: ").encode())


@EACH
def test_data_that_is_no_value_is_told_to_the_author(development: Backend, path: str, kind: str) -> None:
    outcome = call(development, path, {"how": "no value"}, kind=kind)

    told = message(outcome)
    assert told.startswith("Uncaught Error: The data of a ConvexError is no Convex value: ")
    assert "complex" in told
    assert re.search(r"at (ask|do|act) \(functions/test_failures.py:\d+\)", told)
    assert outcome.error_data is None
    assert isinstance(outcome.exception, InvalidValueError)


@EACH
@pytest.mark.parametrize("how", ["unprintable", "half a pair", "exit", "interrupt"])
def test_strange_errors_are_answered_and_the_next_call_too(
    development: Backend, path: str, kind: str, how: str
) -> None:
    for _ in range(3):
        assert not call(development, path, {"how": how}, kind=kind).ok
    assert message(call(development, path, {"how": "text"}, kind=kind)).startswith("Uncaught ConvexError: not today")
    assert development.run("books:count") == 0


@EACH
def test_bad_arguments_are_told_without_a_place(development: Backend, path: str, kind: str) -> None:
    told = message(call(development, path, {"hwo": "text"}, kind=kind))

    assert told == (
        "ArgumentValidationError: Object is missing the required field `how`. Consider wrapping the field validator in "
        '`v.optional(...)` if this is expected.\n\nObject: {hwo: "text"}\nValidator: v.object({how: v.string()})'
    )


def test_a_result_that_does_not_fit_is_told(development: Backend) -> None:
    outcome = call(development, "books:badlyReturned", {"password": "x"})

    assert message(outcome).startswith('ReturnsValidationError: Value does not match validator.\n\nValue: "x"')


def test_a_call_has_a_request_id_of_its_own_where_none_came_along(development: Backend) -> None:
    errors = [call(development, "books:nope").error or "" for _ in range(2)]

    assert all(re.match(r"\[Request ID: [0-9a-f]{16}\] Server Error\n", error) for error in errors)
    assert errors[0] != errors[1]


def test_a_failed_mutation_leaves_nothing(development: Backend) -> None:
    for how in FAILURES:
        call(development, "books:do", {"how": how}, kind="mutation")
    assert development.run("books:count") == 0


# In production


@EACH
@pytest.mark.parametrize("how", ["value error", "no value", "exit"])
def test_in_production_only_the_request_id_is_told(production: Backend, path: str, kind: str, how: str) -> None:
    outcome = call(production, path, {"how": how}, kind=kind, request_id="00" * 8)

    assert outcome.error == "[Request ID: 0000000000000000] Server Error"
    assert outcome.error_data is None
    assert outcome.log_lines == []


@EACH
def test_in_production_a_convex_error_still_brings_its_data(production: Backend, path: str, kind: str) -> None:
    outcome = call(production, path, {"how": "text"}, kind=kind, request_id="00" * 8)

    assert outcome.error == "[Request ID: 0000000000000000] Server Error"
    assert outcome.error_data == b'"not today"'


@pytest.mark.parametrize("path", ["books:nope", "books:ask"])
def test_in_production_bad_calls_are_told_no_more_than_that(production: Backend, path: str) -> None:
    outcome = call(production, path)

    assert re.fullmatch(r"\[Request ID: [0-9a-f]{16}\] Server Error", outcome.error or "")


def test_in_production_a_function_s_log_lines_are_not_told(serve: Serve) -> None:
    @query
    def log(ctx: QueryCtx) -> None:
        ctx.log("for the developer")

    assert call(serve({"books:log": log}, dev=False), "books:log").log_lines == []


# The log


@pytest.fixture
def logged() -> Any:
    """All that any part of the engine logs meanwhile, as the server would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)

    class Everything(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            extra = {name: value for name, value in vars(record).items() if name not in PLAIN}
            return super().format(record) + json.dumps(extra, default=str)

    handler.setFormatter(Everything())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


PLAIN = frozenset(vars(logging.makeLogRecord({})))


def test_a_failure_is_logged_with_its_request_id_its_function_and_its_traceback(serve: Serve, logged: Any) -> None:
    call(serve(FUNCTIONS, BOOKS, dev=False), "books:ask", {"how": "value error"}, request_id="feed" * 4)

    text = logged.getvalue()
    assert "feedfeedfeedfeed" in text
    assert "books:ask" in text
    assert "Traceback" in text
    assert "ValueError: a detail" in text


@pytest.mark.parametrize(
    ("path", "kind", "args"),
    [
        ("books:login", "mutation", {"password": SECRET, "length": 1}),
        ("books:login", "mutation", {"password": SECRET, "length": -1}),
        ("books:login", "mutation", {"password": SECRET, "length": "1"}),
        ("books:login", "mutation", {"password": SECRET, "size": 1}),
        ("books:login", "query", {"password": SECRET, "length": 1}),
        ("books:login", "action", {"password": SECRET}),
        ("books:lgin", "mutation", {"password": SECRET}),
        ("books:badlyReturned", "query", {"password": SECRET}),
        ("books:badlyStored", "mutation", {"password": SECRET}),
    ],
)
def test_arguments_never_get_into_the_log(
    serve: Serve, logged: Any, path: str, kind: str, args: dict[str, Any]
) -> None:
    backend = serve(FUNCTIONS, BOOKS)
    for _ in range(2):  # the second time the unique index refuses the first one's document
        call(backend, path, args, kind=kind, by=somebody("ann", email=f"{SECRET}@example.com"))

    assert SECRET not in logged.getvalue()


@pytest.mark.parametrize(("path", "kind"), [("books:badlyReturned", "query"), ("books:badlyStored", "mutation")])
def test_a_mistake_of_the_author_can_be_found_in_the_log(serve: Serve, logged: Any, path: str, kind: str) -> None:
    logging.getLogger().setLevel(logging.INFO)
    call(serve(FUNCTIONS, BOOKS, dev=False), path, {"password": SECRET}, kind=kind, request_id="feed" * 4)

    text = logged.getvalue()
    assert "feedfeedfeedfeed" in text
    assert path in text
    assert re.search("ReturnsValidationError|SchemaEnforcementError", text)


def test_what_clients_get_wrong_does_not_fill_the_log(serve: Serve, logged: Any) -> None:
    logging.getLogger().setLevel(logging.INFO)
    backend = serve(FUNCTIONS, BOOKS)
    call(backend, "books:nope")
    call(backend, "books:ask", {})
    call(backend, "books:ask", {"how": "text"})
    call(backend, "books:do", {"how": "text"}, by=OPERATOR)

    assert logged.getvalue() == ""
