"""A backend whose functions do whatever a test hands them, so that a test can say in place what a mutation does."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from camber import CamberError, MutationCtx, QueryCtx, Schema, Table, define_schema
from camber.backend import Backend as Engine
from camber.clock import Clock
from camber.functions import application_of
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import open_storage
from camber.testing import Backend
from camber.testing.kit import Person

T = TypeVar("T")

READ, WRITE = "play:read", "play:write"

PATIENCE = 60.0
"""How long to wait for what must come."""
UNHURRIED = Settings(dev=True, mutation_seconds=120.0, query_seconds=120.0)
"""Limits that no machine exceeds which stands still for a while."""


@contextmanager
def limited(backend: Backend, **seconds: float) -> Iterator[None]:
    """Calls that are made in this block may take so long (`query_seconds=0.2`); all others as long as before."""
    runner = backend.engine._runner
    before = runner.settings
    runner.settings = replace(before, **seconds)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        runner.settings = before


class Playground:
    """Runs a piece of Python as a query or a mutation of a real backend, and gives what it returned, whatever that is.

    A body may be run more than once, as any function may; what its last run returned counts.
    """

    def __init__(self, schema: Schema, *, settings: Settings | None = None, now_ms: float | None = None) -> None:
        self._bodies: dict[int, Callable[[Any], Any]] = {}
        self._returned: dict[int, Any] = {}
        self._numbers = itertools.count()
        self.backend = Backend.in_memory(schema, self.functions(), settings=settings or UNHURRIED, now_ms=now_ms)

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """The functions that the backend serves, by their paths."""

        def read(ctx: QueryCtx, *, body: int) -> None:
            self._returned[body] = self._bodies[body](ctx)

        def write(ctx: MutationCtx, *, body: int) -> None:
            self._returned[body] = self._bodies[body](ctx)

        return {READ: read, WRITE: write}

    def read(self, body: Callable[[QueryCtx], T], *, by: Person | None = None) -> T:
        """Run this as a query."""
        return self._run(body, lambda number: (by or self.backend).run(READ, {"body": number}))

    def write(self, body: Callable[[MutationCtx], T], *, by: Person | None = None) -> T:
        """Run this as a mutation."""
        return self._run(body, lambda number: (by or self.backend).run(WRITE, {"body": number}))

    def write_at(self, body: Callable[[MutationCtx], object]) -> int:
        """Run this as a mutation; gives the timestamp it was committed at."""
        timestamps: list[int] = []

        def call(number: int) -> None:
            outcome = self.backend.engine.run_sync(WRITE, b'{"body": %d}' % number, OPERATOR)
            assert outcome.ok, outcome.error
            timestamps.append(outcome.timestamp)

        self._run(body, call)
        return timestamps[0]

    def limited(self, seconds: float) -> AbstractContextManager[None]:
        """What is called in this block may take so long."""
        return limited(self.backend, query_seconds=seconds, mutation_seconds=seconds)

    def in_one_group(
        self, *bodies: Callable[[MutationCtx], Any], limits: Mapping[Callable[..., Any], float] | None = None
    ) -> list[Any]:
        """Run these mutations one behind the other in one group; gives what each returned, or the error it raised.

        Those that are in `limits` may take so long.
        """
        database = self.backend.engine.database
        held, all_wait = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            all_wait.wait(PATIENCE)

        holder = Call(database._committer.run_alone, hold)
        assert held.wait(PATIENCE)
        calls: list[Call] = []
        for body in bodies:
            with self.limited(limits[body]) if limits and body in limits else nullcontext():
                calls.append(Call(self.write, body))
                while database.waiting_mutations < len(calls) and holder.is_alive():
                    time.sleep(0.0005)
        assert holder.is_alive(), "not all of them came"
        all_wait.set()
        assert holder.outcome() is None
        return [call.outcome() for call in calls]

    def read_inside(self, ctx: QueryCtx, body: Callable[[QueryCtx], T]) -> T:
        """Run this as a query called by the function that has this context."""
        return self._run(body, lambda number: ctx.run_query(READ, {"body": number}))

    def write_inside(self, ctx: MutationCtx, body: Callable[[MutationCtx], T]) -> T:
        """Run this as a mutation called by the mutation that has this context: a sub-transaction."""
        return self._run(body, lambda number: ctx.run_mutation(WRITE, {"body": number}))

    def insert(self, table: str, *documents: Mapping[str, object]) -> list[str]:
        """Insert these in one mutation; gives their ids."""
        return self.write(lambda ctx: [ctx.db.insert(table, document) for document in documents])

    def all(self, table: str) -> list[dict[str, Any]]:
        """Every document of a table, in the order of their creation."""
        return self.read(lambda ctx: ctx.db.query(table).collect())

    def restart(
        self,
        *tables: Table[Any],
        clock: Clock | None = None,
        check: bool = True,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Close the backend and open what it stored again, with these tables if any are given; what was stored is all that stays.

        If that fails it is opened as it was before, and the error raised.
        """
        before = self.backend.engine
        before.close()
        schema = define_schema(*tables, schema_validation=check) if tables else before.application.schema
        try:
            self.backend.engine = self._reopened(before, schema, clock, progress)
        except CamberError:
            self.backend.engine = self._reopened(before, before.application.schema, clock, None)
            raise

    def _reopened(
        self, before: Engine, schema: Schema, clock: Clock | None, progress: Callable[[str, int, int], None] | None
    ) -> Engine:
        application = application_of("in_memory", schema, dict(before.application.functions))
        storage = open_storage(before.data, create=False, durable=False, database_url=self.backend.database_url)
        clock = clock or self.backend.clock
        try:
            return Engine(
                application, storage, data=before.data, settings=before.settings, clock=clock, progress=progress
            )
        except BaseException:
            storage.close()
            raise

    def close(self) -> None:
        self.backend.close()

    def _run(self, body: Callable[[Any], T], call: Callable[[int], object]) -> T:
        # A number of its own for each run also keeps the result cache out of the way.
        number = next(self._numbers)
        self._bodies[number] = body
        try:
            call(number)
            return self._returned[number]
        finally:
            del self._bodies[number]
            self._returned.pop(number, None)


class Call(threading.Thread):
    """A call from a thread of its own."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function(*self._arguments)
        except Exception as error:  # noqa: BLE001
            self._result = error

    def outcome(self) -> Any:
        """What it gave, or the error it raised, once it is over."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the call never came back"
        return self._result


@contextmanager
def playground(
    *tables: Table[Any], settings: Settings | None = None, now_ms: float | None = None
) -> Iterator[Playground]:
    """A playground with these tables, for as long as the block lasts."""
    opened = Playground(define_schema(*tables), settings=settings, now_ms=now_ms)
    try:
        yield opened
    finally:
        opened.close()


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without its system fields."""
    return {name: value for name, value in document.items() if name not in ("_id", "_creationTime")}


def ids_of(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """The ids of documents, in their order."""
    return [document["_id"] for document in documents]
