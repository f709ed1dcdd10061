"""Threads that run actions, each with an event loop of its own: an action that burns CPU or blocks holds up no other."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from camber.database import Abandoned, Usage, Watchdog, timed_out
from camber.errors import FunctionError, FunctionTimeoutError, RequestError, StorageError

_log = logging.getLogger("camber.functions")

_IDLE_SECONDS = 30.0

_LATE_SECONDS = 0.5
"""How long after its time an action is interrupted in whatever it does: one that waits has been cancelled by then."""

_LEFT_BEHIND_SECONDS = 1.0
"""How long tasks that an action left behind may take to end when they are cancelled."""

_CLOSING_SECONDS = 2.0
"""How long all actions together may take to end when the pool is closed."""


class ActionJob(Protocol):
    """An action to run."""

    seconds: float
    """How long it may run; it sees to that itself as long as it lets its event loop run."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Run it, and keep the outcome."""
        ...

    def finish(self, error: Exception | None) -> None:
        """It is over, with its outcome or with this error of the engine."""
        ...


class ActionPool:
    """Runs at most so many actions at once; more are refused."""

    def __init__(
        self,
        watchdog: Watchdog,
        *,
        threads: int,
        finished: Callable[[], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        self._watchdog, self._finished, self._on_abandoned = watchdog, finished, on_abandoned
        self._most = threads
        self._waiting: deque[ActionJob] = deque()
        self._lock = threading.Condition()
        self._idle = 0
        self._running = 0
        self._closed = False
        self._workers: set[_Worker] = set()

    def submit(self, job: ActionJob) -> None:
        """Start it. Raises RequestError (503) when as many run as may."""
        with self._lock:
            if self._closed:
                raise StorageError("The server is shutting down.")
            if self._running >= self._most:
                raise RequestError(
                    503,
                    "TooManyConcurrentActions",
                    f"{self._most} actions run already. Try again later.",
                    headers={"Retry-After": "1"},
                )
            self._running += 1
            self._waiting.append(job)
            if self._idle >= len(self._waiting):
                self._lock.notify()
            else:
                worker = _Worker(self)
                self._workers.add(worker)
                worker.thread.start()

    def close(self) -> None:
        """Cancel what runs, and end the threads; a thread that blocks is left to end with the process."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            waiting, workers = list(self._waiting), list(self._workers)
            self._waiting.clear()
            for worker in workers:
                worker.cancel()
        for job in waiting:
            self.ended(job, asyncio.CancelledError())
        deadline = time.monotonic() + _CLOSING_SECONDS
        for worker in workers:
            worker.thread.join(timeout=max(0.0, deadline - time.monotonic()))

    # For the workers

    def slot_runner(self, worker: _Worker) -> Callable[[Callable[[], None], float], None]:
        """What calls a function on this thread, for so many seconds at the most."""
        slot = self._watchdog.slot(lambda: self._abandoned(worker))
        usage = Usage()  # an action has no transaction: all of its time is its own
        return lambda function, seconds: slot.run(function, seconds, usage)

    def next_job(self) -> ActionJob | None:
        """The next action to run; None when there was none for a while."""
        with self._lock:
            self._idle += 1
            self._lock.wait_for(lambda: bool(self._waiting) or self._closed, timeout=_IDLE_SECONDS)
            self._idle -= 1
            return self._waiting.popleft() if self._waiting else None

    def ended(self, job: ActionJob, raised: BaseException | None) -> None:
        """The action is over; `raised` is what got through it."""
        with self._lock:
            self._running -= 1
        try:
            job.finish(self._error_of(job, raised))
        except Exception as failure:  # noqa: BLE001
            _log.exception("whoever asked for an action could not be told its result")
            with suppress(Exception):
                job.finish(StorageError(f"The answer was lost: {failure}"))
        self._finished()

    def _error_of(self, job: ActionJob, raised: BaseException | None) -> Exception | None:
        if isinstance(raised, asyncio.CancelledError) and self._closed:
            return StorageError("The server is shutting down.")
        if isinstance(raised, FunctionTimeoutError):
            return timed_out(job.seconds)
        return None if raised is None else FunctionError(f"The action raised {type(raised).__name__}")

    def gone(self, worker: _Worker) -> None:
        """This thread ends."""
        with self._lock:
            self._workers.discard(worker)

    def _abandoned(self, worker: _Worker) -> None:
        """On the watchdog's thread: the action's thread does not come back."""
        self.gone(worker)
        self._on_abandoned()  # first: whoever is told that it timed out finds a server that knows of it
        if worker.job is not None:
            self.ended(worker.job, timed_out(worker.job.seconds))


class _Worker:
    """One thread and its event loop."""

    def __init__(self, pool: ActionPool) -> None:
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self.job: ActionJob | None = None
        self.thread = threading.Thread(target=self._work, name="camber-action", daemon=True)

    def cancel(self) -> None:
        """From another thread, while the pool is locked: cancel what runs here."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_cancel_all, self._loop)

    def _work(self) -> None:
        supervised = self._pool.slot_runner(self)
        runner = asyncio.Runner()
        self._loop = runner.get_loop()
        try:
            while job := self._pool.next_job():
                self.job = job
                error: BaseException | None = None
                try:
                    supervised(lambda job=job: runner.run(job.run()), job.seconds + _LATE_SECONDS)
                except Abandoned:
                    raise
                except BaseException as raised:  # noqa: BLE001  nothing may end the thread before it has told
                    error = raised
                self.job = None
                self._pool.ended(job, error)
                _end_tasks(runner)
        except Abandoned:
            _end_tasks(runner)
        finally:
            self._end(runner)

    def _end(self, runner: asyncio.Runner) -> None:
        self._pool.gone(self)
        # A cancellation on its way from `close` shall meet this, not what the runner does at its end.
        with suppress(asyncio.CancelledError):
            runner.run(asyncio.sleep(0))
        loop, self._loop = runner.get_loop(), None
        if asyncio.all_tasks(loop):
            loop.close()  # the runner would wait for tasks that do not end
        else:
            runner.close()


def _end_tasks(runner: asyncio.Runner) -> None:
    """Cancel what an action left running behind it."""
    if left := asyncio.all_tasks(runner.get_loop()):
        with suppress(asyncio.CancelledError):
            runner.run(_cancelled(left))


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_LEFT_BEHIND_SECONDS)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
