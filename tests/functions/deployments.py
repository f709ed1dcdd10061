"""Functions that a test writes in place, served by a real backend, and the ways of calling them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from camber import RegisteredFunction, Table, define_schema
from camber.backend import Outcome
from camber.clock import HeldClock
from camber.functions import application_of
from camber.identity import ANONYMOUS, OPERATOR, Caller, Identity
from camber.settings import Settings
from camber.testing import Backend
from tests.database.playground import limited

T = TypeVar("T")

Functions = Mapping[str, Callable[..., Any]] | Iterable[RegisteredFunction[..., Any]]

PATIENCE = 60.0
"""How long to wait for what must come."""
UNHURRIED: dict[str, Any] = {"query_seconds": 120.0, "mutation_seconds": 120.0}
"""Limits that no machine exceeds which stands still for a while."""


def deployed(functions: Functions, *tables: Table[Any], check: bool = True, **settings: Any) -> Backend:
    """A backend that serves these functions, which have time; `limited` gives some of the calls less."""
    schema = define_schema(*tables, schema_validation=check)
    return Backend.in_memory(schema, functions, settings=Settings(**{"dev": True, **UNHURRIED, **settings}))


def declared(function: RegisteredFunction[..., Any], path: str = "things:one") -> RegisteredFunction[..., Any]:
    """The function as loading leaves it. Raises LoadError."""
    application_of("declared", define_schema(), {path: function})
    return function


def somebody(name: str, **claims: object) -> Caller:
    """Somebody who is signed in."""
    found = {"issuer": "https://people.test", "subject": name, "tokenIdentifier": f"https://people.test|{name}"}
    return Caller(Identity({**found, **claims}))


def call(
    backend: Backend,
    path: str,
    args: Mapping[str, Any] | None = None,
    *,
    by: Caller = ANONYMOUS,
    kind: Any = "query",
    request_id: str = "",
) -> Outcome:
    """How one call ends, as a client is told."""
    return backend.engine.run_sync(path, json.dumps(args or {}).encode(), by, kind=kind, request_id=request_id)


def message(outcome: Outcome) -> str:
    """What a client is told of a failure, without the line with the request's id."""
    assert outcome.error is not None, f"it did not fail: {outcome.value!r}"
    head, _, text = outcome.error.partition("\n")
    assert head.endswith("Server Error")
    return text


def in_background(work: Callable[[], T]) -> Future[T]:
    """Start this on a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], object]) -> None:
    """Wait until this is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def all_taken_in(backend: Backend) -> None:
    """Wait until all calls that were begun on this loop wait to be run, or have been refused."""
    await asyncio.sleep(0)
    looked = asyncio.Event()  # on PostgreSQL a query waits for a look at what others have committed first
    backend.engine.when_current(lambda _: looked.set())
    await looked.wait()


def together(
    backend: Backend,
    *calls: tuple[str, Mapping[str, Any], Caller],
    kind: Any = "query",
    then: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Calls that reach the server in one moment, on its event loop; `then` happens when all of them wait."""

    async def main() -> list[Outcome]:
        engine = backend.engine
        engine.attach(asyncio.get_running_loop())
        runs = [
            asyncio.ensure_future(engine.run(path, json.dumps(args).encode(), caller, kind=kind, request_id=""))
            for path, args, caller in calls
        ]
        await all_taken_in(backend)
        then()
        return await asyncio.gather(*runs)

    return asyncio.run(main())


__all__ = [
    "ANONYMOUS",
    "OPERATOR",
    "PATIENCE",
    "UNHURRIED",
    "HeldClock",
    "all_taken_in",
    "call",
    "declared",
    "deployed",
    "in_background",
    "limited",
    "message",
    "somebody",
    "together",
    "until",
]
