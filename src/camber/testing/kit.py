"""A backend for tests: a real one, on a database in a temporary folder or on a PostgreSQL, with a clock that the test holds."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
import typing
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast, overload

from camber import backend as engine
from camber.clock import HeldClock
from camber.database import Usage
from camber.errors import ConfigurationError, ConvexError, LoadError
from camber.functions import (
    ActionCtx,
    Application,
    CallKind,
    MutationCtx,
    QueryCtx,
    RegisteredFunction,
    action,
    application_of,
    load_application,
    make_importable,
    mutation,
    query,
)
from camber.functions.projects import application_folder
from camber.functions.wire_names import wire_name
from camber.identity import OPERATOR, Caller, Identity
from camber.schema import Schema
from camber.settings import TEST_DATABASE_VARIABLE, Settings
from camber.storage import open_storage
from camber.testing.watching import WatchedQuery, Watching
from camber.values import decode_value, encode_value, normalize, parse_json

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ISSUER = "https://camber.test"


@dataclass(slots=True)
class ReadCounter:
    """How many index ranges and documents the calls in a block have looked up."""

    ranges: int = 0
    documents: int = 0


class Person:
    """Somebody who calls functions: `backend.as_user(...)`, `backend.anonymous`, or the backend itself as the operator."""

    def __init__(self, backend: Backend, caller: Caller) -> None:
        self._backend, self.caller = backend, caller

    @overload
    def run(
        self, function: RegisteredFunction[Concatenate[Any, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def run(self, function: RegisteredFunction[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function as a client would: by itself with keyword arguments, or by its path with a mapping of wire names.

        Returns its result; raises what it raised: a ConvexError with its data, or the error itself.
        """
        return self._backend.call(function, args, kwargs, self.caller)

    @overload
    def subscribe(
        self, function: RegisteredFunction[Concatenate[Any, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[WatchedQuery[R]]: ...
    @overload
    def subscribe(
        self, function: str, args: Mapping[str, object] = ..., /
    ) -> AbstractContextManager[WatchedQuery[Any]]: ...
    def subscribe(self, function: Any, /, *args: Any, **kwargs: Any) -> AbstractContextManager[WatchedQuery[Any]]:
        """Watch a query as a page does, for the length of a block; what it is given is what `run` takes.

            with backend.subscribe(get_state) as seen:
                backend.run(set_state, crowdfunding_active=True)
                assert seen.value["crowdfundingActive"]

        When a call of this backend has ended, what it changed has been seen: there is nothing to wait for. A query that fails
        does not raise here; `seen.error` has its error.
        """
        return self._backend.watch(function, args, kwargs, self.caller)


class Backend(Person):
    """One deployment for one test. Calls through the backend itself are the operator's."""

    def __init__(
        self, application: Application, *, now_ms: float | None = None, settings: Settings | None = None
    ) -> None:
        self.database_url = _take_database()
        """The PostgreSQL database that is this backend's alone; empty on SQLite, where CAMBER_TEST_DATABASE_URL names no server."""
        self._folder = tempfile.TemporaryDirectory(prefix="camber-test-")
        self.clock = HeldClock() if now_ms is None else HeldClock(now_ms)
        self.log_lines: list[str] = []
        """What the most recent call on this backend logged (`["[INFO] 'hello'"]`), also where it raised."""
        self._watching: Watching | None = None
        self._removed = False
        data, settings = Path(self._folder.name) / "data", settings or Settings(dev=True)
        try:
            storage = open_storage(
                data,
                create=True,
                durable=False,
                database_url=self.database_url,
                handler_seconds=settings.mutation_seconds,
            )
            try:
                self.engine = engine.Backend(application, storage, data=data, settings=settings, clock=self.clock)
            except BaseException:
                storage.close()
                raise
        except BaseException:
            self._remove()
            raise
        super().__init__(self, OPERATOR)

    @classmethod
    def in_memory(
        cls,
        schema: Schema,
        functions: Mapping[str, Callable[..., Any]] | Iterable[RegisteredFunction[..., Any]] = (),
        *,
        now_ms: float | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """A backend of a schema and functions, without a folder.

        `functions` are registered ones, whose paths are `module:name`, or a mapping of paths to functions, where a plain `def`
        is public and of the kind that its context's annotation says. Raises LoadError, SchemaMismatchError.
        """
        return cls(application_of("in_memory", schema, _by_path(functions)), now_ms=now_ms, settings=settings)

    @classmethod
    def load(cls, folder: str | Path, *, now_ms: float | None = None, settings: Settings | None = None) -> Self:
        """A backend of the application in this folder. Raises LoadError with every problem."""
        return cls(load_application(Path(folder)), now_ms=now_ms, settings=settings)

    @property
    def anonymous(self) -> Person:
        """Somebody without an identity."""
        return Person(self, Caller())

    def as_user(
        self,
        *,
        email: str | None = None,
        name: str | None = None,
        subject: str | None = None,
        email_verified: bool = True,
        address: str | None = None,
        **claims: object,
    ) -> Person:
        """Somebody who is signed in. The same e-mail or subject is the same person; further claims under their wire names."""
        subject = subject or hashlib.sha256((email or name or "somebody").encode()).hexdigest()[:20]
        found: dict[str, object] = {
            "issuer": ISSUER,
            "subject": subject,
            "tokenIdentifier": f"{ISSUER}|{subject}",
            **claims,
        }
        if email is not None:
            found |= {"email": email, "emailVerified": email_verified}
        if name is not None:
            found["name"] = name
        return Person(self, Caller(Identity(found), address=address))

    def from_address(self, address: str) -> Person:
        """Somebody without an identity at this network address."""
        return Person(self, Caller(address=address))

    def transact(self, step: Callable[[MutationCtx], T]) -> T:
        """Run any function in one mutation transaction as the operator: to arrange rows and to look at them, past the
        application's functions. The schema is enforced, and what the step raises takes back what it wrote.

        Returns what the step returned, whatever that is. It may be run more than once; its last run counts.

            backer_id = backend.transact(lambda ctx: ctx.db.insert("crowdfunding_backers", {...}))
        """
        self.log_lines = []
        try:
            return self.engine.transact(step, self.log_lines)
        finally:
            self._catch_up()

    @contextmanager
    def counting_reads(self) -> Generator[ReadCounter]:
        """Counts what the calls inside the block look up in the database."""
        counter = ReadCounter()

        def add(usage: Usage) -> None:
            counter.ranges += usage.ranges_read
            counter.documents += usage.documents_read

        self.engine.observe(add)
        try:
            yield counter
        finally:
            self.engine.observe(None)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """The rows of a read-only SQL statement on the views."""
        return self.engine.sql_sync(statement, limit=10_000).rows

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: Caller) -> Any:
        """What `Person.run` does, for any caller."""
        target, path, given = self._asked(function, args, kwargs)
        kind: CallKind | None = None  # as `camber run` calls, which takes functions of all kinds
        if not caller.is_admin:
            kind = "query" if target is None else target.kind
        self.log_lines = []
        try:
            outcome = self.engine.run_sync(path, given, caller, kind=kind)
        finally:
            self._catch_up()
        self.log_lines = outcome.log_lines
        if outcome.exception is not None:
            raise _as_raised(outcome.exception, outcome.error)
        return _handed_over(target, outcome.value or b"null")

    @contextmanager
    def watch(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: Caller
    ) -> Generator[WatchedQuery[Any]]:
        """What `Person.subscribe` does, for any caller."""
        target, path, given = self._asked(function, args, kwargs)
        if self._watching is None:
            self._watching = Watching(self.engine)
        with self._watching.watch(path, given, caller) as record:
            yield WatchedQuery(record, partial(_handed_over, target))

    def close(self) -> None:
        """End it and remove what it stored."""
        if self._watching is not None:
            self._watching.close()
            self._watching = None
        self.engine.close()
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        self._folder.cleanup()
        if self.database_url:
            from camber.testing.databases import give_back_database

            give_back_database(self.database_url)

    def _asked(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[RegisteredFunction[..., Any] | None, str, bytes]:
        """The function, its path, and its arguments as a client sends them."""
        target: RegisteredFunction[..., Any] | None
        if isinstance(function, str):
            path, target = function, self.engine.application.find(function)
            given: Mapping[str, Any] = args[0] if args else {}
        else:
            target = cast("RegisteredFunction[..., Any]", function)
            path, given = self._path_of(target), target.wire_args(args, kwargs)
        return target, path, encode_value(normalize(given))

    def _catch_up(self) -> None:
        if self._watching is not None:
            self._watching.catch_up()

    def _path_of(self, function: RegisteredFunction[..., Any]) -> str:
        for path, known in self.engine.application.functions.items():
            if known is function:
                return path
        raise ConfigurationError(f"{function!r} is no function of the application that this backend serves.")


def _take_database() -> str:
    server = os.environ.get(TEST_DATABASE_VARIABLE, "")
    if not server:
        return ""
    from camber.testing.databases import take_database  # not before: loading psycopg takes a while

    return take_database(server)


def load_default_application(start: Path) -> Application:
    """The application that the nearest pyproject.toml names in `[tool.camber] app`. Raises LoadError."""
    return load_application(application_folder(start))


def make_default_importable(start: Path) -> str:
    """Let its modules be imported; returns its package's name, or nothing where there is no application."""
    try:
        return make_importable(application_folder(start))
    except (ConfigurationError, LoadError):
        return ""  # whoever asks for the fixture is told


def _by_path(
    functions: Mapping[str, Callable[..., Any]] | Iterable[RegisteredFunction[..., Any]],
) -> dict[str, RegisteredFunction[..., Any]]:
    if isinstance(functions, Mapping):
        named = cast("Mapping[str, Callable[..., Any]]", functions)
        return {path: _registered(path, function) for path, function in named.items()}
    found: dict[str, RegisteredFunction[..., Any]] = {}
    for one in functions:
        path = f"{wire_name(one.__module__.rpartition('.')[2])}:{one.name}"
        if found.setdefault(path, one) is not one:
            raise LoadError([f"{one.place}: the path {path} is taken by the function at {found[path].place}."])
    return found


def _registered(path: str, function: Callable[..., Any]) -> RegisteredFunction[..., Any]:
    if isinstance(function, RegisteredFunction):
        return cast("RegisteredFunction[..., Any]", function)
    first = next(iter(inspect.signature(function).parameters), "")
    context = typing.get_type_hints(function).get(first)
    kinds: dict[Any, Any] = {QueryCtx: query, MutationCtx: mutation, ActionCtx: action}
    if context not in kinds:
        says = "the first parameter says what kind of function it is: `ctx: QueryCtx`, `ctx: MutationCtx` or `ctx: ActionCtx`"
        raise LoadError([f"{path}: {says}"])
    return cast("RegisteredFunction[..., Any]", kinds[context](function))


def _handed_over(function: RegisteredFunction[..., Any] | None, text: bytes) -> Any:
    """A result as the function's own callers get it."""
    value = decode_value(parse_json(text))
    returns = None if function is None else function.returns
    return value if returns is None else returns.hand_over(value)


def _as_raised(error: Exception, message: str | None) -> Exception:
    """The error for the test: a fresh ConvexError, so that one raised in a thread is not raised twice; others as they are."""
    if type(error) is ConvexError:
        return ConvexError(error.data)
    error.add_note(message or "")
    return error
