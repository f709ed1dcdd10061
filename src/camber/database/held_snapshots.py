"""Snapshots that stay open for a while, so that several queries see one moment (protocol 4.1, `query_ts`)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from camber.errors import RequestError
from camber.storage import Snapshot, Storage, Timestamp

MAX_HELD = 16
HELD_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class HeldSnapshot:
    """One that is kept. A query on it holds the lock, because it is one connection."""

    snapshot: Snapshot
    until: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False
    """Read it with the lock held: a query that waited for its turn may come too late."""


class HeldSnapshots:
    """At most 16 snapshots for 30 seconds each; the oldest goes when there would be more. Safe for several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._held: OrderedDict[Timestamp, HeldSnapshot] = OrderedDict()

    def hold(self) -> Timestamp:
        """Open one of the latest state, unless there is one; returns its timestamp."""
        self.drop_expired()
        with self._lock:
            snapshot = self._storage.snapshot()
            timestamp = snapshot.timestamp
            if (present := self._held.get(timestamp)) is not None:
                snapshot.close()
                present.until = time.monotonic() + HELD_SECONDS
                self._held.move_to_end(timestamp)
                return timestamp
            while len(self._held) >= MAX_HELD:
                _let_go(self._held.popitem(last=False)[1])
            self._held[timestamp] = HeldSnapshot(snapshot, time.monotonic() + HELD_SECONDS)
            return timestamp

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
        with self._lock:
            while self._held and next(iter(self._held.values())).until < time.monotonic():
                _let_go(self._held.popitem(last=False)[1])

    def close(self) -> None:
        """Close all."""
        with self._lock:
            while self._held:
                _let_go(self._held.popitem()[1])


def snapshot_expired(at: Timestamp) -> RequestError:
    """The error of a query that comes too late for the state it asks for."""
    return RequestError(
        400,
        "SnapshotExpired",
        f"The state of timestamp {at} is not kept any more: ask /api/query_ts for a new one, "
        f"and use it within {HELD_SECONDS:g} seconds.",
    )


def _let_go(held: HeldSnapshot) -> None:
    """Close it; a query that runs on it is not waited for here."""
    if held.lock.acquire(blocking=False):
        try:
            _close(held)
        finally:
            held.lock.release()
    else:
        threading.Thread(target=_close_when_free, args=(held,), name="camber-held-snapshot", daemon=True).start()


def _close_when_free(held: HeldSnapshot) -> None:
    with held.lock:
        _close(held)


def _close(held: HeldSnapshot) -> None:
    held.closed = True
    held.snapshot.close()
