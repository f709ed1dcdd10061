"""Threads that run queries on snapshots: as few as get on with it, one more when a slow query is in the way."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from camber.database import Abandoned, Database, Transaction
from camber.errors import DatabaseUsageError, FunctionTimeoutError, StorageError
from camber.storage import Snapshot, Timestamp

_log = logging.getLogger("camber.functions")

MAX_SNAPSHOT_SECONDS = 30.0
SHARED_SNAPSHOT_SECONDS = 0.1
"""For how long one snapshot serves query after query on PostgreSQL, where it locks each table that it has read against changes of the
schema. These are tried for 0.2 seconds at a time, and a thread that always has work would always be in their way.
"""
_SLOW_SECONDS = 0.005
_COMPLAINT_SECONDS = 1.0
_SNAPSHOT_KEPT_SECONDS = 0.1
"""How long an idle thread keeps its snapshot, because the next query is likely to come soon and to be of the same state.

Shorter than a checkpoint that must start the WAL over waits for its readers.
"""


class QueryJob(Protocol):
    """A query that waits for a thread."""

    seconds: float
    """How long it may run."""

    @property
    def snapshot(self) -> Snapshot | None:
        """A snapshot that it must run on; None for the latest state."""
        ...

    def begin(self) -> None:
        """It is about to run, on a snapshot that is opened now."""
        ...

    def run(self, transaction: Transaction) -> None:
        """Run it, and keep the outcome."""
        ...

    def finish(self, transaction: Transaction | None, error: Exception | None) -> None:
        """It is over; the error is one of the engine, a timeout for example. Must be quick and must not raise."""
        ...


class QueryPool:
    """Hands queries to threads. A slow one holds up nobody: after 5 ms without progress another thread takes what waits."""

    def __init__(
        self,
        database: Database,
        *,
        threads: int,
        finished: Callable[[], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        self._database, self._watchdog = database, database.watchdog
        self._finished, self._on_abandoned = finished, on_abandoned
        self._threads = threads
        self._waiting: deque[QueryJob] = deque()
        self._lock = threading.Condition()
        self._awake = 0
        self._alive = 0
        self._sleeping = 0
        self._progress = time.perf_counter()
        self._complained = -_COMPLAINT_SECONDS
        self._closed = False
        self._refusing = threading.Lock()
        self._workers: set[threading.Thread] = set()
        self._idle: set[_Worker] = set()
        self._watchdog.on_patrol(self._patrol)
        if not database.is_shared:
            database.feed.on_commit(self._drop_outdated)

    @property
    def waiting(self) -> int:
        """How many queries wait for a thread."""
        return len(self._waiting)

    def submit(self, job: QueryJob) -> None:
        """Have it run; it is finished in every case."""
        self._waiting.append(job)
        if self._closed:
            self._refuse_waiting()
        elif self._awake == 0:
            self._wake_one()

    def close(self) -> None:
        """Run what waits, then end the threads."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for worker in list(self._workers):
            while worker in self._workers:  # until it has ended, or is given up
                worker.join(timeout=0.1)
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        # One thread at a time, and not again from within: a query that ends may let the next one of its snapshot come.
        while self._waiting and self._refusing.acquire(blocking=False):
            try:
                with suppress(IndexError):  # threads that end may take some too
                    while True:
                        _finish(self._waiting.popleft(), None, StorageError("The server is shutting down."))
            finally:
                self._refusing.release()
        self._finished()

    def _wake_one(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._sleeping:
                self._lock.notify()
            elif self._alive < self._threads:
                self._start()
        self._watchdog.wake()

    def _patrol(self) -> bool:
        """Called every few ms while something runs: help if queries wait behind a slow one."""
        if self._waiting and time.perf_counter() - self._progress > _SLOW_SECONDS:
            self._wake_one()
        return bool(self._awake)

    def _start(self) -> None:
        """One more thread, where the system gives one. Called with the lock, which the new thread needs before it counts."""
        worker = threading.Thread(target=self._work, name="camber-query", daemon=True)
        try:
            worker.start()
        except RuntimeError as error:
            if (now := time.monotonic()) > self._complained + _COMPLAINT_SECONDS:
                self._complained = now
                _log.warning("no more threads can be started that run queries: %s", error)
            return
        self._alive += 1
        self._awake += 1
        self._workers.add(worker)

    def _work(self) -> None:
        worker = _Worker(self._database)
        slot = self._watchdog.slot(lambda: self._abandoned(worker, slot.error()))
        try:
            while True:
                try:
                    job = self._waiting.popleft()
                except IndexError:
                    if not self._sleep(worker):
                        return
                    continue
                self._progress = time.perf_counter()
                worker.job = job
                worker.run(job, slot.run)
                worker.job = None
                self._finished()
        except Abandoned:
            return
        finally:
            worker.close()
            self._workers.discard(threading.current_thread())

    def _sleep(self, worker: _Worker) -> bool:
        with self._lock:
            self._awake -= 1
            self._sleeping += 1
            self._idle.add(worker)
            if not self._lock.wait_for(self._has_work, timeout=_SNAPSHOT_KEPT_SECONDS):
                worker.close()  # with the lock, so that nobody else closes it too: it waits for nothing
                self._lock.wait_for(self._has_work)
            self._idle.discard(worker)
            self._sleeping -= 1
            self._awake += 1
            if not self._closed or self._waiting:
                return True
            self._awake -= 1
            self._alive -= 1
            return False

    def _drop_outdated(self, _timestamp: Timestamp) -> None:
        """After a commit nobody will read from the snapshots of idle threads, and they would keep the WAL from starting over."""
        with self._lock:
            for worker in self._idle:
                worker.close()

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._closed

    def _abandoned(self, worker: _Worker, error: FunctionTimeoutError) -> None:
        with self._lock:
            self._alive -= 1
            self._awake -= 1
            self._workers.discard(worker.thread)
        self._on_abandoned()  # first: whoever is told that it timed out finds a server that knows of it
        worker.give_up(error)
        self._finished()
        if self._waiting:
            self._wake_one()


class _Worker:
    """What one thread holds: a snapshot that it goes on using while it is the latest state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._longest = SHARED_SNAPSHOT_SECONDS if database.is_shared else MAX_SNAPSHOT_SECONDS
        self.thread = threading.current_thread()
        self._snapshot: Snapshot | None = None
        self._opened = 0.0
        self._transaction: Transaction | None = None
        self.job: QueryJob | None = None

    def run(self, job: QueryJob, supervised: Callable[..., None]) -> None:
        """Run the job and finish it."""
        database = self._database
        job.begin()
        try:
            transaction = self._transaction = database.transaction(job.snapshot or self._latest())
        except Exception as error:  # noqa: BLE001  a query ends with its error, the thread goes on
            _finish(job, None, error)
            return
        try:
            supervised(lambda: job.run(transaction), job.seconds, transaction.usage)
            if transaction.snapshot.failure is not None:
                raise transaction.snapshot.failure
        except Exception as error:  # noqa: BLE001
            self.close()
            _finish(job, None, error)
            return
        finally:
            transaction.refuse(DatabaseUsageError("This query has ended; its ctx can't be used any more."))
        # Nothing of a timestamp leaves before results are marked stale up to it.
        database.feed.wait_until_marked(transaction.timestamp)
        _finish(job, transaction, None)

    def give_up(self, error: FunctionTimeoutError) -> None:
        """On the watchdog's thread: the job's thread does not come back in time."""
        if self._transaction is not None:
            self._transaction.refuse(
                FunctionTimeoutError("This query ran out of time; its ctx can't be used any more.")
            )
        if self.job is not None:
            _finish(self.job, None, error)

    def close(self) -> None:
        """Let go of the snapshot."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def _latest(self) -> Snapshot:
        now = time.monotonic()
        if self._snapshot is not None and (
            self._snapshot.timestamp < self._database.feed.marked or now - self._opened > self._longest
        ):
            self.close()
        if self._snapshot is None:
            self._snapshot, self._opened = self._database.storage.snapshot(), now
        return self._snapshot


def _finish(job: QueryJob, transaction: Transaction | None, error: Exception | None) -> None:
    """Finish a job. If telling its outcome fails, whoever waits is told that, and the thread goes on."""
    try:
        job.finish(transaction, error)
    except Exception as failure:  # noqa: BLE001
        _log.exception("whoever asked for a query could not be told its result")
        with suppress(Exception):
            job.finish(None, StorageError(f"The answer was lost: {failure}"))
