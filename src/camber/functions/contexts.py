"""`ctx`: what a function is given to work with, by kind (protocol 3.1)."""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, overload

from camber.database import DatabaseReader, DatabaseWriter, RateLimit, RateLimitAttempt, RateLimitStatus, RunState
from camber.errors import DatabaseUsageError
from camber.functions.logs import RunLog
from camber.identity import Caller, Identity

if TYPE_CHECKING:
    from camber.functions.registration import RegisteredFunction

P = ParamSpec("P")
R = TypeVar("R")


class Run(Protocol):
    """What runs the function behind a context; it notes what the result depends on."""

    caller: Caller
    state: RunState
    log: RunLog
    built_in: Mapping[str, str]
    """Environment variables that the server itself sets."""
    read_identity: bool
    read_clock: bool

    def random_bytes(self, count: int) -> bytes: ...

    def call(self, function: Any, kind: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any: ...


class ActionRun(Protocol):
    """What runs an action."""

    caller: Caller
    log: RunLog

    def now_ms(self) -> float: ...

    def random_bytes(self, count: int) -> bytes: ...

    def call(
        self, function: Any, kind: str, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Awaitable[Any]: ...

    def environment(self, name: str) -> str | None: ...


class CallerAuth:
    """`ctx.auth`: who calls."""

    __slots__ = ("_caller", "_note")

    def __init__(self, caller: Caller, note: Callable[[], None]) -> None:
        self._caller, self._note = caller, note

    def get_user_identity(self) -> Identity | None:
        """The claims of the signed-in caller, or None."""
        self._note()
        return self._caller.identity

    @property
    def is_operator(self) -> bool:
        """Whether the call came with the deployment's admin key and without impersonation."""
        self._note()
        return self._caller.is_operator


class Environment:
    """`ctx.env`: the deployment's environment variables; a query that reads one runs again when it changes."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The variable's value, or the default."""
        found = self._read(name)
        return default if found is None else found

    def __getitem__(self, name: str) -> str:
        found = self._read(name)
        if found is None:
            raise DatabaseUsageError(
                f'The environment variable {name} is not set; set it with: camber env set {name} "…"'
            )
        return found


class _ReadOnlyDatabase(DatabaseReader):
    """`ctx.db` of a query, which says so when it is asked to write: a mutation's transaction may be below it."""

    __slots__ = ()

    def insert(self, *_: object) -> NoReturn:
        raise DatabaseUsageError("A query can't write. Declare the function with @mutation.")

    patch = replace = delete = insert


class QueryCtx:
    """What a query works with: one state of the database, and who asks."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._db: DatabaseReader = _ReadOnlyDatabase(run.state)
        self._random: random.Random | None = None

    @property
    def db(self) -> DatabaseReader:
        """The database, read only."""
        return self._db

    @property
    def auth(self) -> CallerAuth:
        """Who calls."""
        return CallerAuth(self._run.caller, self._note_identity)

    @property
    def env(self) -> Environment:
        """Environment variables."""
        return Environment(self._variable)

    @property
    def log(self) -> RunLog:
        """Log lines that go back with the answer."""
        return self._run.log

    @property
    def now(self) -> float:
        """Milliseconds since the epoch; the same for the whole run."""
        self._run.read_clock = True
        return self._run.state.transaction.now_ms

    @property
    def random(self) -> random.Random:
        """Random numbers for this run; not for secrets: use `token()`."""
        self._run.read_clock = True
        if self._random is None:
            self._random = random.Random(self._run.random_bytes(16))
        return self._random

    @overload
    def run_query(
        self, function: RegisteredFunction[Concatenate[QueryCtx, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def run_query(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call another query in this transaction, with its arguments and result checked."""
        return self._run.call(function, "query", args, kwargs)

    def _note_identity(self) -> None:
        self._run.read_identity = True

    def _variable(self, name: str) -> str | None:
        if (built_in := self._run.built_in.get(name)) is not None:
            return built_in
        transaction = self._run.state.transaction
        table = transaction.catalog.by_name["_environment_variables"]
        found = transaction.find_one(table, table.index("by_name"), (name,))
        return None if found is None else found["value"]


class MutationCtx(QueryCtx):
    """What a mutation works with: one transaction that is stored as a whole or not at all."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._writer = self._db = DatabaseWriter(run.state)

    @property
    def db(self) -> DatabaseWriter:
        """The database."""
        return self._writer

    @property
    def client_address(self) -> str | None:
        """Where the call came from (IPv6 as its /64 network); None for the operator, schedules and internal calls."""
        return self._run.caller.address

    def rate_limit(self, rule: RateLimit, key: str) -> RateLimitStatus:
        """Count an attempt under this rule. It stays counted when the function raises afterwards."""
        return RateLimitAttempt(rule, key).count(self._run.state.transaction)

    def token(self) -> str:
        """An unguessable text of 32 letters, digits, - and _ (192 bits)."""
        return base64.urlsafe_b64encode(self._run.random_bytes(24)).decode()

    def uuid(self) -> str:
        """A random UUID, version 4, as text."""
        return str(uuid.UUID(bytes=self._run.random_bytes(16), version=4))

    @overload
    def run_mutation(
        self, function: RegisteredFunction[Concatenate[MutationCtx, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def run_mutation(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call another mutation as a sub-transaction: if it raises and you catch that, what it wrote is taken back."""
        return self._run.call(function, "mutation", args, kwargs)


class ActionCtx:
    """What an action works with: the world, and functions that each run in a transaction of their own."""

    def __init__(self, run: ActionRun) -> None:
        self._run = run
        self._random: random.Random | None = None

    @property
    def auth(self) -> CallerAuth:
        """Who calls."""
        return CallerAuth(self._run.caller, lambda: None)

    @property
    def env(self) -> Environment:
        """Environment variables."""
        return Environment(self._run.environment)

    @property
    def log(self) -> RunLog:
        """Log lines that go back with the answer."""
        return self._run.log

    @property
    def now(self) -> float:
        """Milliseconds since the epoch."""
        return self._run.now_ms()

    @property
    def random(self) -> random.Random:
        """Random numbers for this run; not for secrets: use `token()`."""
        if self._random is None:
            self._random = random.Random(self._run.random_bytes(16))
        return self._random

    @property
    def client_address(self) -> str | None:
        """Where the call came from (IPv6 as its /64 network); None for the operator, schedules and internal calls."""
        return self._run.caller.address

    def token(self) -> str:
        """An unguessable text of 32 letters, digits, - and _ (192 bits)."""
        return base64.urlsafe_b64encode(self._run.random_bytes(24)).decode()

    def uuid(self) -> str:
        """A random UUID, version 4, as text."""
        return str(uuid.UUID(bytes=self._run.random_bytes(16), version=4))

    @overload
    async def run_query(
        self, function: RegisteredFunction[Concatenate[QueryCtx, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_query(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    async def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query on the latest state."""
        return await self._run.call(function, "query", args, kwargs)

    @overload
    async def run_mutation(
        self, function: RegisteredFunction[Concatenate[MutationCtx, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_mutation(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation; it is stored when this returns."""
        return await self._run.call(function, "mutation", args, kwargs)

    @overload
    async def run_action(
        self,
        function: RegisteredFunction[Concatenate[ActionCtx, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def run_action(self, function: str, args: Mapping[str, object] = ..., /) -> Any: ...
    async def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run another action."""
        return await self._run.call(function, "action", args, kwargs)
