"""One running deployment: the database and the application on it, and what the doors call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from camber.auth import TokenVerifier
from camber.clock import Clock, Entropy, SystemClock, SystemEntropy
from camber.database import (
    Database,
    Limits,
    RequestKey,
    Transaction,
    Usage,
    change_value,
    compare_schema,
    forget_expired,
    read_value,
)
from camber.database.held_snapshots import MAX_HELD
from camber.errors import FunctionError
from camber.functions import (
    Application,
    CallKind,
    Done,
    MutationCtx,
    Outcome,
    Runner,
    checked_path,
    failed,
    read_arguments,
    refusal,
    settle_future,
    system_functions,
    too_large,
)
from camber.functions.calls import Call
from camber.functions.live import LANES, OPEN_TICKS
from camber.functions.live_results import Content
from camber.functions.run_records import NewerRecords, Origin, RunRecord, RunRecords
from camber.functions.runner import built_in_variables
from camber.functions.views import Holder, View
from camber.identity import Caller
from camber.settings import Settings
from camber.storage import SqlResult, Storage, Timestamp, open_onlooker, open_storage
from camber.values import encode_value, size_of

T = TypeVar("T")

__all__ = [
    "Backend",
    "Call",
    "CallKind",
    "Content",
    "NewerRecords",
    "Outcome",
    "RunRecord",
    "RunRecords",
    "Timestamp",
    "TokenVerifier",
    "View",
    "change_stored_value",
    "changes_of_serving",
    "stored_value",
]

MAX_ABANDONED_THREADS = 3
HOUSEKEEPING_SECONDS = 30.0
CLEARED_AT_ONCE = 500
"""Rows that have run out, in one transaction; while there are more the next one follows after CLEARING_PAUSE seconds."""
CLEARING_PAUSE = 0.25
SQL_SECONDS = 10.0
SPARE_READERS = 8

_log = logging.getLogger("camber.backend")


class Backend:
    """One deployment. Opening, `run_sync` and `close` need no event loop; `attach` names the one that awaits `run`."""

    def __init__(
        self,
        application: Application,
        storage: Storage,
        *,
        data: Path,
        settings: Settings,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        as_guest: bool = False,
    ) -> None:
        self.data, self.settings, self.application = data, settings, application
        self.on_unhealthy: Callable[[], None] = lambda: None
        """Called from some thread when the process should be replaced by a new one."""
        self._origins = settings.api_origin(), settings.site_origin()
        self._deliveries = _Deliveries()
        self._is_made = False
        self._abandoned = 0
        self._closed = False
        clock = clock or SystemClock()
        self.tokens = TokenVerifier(clock)
        """Who holds a token; only used on the loop."""
        entropy = entropy or SystemEntropy()
        self.database = Database(
            storage,
            application.schema,
            clock=clock,
            entropy=entropy,
            limits=_limits(settings),
            on_settled=self._settled,
            on_abandoned=self._thread_abandoned,
            progress=progress,
            as_guest=as_guest,
        )
        self._runner = Runner(
            self.database,
            settings,
            entropy,
            finished=self._deliveries.flush,
            on_abandoned=self._thread_abandoned,
        )
        self._is_made = True
        self._looks = _Looks(self.database)
        self._serve(application)
        self._housekeeper = _after(HOUSEKEEPING_SECONDS, self._keep_house)

    @classmethod
    def open(
        cls,
        application: Application,
        data: Path,
        *,
        settings: Settings,
        create: bool,
        on_progress: Callable[[str, int, int], None] | None = None,
        as_guest: bool = False,
    ) -> Self:
        """Open the data folder, or the settings' database, and bring its tables to the application's schema.

        With `as_guest`, for one that is gone in a moment, the tables of a database that several servers share are left as they are.
        Raises DataFolderError, DataFolderInUseError, ConfigurationError, SchemaMismatchError; nothing is changed then.
        """
        readers = settings.query_threads + MAX_HELD + OPEN_TICKS * LANES + SPARE_READERS
        if settings.database_url:
            readers = settings.database_connections
        storage = open_storage(
            data,
            create=create,
            readers=readers,
            database_url=settings.database_url,
            handler_seconds=settings.mutation_seconds,
        )
        try:
            return cls(application, storage, data=data, settings=settings, progress=on_progress, as_guest=as_guest)
        except BaseException:
            storage.close()
            raise

    @property
    def instance_name(self) -> str:
        """The deployment's name."""
        return self.settings.instance_name

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver answers and live results on this loop from now on."""
        self._deliveries.loop = self._looks.loop = loop
        self._runner.live.attach(loop)

    @property
    def marked(self) -> Timestamp:
        """The newest timestamp of which anything may be told."""
        return self.database.feed.marked

    def now_ms(self) -> float:
        """The server's time in ms since the epoch."""
        return self.database.now_ms()

    @property
    def is_shared(self) -> bool:
        """Whether other servers write to the same data: then what is known here may be a moment old."""
        return self.database.is_shared

    def when_current(self, step: Callable[[Exception | None], None]) -> None:
        """Call this once everything is known here that was acknowledged before now, by whatever server; on the loop, and back there.

        With an error where that can't be known. At once where nobody else writes.
        """
        if self.database.is_shared:
            self._looks.ask(step)
        else:
            step(None)

    def view(self, holder: Holder, caller: Caller) -> View:
        """A new view of live queries for this caller; on the loop."""
        return self._runner.live.view(holder, caller)

    def listens_at(self, url: str, site_url: str) -> None:
        """Tell functions these addresses where the settings name no others: with port 0 the system has chosen a port by now."""
        settings = self.settings
        self._origins = settings.cloud_url or url, settings.site_url or site_url
        self._runner.built_in = built_in_variables(*self._origins)
        self._serve(self.application)

    @property
    def run_records(self) -> RunRecords:
        """The last runs of functions and how they ended, for the operator."""
        return self._runner.run_records

    def observe(self, on_run: Callable[[Usage], None] | None) -> None:
        """Have this told what each run of a query or mutation looked up, on the thread that ran it; None: nobody."""
        self._runner.on_run = on_run

    def close(self) -> None:
        """Finish what runs, then close the data."""
        if self._closed:
            return
        self._closed = True
        self._housekeeper.cancel()
        self._runner.close()
        self.database.close()

    def ready(self) -> str | None:
        """None if the deployment can answer; else why not."""
        if self._closed:
            return "shutting down"
        if self.database.broken is not None:
            return f"the last commit failed: {self.database.broken}"
        if self._abandoned >= MAX_ABANDONED_THREADS:
            return f"{self._abandoned} functions did not stop when their time was over; restarting"
        # Its reason names files, and anyone may ask here. The log has it at each write that is refused.
        if self.database.storage.trouble() is not None:
            return "nothing can be written any more"
        return self.database.trouble()

    # Calling functions

    def cached(self, path: str, args: bytes, caller: Caller) -> Outcome | None:
        """A query's result that is still good, for these texts exactly as an earlier call had them."""
        return self._runner.cached(path, args, caller)

    async def run(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        *,
        kind: CallKind | None,
        request_id: str,
        at: Timestamp | None = None,
    ) -> Outcome:
        """Call the function at this path; `args` is the JSON text of its arguments, an object or an array of one.

        `kind` None takes a function of any kind; `at` runs a query on a snapshot from `hold_snapshot`. Failures of the function
        are outcomes. Raises RequestError for a request that makes no sense or comes at a bad time, StorageError.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.start(path, args, caller, partial(settle, future), kind=kind, request_id=request_id, at=at)
        return await future

    def start(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        done: Done,
        *,
        kind: CallKind | None,
        request_id: str,
        at: Timestamp | None = None,
        once: tuple[str, int] | None = None,
        origin: Origin = "HttpApi",
        is_current: bool = False,
    ) -> Call | None:
        """The same for who does not await: `done` is called on the loop, with the outcome or what `run` would raise later on.

        Called on the loop; where the answer is there at once, `done` is called before this returns. Raises RequestError too.
        `is_current` says that the caller has waited for `when_current`. With `once`, the session and number of a request, a mutation
        that was asked for before is answered as it was then. Returns the call, None where there is none to wait for.
        """
        here = threading.get_ident()

        def deliver(result: Outcome | Exception) -> None:
            if threading.get_ident() == here:  # without a thread in between
                done(result)
            else:
                self._deliveries.put(done, result)

        return self._start(
            path,
            args,
            caller,
            deliver,
            kind=kind,
            request_id=request_id,
            at=at,
            once=once,
            origin=origin,
            is_current=is_current,
        )

    def run_sync(
        self, path: str, args: bytes, caller: Caller, *, kind: CallKind | None = None, request_id: str = ""
    ) -> Outcome:
        """The same for a thread that waits."""
        future: Future[Outcome] = Future()
        self._start(path, args, caller, lambda result: settle_future(future, result), kind=kind, request_id=request_id)
        while True:
            try:
                # Not without end: a signal such as Ctrl-C that the system gave to another thread is seen only when this one runs.
                return future.result(timeout=1.0)
            except TimeoutError:
                if future.done():
                    raise

    def transact(self, step: Callable[[MutationCtx], T], lines: list[str]) -> T:
        """Run a piece of Python in one mutation transaction, as the operator and without a limit of time; for tests.

        Returns what it returned; what it logs goes to `lines`. Raises what it raised, and then nothing is stored; StorageError.
        """
        return self._runner.transact(step, lines)

    async def hold_snapshot(self) -> Timestamp:
        """Keep the latest state for 30 seconds, so that several queries can be run on it.

        At most 16 are kept, with PostgreSQL at most half as many as `database_connections`.
        """
        return await asyncio.to_thread(self._runner.held.hold)  # it may have to wait for a commit

    async def sql(self, statement: str, *, limit: int) -> SqlResult:
        """Run a read-only SQL statement on the latest state. Raises StorageError."""
        return await asyncio.to_thread(self.sql_sync, statement, limit=limit)

    def sql_sync(self, statement: str, *, limit: int) -> SqlResult:
        """The same for a thread that waits."""
        return self.database.storage.sql(statement, limit=limit, seconds=SQL_SECONDS)

    async def reload(self, application: Application) -> None:
        """Serve this application from now on. Raises SchemaMismatchError, and then the old one goes on."""
        await asyncio.to_thread(self.reload_sync, application)

    def reload_sync(self, application: Application) -> None:
        """The same for a thread that waits."""
        self.database.change_schema(application.schema, lambda: self._serve(application))

    # The steps of the above

    def _serve(self, application: Application) -> None:
        url, site_url = self._origins
        self.application = application
        self.tokens.serve(application.identities)
        self._runner.serve({**application.functions, **system_functions(application, url=url, site_url=site_url)})

    def _start(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        done: Done,
        *,
        kind: CallKind | None,
        request_id: str,
        at: Timestamp | None = None,
        once: tuple[str, int] | None = None,
        origin: Origin = "HttpApi",
        is_current: bool = False,
    ) -> Call | None:
        request_id = request_id or secrets.token_hex(8)
        canonical = checked_path(path)
        arguments = read_arguments(args)
        by_path = self._runner.functions.by_path
        error = refusal(by_path, canonical, kind, caller) or self._too_large(canonical, args, arguments)
        if error is not None:
            done(self._runner.outcome(failed(error), 0, request_id, canonical))
            return None
        request = None
        if once is not None:
            asked = (_name_of(caller), canonical.encode(), encode_value(dict(arguments)))
            request = RequestKey.of(*once, *asked)
        return self._runner.start(
            by_path[canonical],
            canonical,
            arguments,
            caller,
            request_id,
            done,
            raw=(path, args),
            at=at,
            request=request,
            origin=origin,
            is_current=is_current,
        )

    def _too_large(self, path: str, text: bytes, arguments: dict[str, object]) -> FunctionError | None:
        limit = self.settings.arguments_bytes
        # The text of a value is longer than the value in all but a few cases, so most are not measured.
        if len(text) * 9 <= limit or (size := size_of(arguments)) <= limit:  # pyright: ignore[reportArgumentType]
            return None
        return too_large(f"Arguments for {path} are", size, limit)

    def _settled(self) -> None:
        if not self._is_made:  # commits of other servers come in meanwhile
            return
        self._deliveries.flush()
        self._runner.live.wake()  # behind the answers: whoever wrote is told first
        if self.database.broken is not None:
            self.on_unhealthy()

    def _thread_abandoned(self) -> None:
        self._abandoned += 1
        _log.error(
            "a function did not stop when its time was over; its thread was given up (%d so far)", self._abandoned
        )
        if self._abandoned == MAX_ABANDONED_THREADS:
            self.on_unhealthy()

    def _keep_house(self) -> None:
        if self._closed:
            return
        self._runner.held.drop_expired()
        self.database.submit(_Housekeeping(self._kept_house))

    def _kept_house(self, gone: int) -> None:
        if not self._closed:
            self._housekeeper = _after(
                CLEARING_PAUSE if gone == CLEARED_AT_ONCE else HOUSEKEEPING_SECONDS, self._keep_house
            )


class _Deliveries:
    """Carries answers from the engine's threads to the event loop, many with one wake-up."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[tuple[Done, Outcome | Exception]] = deque()
        self._scheduled = False

    def put(self, done: Done, result: Outcome | Exception) -> None:
        """An answer, and who gets it; on its way as soon as `flush` is called."""
        self._ready.append((done, result))

    def flush(self) -> None:
        """Wake the loop, unless it is about to look anyway."""
        if self._ready and not self._scheduled and self.loop is not None:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:  # the loop is closed; nobody waits any more
                self._ready.clear()

    def deliver(self) -> None:
        """On the loop: hand out what is ready."""
        self._scheduled = False
        while self._ready:
            done, result = self._ready.popleft()
            try:
                done(result)
            except Exception:  # noqa: BLE001  one answer that can't be sent must not keep the others
                _log.exception("an answer could not be delivered")


class _Looks:
    """Has those wait who must know the newest state, for a look at the commit log that begins after they came.

    One look serves all that came before it began, and there is one at a time.
    """

    def __init__(self, database: Database) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._database = database
        self._waiting: list[Callable[[Exception | None], None]] = []
        self._is_looking = False

    def ask(self, step: Callable[[Exception | None], None]) -> None:
        """On the loop."""
        self._waiting.append(step)
        if not self._is_looking:
            self._look()

    def _look(self) -> None:
        self._is_looking = True
        steps, self._waiting = self._waiting, []
        self._database.look(partial(self._looked, steps))

    def _looked(self, steps: list[Callable[[Exception | None], None]], error: Exception | None) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits any more
                self.loop.call_soon_threadsafe(self._go_on, steps, error)

    def _go_on(self, steps: list[Callable[[Exception | None], None]], error: Exception | None) -> None:
        self._is_looking = False
        if self._waiting:
            self._look()
        for step in steps:
            try:
                step(error)
            except Exception:  # noqa: BLE001  one request's trouble must not keep the others
                _log.exception("a request could not be gone on with")


class _Housekeeping:
    """A mutation that drops what has run out, a bounded number at a time."""

    seconds = 1.0

    def __init__(self, settled: Callable[[int], None]) -> None:
        """`settled` is told how many rows are gone."""
        self._settled = settled
        self._gone = 0

    def run(self, transaction: Transaction) -> None:
        self._gone = forget_expired(transaction, at_most=CLEARED_AT_ONCE)

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:  # noqa: ARG002
        if error is not None:
            _log.warning("what has run out could not be dropped", exc_info=error)
        self._settled(0 if error is not None else self._gone)


def _after(seconds: float, step: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, step)
    timer.daemon = True
    timer.start()
    return timer


def settle(future: asyncio.Future[T], result: T | Exception) -> None:
    """Give a future its result or its error, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _name_of(caller: Caller) -> bytes:
    """Who asks, for a request that may come again: the same person, although a new token may have other claims."""
    name = "" if caller.identity is None else caller.identity.token_identifier
    return f"{'operator' if caller.is_admin else 'caller'} {name}".encode(errors="backslashreplace")


def changes_of_serving(
    application: Application,
    data: Path,
    *,
    settings: Settings,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[str]:
    """What serving this application would change in the tables of this data folder, in words; nothing is changed here.

    Also while a server has the folder. Raises SchemaMismatchError, DataFolderError.
    """
    onlooker = open_onlooker(data, database_url=settings.database_url)
    plan = compare_schema(onlooker, application.schema, _limits(settings), on_progress)
    return [*(f"create {what}" for what in plan.created), *(f"drop {what}" for what in plan.dropped)]


def stored_value(database_url: str, key: str) -> object:
    """What the deployment in this database keeps under this key; None where there is nothing.

    Raises ConfigurationError where the database can't be used or has nothing of ours, StorageError.
    """
    return read_value(open_onlooker(Path(), database_url=database_url), key)


def change_stored_value(database_url: str, key: str, change: Callable[[object], object]) -> object:
    """Have `change` make that value from the one that is there (None: none); servers that run are told. Returns it. Raises as above."""
    with closing(open_storage(Path(), create=False, readers=1, database_url=database_url)) as storage:
        return change_value(storage, key, change, clock=SystemClock(), entropy=SystemEntropy())


def _limits(settings: Settings) -> Limits:
    return Limits(
        documents_read=settings.documents_read,
        bytes_read=settings.bytes_read,
        ranges_read=settings.ranges_read,
        documents_written=settings.documents_written,
        bytes_written=settings.bytes_written,
    )
