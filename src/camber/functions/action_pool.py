"""Threads that run actions, each with an event loop of its own: an action that burns CPU or blocks holds up no other."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from camber.errors import RequestError, StorageError

_IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ActionJob:
    """An action to run, and whom to tell its result or error."""

    start: Callable[[], Coroutine[Any, Any, None]]
    """Runs it and tells how it ended; raises nothing."""
    refuse: Callable[[Exception], None]


class ActionPool:
    """Runs at most so many actions at once; more are refused."""

    def __init__(self, *, threads: int) -> None:
        self._most = threads
        self._waiting: deque[ActionJob] = deque()
        self._lock = threading.Condition()
        self._alive = 0
        self._idle = 0
        self._running = 0
        self._closed = False
        self._loops: set[asyncio.AbstractEventLoop] = set()
        self._workers: set[threading.Thread] = set()

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
                self._alive += 1
                worker = threading.Thread(target=self._work, name="camber-action", daemon=True)
                self._workers.add(worker)
                worker.start()

    def close(self) -> None:
        """Cancel what runs, and end the threads; a thread that blocks is left to end with the process."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            for loop in self._loops:
                loop.call_soon_threadsafe(_cancel_all, loop)
        for worker in list(self._workers):
            worker.join(timeout=2.0)

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            with self._lock:
                self._loops.add(loop)
            try:
                while job := self._next():
                    try:
                        runner.run(job.start())
                    except (asyncio.CancelledError, RuntimeError) as error:
                        job.refuse(StorageError(f"The action was cut short: {type(error).__name__}"))
                    with self._lock:
                        self._running -= 1
            finally:
                with self._lock:
                    self._loops.discard(loop)
                    self._workers.discard(threading.current_thread())
                # A cancellation on its way from `close` shall meet this, not what the runner does at its end.
                with suppress(asyncio.CancelledError):
                    runner.run(asyncio.sleep(0))

    def _next(self) -> ActionJob | None:
        with self._lock:
            self._idle += 1
            self._lock.wait_for(lambda: bool(self._waiting) or self._closed, timeout=_IDLE_SECONDS)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._alive -= 1
            return None


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
