"""A tick: one timestamp, snapshots of it, and the live queries that are run on them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camber.database import Transaction
from camber.errors import RequestError, StorageError
from camber.functions.calls import failed
from camber.functions.live_results import LiveQuery, LiveResult, content_of
from camber.functions.results import CLOCK_NS
from camber.functions.running import FunctionRun, RunOutcome
from camber.identity import Caller
from camber.storage import Snapshot, Timestamp

if TYPE_CHECKING:
    from camber.functions.live import LiveQueries
    from camber.functions.runner import Runner
    from camber.functions.views import View


class NotRun(Exception):
    """A query was not run in its tick after all; who waits for it tries the next one."""


class Tick:
    """What is run at one timestamp. Its attributes belong to the event loop, except those behind the lock."""

    def __init__(self, live: LiveQueries, runner: Runner) -> None:
        self.live, self.runner = live, runner
        self.timestamp = Timestamp(0)
        self.views: list[View] = []
        """Those that want to join."""
        self.is_joining = self.is_joined = False
        """Every view that wanted to has joined."""
        self.waiting: dict[LiveQuery, list[View]] = {}
        self.results: dict[LiveQuery, LiveResult] = {}
        self._lock = threading.RLock()  # a pool that is closed ends what it is given at once
        self._snapshots: list[Snapshot] = []
        self._free: list[Snapshot] = []
        self._jobs: deque[deque[tuple[LiveQuery, Caller]]] = deque()
        self._closed = False

    def open(self, *, lanes: int) -> None:
        """Have so many snapshots opened, on a thread; `LiveQueries.opened` is told."""
        self.runner.submit_query(_Opening(self, lanes))

    def opened(self, snapshots: list[Snapshot], timestamp: Timestamp) -> None:
        """They are open, and results are marked up to their timestamp."""
        self._snapshots, self._free, self.timestamp = snapshots, list(snapshots), timestamp

    def need(self, view: View, queries: Sequence[LiveQuery]) -> None:
        """This view waits for these. Those of different views take turns, so that one with many holds up nobody."""
        new: deque[tuple[LiveQuery, Caller]] = deque()
        for query in queries:
            views = self.waiting.get(query)
            if views is None:
                self.waiting[query] = [view]
                query.running = self
                new.append((query, view.caller))
            else:
                views.append(view)
        if new:
            with self._lock:
                self._jobs.append(new)
            self.dispatch()

    def dispatch(self) -> None:
        """Give queries that wait to snapshots that are free. On any thread."""
        with self._lock:
            while self._jobs and (self._free or not self._snapshots):
                of_view = self._jobs.popleft()
                query, caller = of_view.popleft()
                if of_view:
                    self._jobs.append(of_view)
                if not self._snapshots or not query.watched:  # nothing is left to run it on, or nobody to run it for
                    self.tell(query, caller, NotRun(), by_caller=False)
                else:
                    self.runner.submit_query(_Run(self, query, caller, self._free.pop()))

    def release(self, snapshot: Snapshot, *, is_sound: bool) -> None:
        """A run has ended. One that did not end by itself may still be reading."""
        with self._lock:
            goes_on = is_sound and not self._closed
            if goes_on:
                self._free.append(snapshot)
            else:
                self._snapshots.remove(snapshot)
        if not goes_on:  # not with the lock, for which the event loop would wait
            snapshot.close()
        self.dispatch()

    def tell(self, query: LiveQuery, caller: Caller, result: LiveResult | Exception, *, by_caller: bool) -> None:
        """How a run ended, for the event loop."""
        self.live.post(lambda: self.live.ran(self, query, caller, result, by_caller=by_caller))

    def close(self) -> None:
        """Let go of the snapshots; those in use are closed when their runs end."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
            for snapshot in free:
                self._snapshots.remove(snapshot)
        for snapshot in free:
            snapshot.close()


class _Opening:
    """Opens a tick's snapshots; a `QueryJob`."""

    seconds = float("inf")

    def __init__(self, tick: Tick, lanes: int) -> None:
        self._tick, self._lanes = tick, lanes
        self._snapshots: list[Snapshot] = []

    @property
    def snapshot(self) -> Snapshot:
        """The first of those that are opened now."""
        if not self._snapshots:
            self._snapshots = self._tick.runner.database.storage.snapshots(self._lanes)
        return self._snapshots[0]

    def begin(self) -> None:
        """Nobody can join this."""

    def run(self, transaction: Transaction) -> None:
        """Opening was all: whoever runs this waits now until results are marked up to the timestamp."""

    def finish(self, transaction: Transaction | None, error: Exception | None) -> None:
        """Tell that it is open."""
        tick = self._tick
        if transaction is not None:
            tick.opened(self._snapshots, transaction.timestamp)
        else:
            for snapshot in self._snapshots:
                snapshot.close()
        tick.live.post(lambda: tick.live.opened(tick, error))


class _Run:
    """One run of a live query in a tick; a `QueryJob`."""

    def __init__(self, tick: Tick, query: LiveQuery, caller: Caller, snapshot: Snapshot) -> None:
        self._tick, self._query, self._caller, self.snapshot = tick, query, caller, snapshot
        self.seconds = tick.runner.settings.query_seconds
        self._journal = query.journal if query.result is None else query.result.content.journal or query.journal
        self._current: FunctionRun | None = None
        self._outcome = RunOutcome()

    def begin(self) -> None:
        """Nobody can join this."""

    def run(self, transaction: Transaction) -> None:
        """Run it, and keep how it went."""
        runner, query = self._tick.runner, self._query
        run = self._current = runner.function_run(transaction, self._caller, self._journal)
        self._outcome = run.run(query.function, query.arguments, result_bytes=runner.settings.result_bytes)
        if runner.on_run is not None:
            runner.on_run(transaction.usage)

    def finish(self, transaction: Transaction | None, error: Exception | None) -> None:
        """Watch what the result depends on, and hand it over."""
        tick, query, caller = self._tick, self._query, self._caller
        tick.release(self.snapshot, is_sound=transaction is not None)
        if isinstance(error, (StorageError, RequestError)):
            tick.tell(query, caller, error, by_caller=False)
            return
        run = self._outcome
        if error is not None:
            run = failed(error) if self._current is None else self._current.ended(error)
        if error is None and run.error is not None and self._is_of_old_code():
            tick.tell(query, caller, NotRun(), by_caller=False)
            return
        result = self._result(run)
        tick.tell(query, caller, result, by_caller=run.read_identity)

    def _is_of_old_code(self) -> bool:
        """Whether the code was changed while this failed, and all is asked anew. What the old code read by may be gone."""
        runner = self._tick.runner
        runner.database.wait_until_changed()
        return self._query.function is not runner.functions.by_path.get(self._query.path)

    def _result(self, run: RunOutcome) -> LiveResult:
        tick, query, runner = self._tick, self._query, self._tick.runner
        outcome = runner.outcome(run, tick.timestamp, query.request_id(), query.path)
        runner.run_records.add(
            "query", query.path, query.request_id(), self._caller, "SyncWorker", run, outcome.exception
        )
        expires_ns = runner.database.clock.now_ns() + CLOCK_NS if run.read_clock else None
        reads = [] if self._current is None else list(self._current.state.transaction.reads)
        content = content_of(outcome, run.journal or self._journal)
        result = LiveResult(tick.live, query, content, tick.timestamp, reads, expires_ns)
        if not runner.database.feed.watch(result, tick.timestamp):
            result.stale_at = Timestamp(tick.timestamp + 1)
        return result
