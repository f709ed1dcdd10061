"""Functions that a test writes in place, served by a real backend, and the ways of calling them."""

from __future__ import annotations

import asyncio
import json
import threading
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

T = TypeVar("T")

Functions = Mapping[str, Callable[..., Any]] | Iterable[RegisteredFunction[..., Any]]


def deployed(functions: Functions, *tables: Table[Any], check: bool = True, **settings: Any) -> Backend:
    """A backend that serves these functions."""
    schema = define_schema(*tables, schema_validation=check)
    return Backend.in_memory(schema, functions, settings=Settings(**{"dev": True, **settings}))


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


def together(backend: Backend, *calls: tuple[str, Mapping[str, Any], Caller], kind: Any = "query") -> list[Outcome]:
    """Calls that reach the server in one moment, on its event loop."""

    async def main() -> list[Outcome]:
        engine = backend.engine
        engine.attach(asyncio.get_running_loop())
        runs = [
            engine.run(path, json.dumps(args).encode(), caller, kind=kind, request_id="")
            for path, args, caller in calls
        ]
        return await asyncio.gather(*runs)

    return asyncio.run(main())


__all__ = [
    "ANONYMOUS",
    "OPERATOR",
    "HeldClock",
    "call",
    "declared",
    "deployed",
    "in_background",
    "message",
    "somebody",
    "together",
]
