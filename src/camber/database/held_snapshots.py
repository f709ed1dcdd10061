"""Snapshots that stay open for a while, so that several queries see one moment (protocol 4.1, `query_ts`)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from camber.errors import DatabaseUnreachableError, RequestError
from camber.storage import Snapshot, Storage, Timestamp

MAX_HELD = 16
HELD_SECONDS = 30.0
TURN_SECONDS = 10.0
"""How long to wait for one's turn to open a snapshot."""


class HeldSnapshot:
    """One that is kept. It is one connection, so the queries on it take turns. Safe for several threads."""

    def __init__(self, snapshot: Snapshot, until: float) -> None:
        self.snapshot, self.until = snapshot, until
        self.closed = False
        """Whose turn comes after that is too late."""
        self._lock = threading.Lock()
        self._in_use = False
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` when it is this query's turn: now, or when those before it have left."""
        with self._lock:
            if self._in_use:
                self._waiting.append(begin)
                return
            self._in_use = True
        begin()

    def leave(self) -> None:
        """The query whose turn it was has ended."""
        with self._lock:
            begin = self._waiting.popleft() if self._waiting else None
            self._in_use = begin is not None
        if self.closed:
            self.snapshot.close()
        if begin is not None:
            begin()

    def close(self) -> None:
        """Close it, or have it closed by the query that runs on it."""
        with self._lock:
            self.closed = True
            in_use = self._in_use
        if not in_use:
            self.snapshot.close()


class HeldSnapshots:
    """At most `most` snapshots for 30 seconds each; the oldest goes when there would be more. Safe for several threads.

    Only `hold` waits for the storage, and no lock that the others take is held meanwhile: they are called on the event loop.
    """

    def __init__(self, storage: Storage, *, most: int = MAX_HELD) -> None:
        self._storage, self._most = storage, most
        self._turn = threading.Lock()
        """Of who opens a snapshot: one reader at a time is taken for this, however many ask."""
        self._lock = threading.Lock()
        self._held: OrderedDict[Timestamp, HeldSnapshot] = OrderedDict()

    def hold(self) -> Timestamp:
        """Open one of the latest state, unless there is one; returns its timestamp. Raises StorageError."""
        self.drop_expired()
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise DatabaseUnreachableError(f"others have waited for a snapshot for {TURN_SECONDS:g} s")
        try:
            gone = self._keep(snapshot := self._storage.snapshot())
        finally:
            self._turn.release()
        for each in gone:
            each.close()
        return snapshot.timestamp

    def _keep(self, snapshot: Snapshot) -> list[Snapshot | HeldSnapshot]:
        """Keep it, unless there is one of the same state; returns what is to be closed."""
        timestamp, until = snapshot.timestamp, time.monotonic() + HELD_SECONDS
        with self._lock:
            if (present := self._held.get(timestamp)) is not None:
                present.until = until
                self._held.move_to_end(timestamp)
                return [snapshot]
            gone: list[Snapshot | HeldSnapshot] = []
            while len(self._held) >= self._most:
                gone.append(self._held.popitem(last=False)[1])
            self._held[timestamp] = HeldSnapshot(snapshot, until)
            return gone

    def find(self, at: Timestamp) -> HeldSnapshot:
        """The one of this timestamp. Raises RequestError (400) if it is not kept any more."""
        self.drop_expired()
        with self._lock:
            found = self._held.get(at)
        if found is None:
            raise snapshot_expired(at)
        return found

    def drop_expired(self) -> None:
        """Close those whose time is over."""
        now = time.monotonic()
        gone: list[HeldSnapshot] = []
        with self._lock:
            while self._held and next(iter(self._held.values())).until < now:
                gone.append(self._held.popitem(last=False)[1])
        for each in gone:
            each.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            gone = list(self._held.values())
            self._held.clear()
        for each in gone:
            each.close()


def snapshot_expired(at: Timestamp) -> RequestError:
    """The error of a query that comes too late for the state it asks for."""
    return RequestError(
        400,
        "SnapshotExpired",
        f"The state of timestamp {at} is not kept any more: ask /api/query_ts for a new one, "
        f"and use it within {HELD_SECONDS:g} seconds.",
    )
