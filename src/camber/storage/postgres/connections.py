"""Connections to PostgreSQL, set up as this driver needs them: those that read in a bounded pool, and none is waited for without end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from camber.errors import ConfigurationError, DatabaseUnreachableError, StorageError
from camber.storage.postgres.failures import storage_error
from camber.storage.postgres.statements import Statements, failure

SCHEMA = "camber"

_Begun = TypeVar("_Begun")


class Connection(psycopg.Connection[Any]):
    """A connection with the statements that are run on it often."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.statements = Statements(self)


CONNECT_SECONDS = 5
ANSWER_SECONDS = 5
"""How long to wait for the answer to what costs PostgreSQL nothing; the connection is given up then."""
READ_SECONDS = 30
"""How long one statement may take; functions are stopped long before."""
SNAPSHOT_SECONDS = 60
"""How long a snapshot may lie unused before the server ends it, for servers that have gone without a word."""
_OLDEST_VERSION = 140_000
_LOOK_AGAIN_SECONDS = 0.1

# A peer that is gone is noticed within half a minute. What the user's URL says itself stands.
_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 4,
    "keepalives_count": 4,
    "tcp_user_timeout": 20_000,
    "application_name": "camber",
}

# Rows are always read in the order of an index, so the planner is told not to think about anything else: a plan made while a table
# was small would go on sorting it when it has grown.
_SETTINGS = f"""
SET search_path = {SCHEMA};
SET client_min_messages = warning;
SET jit = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_sort = off;
SET plan_cache_mode = force_generic_plan;
SET statement_timeout = {READ_SECONDS * 1000};
SET idle_in_transaction_session_timeout = {SNAPSHOT_SECONDS * 1000};
SET idle_session_timeout = 0;
"""
_SETTINGS_SINCE_17 = "SET transaction_timeout = 0;"
_FACTS = "SELECT pg_is_in_recovery()::int, current_setting('server_encoding')"
_DURABLE = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local');
SELECT current_setting('synchronous_commit')
"""


def execute(
    connection: psycopg.Connection[Any],
    statement: str,
    bindings: Sequence[object] | None = None,
    *,
    binary: bool = False,
) -> psycopg.Cursor[Any]:
    """Run this; `binary` has the rows come in binary form. A statement that is put together here is made of names and numbers only."""
    return connection.execute(cast("LiteralString", statement), bindings, binary=binary)


def connection_words(url: str) -> dict[str, Any]:
    """The URL as psycopg's keywords, with what we set. Raises ConfigurationError where it is none."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # Not in psycopg's words, which may repeat parts of the URL, the password among them.
        raise ConfigurationError(
            "database_url (CAMBER_DATABASE_URL) is no PostgreSQL URL; it looks like postgresql://user:password@host:5432/name"
        ) from None
    # Texts are sent as UTF-8: read in another encoding, which a role, a database or a variable may name, they would be stored as others.
    return {**_DEFAULTS, **given, "client_encoding": "UTF8", "autocommit": True}


def connect(words: dict[str, Any]) -> Connection:
    """A connection that can read and write. Raises psycopg.Error, ConfigurationError."""
    connection = Connection.connect(**words)
    try:
        configure(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def configure(connection: Connection) -> None:
    """Set up a new connection. Raises where the server is no primary, or not one that we can work with."""
    if connection.info.server_version < _OLDEST_VERSION:
        raise ConfigurationError(
            f"PostgreSQL {connection.info.server_version // 10_000} is too old: Camber needs 14 or newer"
        )
    # Only of who connects anew: the thread that the timer takes is little beside that.
    timer = threading.Timer(ANSWER_SECONDS, cut, (connection,))
    timer.daemon = True
    with suppress(RuntimeError):  # the system gives no more threads: better without a limit than not at all
        timer.start()
    try:
        newer = _SETTINGS_SINCE_17 if connection.info.server_version >= 170_000 else ""
        cursor = execute(connection, _SETTINGS + newer + _FACTS)
    finally:
        timer.cancel()
    while cursor.nextset():
        pass
    in_recovery, encoding = cursor.fetchone() or (0, "")
    if encoding != "UTF8":
        # Where there is none, texts come as bytes.
        name = encoding.decode() if isinstance(encoding, bytes) else encoding
        raise ConfigurationError(
            f"the database {connection.info.dbname} has the encoding {name}: make one with ENCODING 'UTF8'"
        )
    if in_recovery:
        raise psycopg.OperationalError("the server is a replica, which can't be written to")
    connection.prepare_threshold = None  # `Connection.statements` are prepared, and nobody else drops those


def make_durable(connection: Connection, *, durable: bool) -> None:
    """Have commits wait for the disk, and for a synchronous standby where there is one; without `durable` for nothing."""
    if not durable:
        execute(connection, "SET synchronous_commit = off")
        return
    cursor = execute(connection, _DURABLE)
    while cursor.nextset():
        pass
    found = cursor.fetchone()
    if found is None or found[0] in {"off", "local"}:
        raise StorageError("PostgreSQL does not take synchronous_commit = on, so no commit could be called durable")


def cut(connection: psycopg.Connection[Any]) -> None:
    """End the connection from another thread: what waits for it is told that it is lost."""
    with suppress(OSError, psycopg.Error):
        copy = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()


@dataclass(slots=True)
class _Action:
    when: float
    seconds: float
    do: Callable[[], None]


class Patience:
    """Cuts connections on which something takes longer than it may: a network that swallows everything gives no error by itself."""

    _LOOK_SECONDS = 0.5

    def __init__(self) -> None:
        self._until: dict[psycopg.Connection[Any], float] = {}
        self._actions: dict[object, _Action] = {}
        self._rounds: list[Callable[[], None]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="camber-patience", daemon=True)
        self._thread.start()

    @contextmanager
    def at_most(self, connection: psycopg.Connection[Any], seconds: float) -> Generator[None]:
        """The block uses the connection for so long at most."""
        self._until[connection] = time.monotonic() + seconds
        try:
            yield
        finally:
            self._until.pop(connection, None)

    def begin(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        """The same in two halves, for statements that are many and short."""
        self._until[connection] = time.monotonic() + seconds

    def end(self, connection: psycopg.Connection[Any]) -> None:
        """The statement has ended."""
        self._until.pop(connection, None)

    def now_and_then(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Do this in a thread of its own each time that so long has passed; until what is returned is called."""
        key = object()
        self._actions[key] = _Action(time.monotonic() + seconds, seconds, action)

        def stop() -> None:
            self._actions.pop(key, None)

        return stop

    def on_round(self, action: Callable[[], None]) -> None:
        """Do this at each look, on the thread that cuts: it must be quick and must neither wait nor raise."""
        self._rounds.append(action)

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _work(self) -> None:
        while not self._closed.wait(self._LOOK_SECONDS):
            now = time.monotonic()
            for connection, until in list(self._until.items()):
                if until < now:
                    cut(connection)
            for action in list(self._actions.values()):
                if action.when < now:
                    action.when = now + action.seconds
                    with suppress(RuntimeError):  # the system gives no more threads: another time, then
                        threading.Thread(target=action.do, name="camber-patience-ended", daemon=True).start()
            for each in self._rounds:
                each()


class ReaderPool:
    """At most `limit` readers at once; who wants more than are free waits `patience` seconds, then gets StorageError.

    Giving one back does not wait for PostgreSQL, so that it can be done on the event loop and under locks: the ROLLBACK is sent, and
    its answer is left to whoever takes the connection next, for whom it is there by then.
    """

    def __init__(self, words: dict[str, Any], guard: Patience, *, limit: int, patience: float) -> None:
        self._guard, self._limit, self._patience = guard, limit, patience
        self._several = threading.Lock()
        self._free = threading.Semaphore(limit)
        """How many more may be taken. Counted here, because the pool below knows nothing of those that are ending."""
        self._ending: deque[_Ending] = deque()
        self._is_closed = False
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            connection_class=Connection,
            kwargs=words,
            min_size=0,
            max_size=limit,
            timeout=patience,
            max_idle=60.0,
            reconnect_timeout=2.0,
            configure=configure,
            open=True,
            name="camber-readers",
        )
        guard.on_round(self._put_away)

    def take(self, begin: Callable[[Connection], _Begun], *, seconds: float | None = None) -> tuple[Connection, _Begun]:
        """A connection on which `begin` has been done, with what that gave. Those that prove to be dead are dropped.

        So is one on which it takes longer than `seconds`, ANSWER_SECONDS where nothing is said. `begin` asks with what statements.py
        has: then libpq hears the answer to the ROLLBACK before, if that is still to come, and psycopg would not.
        """
        deadline = time.monotonic() + self._patience
        if not self._free.acquire(timeout=self._patience):
            raise self._none_came()
        try:
            while True:
                connection = self._get(deadline)
                try:
                    with self._guard.at_most(connection, ANSWER_SECONDS if seconds is None else seconds):
                        return connection, begin(connection)
                except psycopg.Error as error:
                    lost = connection.closed
                    self._end(connection)
                    if not lost or time.monotonic() > deadline:
                        raise storage_error(error) from error
                except BaseException:
                    self._end(connection)
                    raise
        except BaseException:
            self._free.release()
            raise

    @contextmanager
    def several(self, count: int) -> Generator[None]:
        """Who takes more than one does so alone, so that two can't each have half of what they need."""
        if count > self._limit:
            raise StorageError(f"{count} readers at once are more than the {self._limit} there are")
        if count == 1:
            yield
            return
        if not self._several.acquire(timeout=self._patience):
            raise StorageError(f"others have waited for readers for {self._patience:g} s")
        try:
            yield
        finally:
            self._several.release()

    def give_back(self, connection: Connection) -> None:
        """Have the connection's transaction ended and take it back, without waiting."""
        self._end(connection)
        self._free.release()

    def close(self) -> None:
        """Close the idle readers now and the others when they come back."""
        self._is_closed = True
        self._pool.close(timeout=2.0)
        self._close_ending()

    def _get(self, deadline: float) -> Connection:
        while True:
            with suppress(IndexError):
                return self._ending.popleft().connection
            try:
                # Not for long at once: one that is given back comes to those that are ending.
                return self._pool.getconn(timeout=_LOOK_AGAIN_SECONDS)
            except PoolClosed:
                raise StorageError("the storage is closed") from None
            except PoolTimeout:
                if time.monotonic() > deadline:
                    raise self._none_came() from None

    def _none_came(self) -> DatabaseUnreachableError:
        return DatabaseUnreachableError(
            f"no reader became free in {self._patience:g} s: {self._limit} are in use, or PostgreSQL can't be reached"
        )

    def _end(self, connection: Connection) -> None:
        pgconn = connection.pgconn
        try:
            if not connection.closed and pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                pgconn.send_query(b"ROLLBACK")
                if pgconn.flush():  # there is no room for even that: nothing has gone out on it for long
                    connection.close()
        except psycopg.Error:
            connection.close()
        if connection.closed or pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self._put_back(connection)
            return
        self._ending.append(_Ending(connection, time.monotonic() + ANSWER_SECONDS))
        if self._is_closed:
            self._close_ending()

    def _put_away(self) -> None:
        """Put those that nobody has taken again with the idle ones, of which the pool closes what is too many.

        One that still has no answer after so long is dropped.
        """
        now = time.monotonic()
        for _ in range(len(self._ending)):
            try:
                ending = self._ending.popleft()
            except IndexError:
                return
            connection = ending.connection
            with suppress(psycopg.Error):  # then it is closed
                if not _has_ended(connection):
                    if now <= ending.until:
                        self._ending.append(ending)
                        continue
                    connection.close()
            self._put_back(connection)
        if self._is_closed:
            self._close_ending()

    def _put_back(self, connection: Connection) -> None:
        with suppress(psycopg.Error, ValueError):
            self._pool.putconn(connection)

    def _close_ending(self) -> None:
        with suppress(IndexError):
            while True:
                connection = self._ending.popleft().connection
                connection.close()
                self._put_back(connection)


class _Ending(NamedTuple):
    """A connection to which ROLLBACK was sent, and until when the answer is waited for where nobody takes it."""

    connection: Connection
    until: float


def _has_ended(connection: Connection) -> bool:
    """Whether the ROLLBACK that was sent is answered; does not wait. Raises psycopg.Error, and then the connection is closed."""
    pgconn = connection.pgconn
    if pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
        return True
    try:
        pgconn.consume_input()
        while not pgconn.is_busy():  # else it would wait, and all other threads with it
            result = pgconn.get_result()
            if result is None:
                return True
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise failure(connection, result)
    except psycopg.Error:
        connection.close()
        raise
    return False
