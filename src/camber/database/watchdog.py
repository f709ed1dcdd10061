"""Time limits for code that runs in threads: first an exception is raised in the thread, then the thread is given up.

A thread can't be ended from outside in Python. One that ignores the exception (it sleeps, or catches everything) is abandoned:
its owner is told, goes on with another thread, and makes sure that what the old one still does has no effect.
"""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from camber.errors import FunctionTimeoutError

T = TypeVar("T")

GRACE_SECONDS = 0.25
"""How long after the exception a thread may take to come back."""

MAX_DATABASE_SECONDS = 15.0
"""How long a function may wait for the database (protocol 3.11)."""

_AGAIN_SECONDS = 0.1
_PERIOD_SECONDS = 0.02
_STALL_SECONDS = 0.1
_IDLE_ROUNDS = 50
_COMPLAINT_SECONDS = 1.0

_log = logging.getLogger("camber.database")


class Interrupted(BaseException):
    """Raised in a thread whose function ran out of time; no `except Exception` catches it."""


class Abandoned(BaseException):
    """Raised in a thread that comes back after it was given up: it ends without doing anything more."""


class DatabaseTime(Protocol):
    """Tells how much of a run was spent waiting for the database, which is not the function's own time."""

    database_seconds: float
    """Waited so far, in calls that have ended."""
    waiting_since: float
    """When the call began that goes on; 0 if none does."""


class Slot:
    """One thread whose functions are limited in time; used by that thread alone, except where said."""

    def __init__(self, watchdog: Watchdog, on_abandon: Callable[[], None]) -> None:
        self._watchdog, self._on_abandon = watchdog, on_abandon
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._run = 0
        self._runs = 0
        self._striking = False
        self._strikes = 0
        self._abandoned = False
        self._seconds, self._started, self._stalled = 0.0, 0.0, 0.0
        self._usage: DatabaseTime | None = None
        self._is_database_slow = False

    def run(self, function: Callable[[], T], seconds: float, usage: DatabaseTime) -> T:
        """Call the function. Raises FunctionTimeoutError if it ran out of time, Abandoned if it came back too late for that."""
        try:
            try:
                self._begin(seconds, usage)
                result = function()
            finally:
                self._end()
        except Interrupted:
            self._end()
            raise self.error() from None
        if self._strikes:  # the function caught the interruption and went on
            raise self.error()
        return result

    def error(self) -> FunctionTimeoutError:
        """The error of the latest run, whose time was over."""
        if self._is_database_slow:
            return FunctionTimeoutError("Your request timed out performing too many system operations.")
        return timed_out(self._seconds)

    def time_is_up(self) -> bool:
        """Whether the latest run was interrupted."""
        return self._strikes > 0

    def _begin(self, seconds: float, usage: DatabaseTime) -> None:
        self._seconds = float("inf") if _debugger_attached() else seconds
        self._usage, self._strikes, self._is_database_slow = usage, 0, False
        self._started, self._stalled = time.perf_counter(), self._watchdog.stalled
        self._runs += 1
        self._run = self._runs
        self._watchdog.wake()

    def _end(self) -> None:
        """After this no interruption of the run can arrive any more. Twice does no harm."""
        self._run = 0
        while self._striking:
            time.sleep(0)
        if self._strikes:
            _raise_in_thread(self._thread_id, None)
        with self._lock:
            if self._abandoned:
                raise Abandoned

    # Called by the watchdog's thread

    def check(self, now: float) -> bool:
        """Interrupt or abandon the run if its time is over; False if nothing runs."""
        run, usage = self._run, self._usage
        if not run or usage is None or self._abandoned:
            return False
        since = usage.waiting_since
        database = usage.database_seconds + (now - since if since else 0.0)
        own_over = now - self._started - database - self._seconds
        database_over = database - self._watchdog.database_seconds if math.isfinite(self._seconds) else -math.inf
        over = max(own_over, database_over) - (self._watchdog.stalled - self._stalled)
        self._is_database_slow = database_over > own_over
        if over > GRACE_SECONDS and self._strikes:
            self._abandon(run)
        elif over > self._strikes * _AGAIN_SECONDS:
            # More than once, because Python drops what is raised in a finalizer or a callback of its garbage collector.
            self._strike(run)
        return True

    def _strike(self, run: int) -> None:
        # The thread waits in _end while this goes on, so the exception can't hit what it does afterwards.
        self._striking = True
        try:
            if self._run == run:
                self._strikes += 1
                _raise_in_thread(self._thread_id, Interrupted)
        finally:
            self._striking = False

    def _abandon(self, run: int) -> None:
        with self._lock:
            if self._run != run:
                return
            self._abandoned = True
        self._on_abandon()


class Watchdog:
    """Looks after the slots of one server from a thread of its own, which sleeps while nothing runs."""

    def __init__(self, *, database_seconds: float = MAX_DATABASE_SECONDS) -> None:
        self.database_seconds = database_seconds
        """How long a function may wait for the database altogether, besides its own time."""
        self.stalled = 0.0
        """Seconds in which the whole process was not let run: no function's time."""
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._asleep = False
        self._closed = False
        self._complained = -_COMPLAINT_SECONDS
        self._patrols: list[Callable[[], bool]] = []
        self._thread = threading.Thread(target=self._watch, name="camber-watchdog", daemon=True)
        self._thread.start()

    def slot(self, on_abandon: Callable[[], None]) -> Slot:
        """A slot for the calling thread; `on_abandon` is called on the watchdog's thread."""
        slot = Slot(self, on_abandon)
        with self._lock:
            self._slots.add(slot)
        return slot

    def on_patrol(self, patrol: Callable[[], bool]) -> None:
        """Call this on each round; it tells whether there is reason for another."""
        self._patrols.append(patrol)

    def wake(self) -> None:
        """Something runs."""
        if self._asleep:
            self._work.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._work.set()
        self._thread.join()

    def _is_busy(self, look: Callable[[], bool]) -> bool:
        """What this says. Whatever goes wrong with it, where no thread can be started for instance: time limits go on."""
        try:
            return look()
        except Exception:  # noqa: BLE001
            if (now := time.monotonic()) > self._complained + _COMPLAINT_SECONDS:
                self._complained = now
                _log.exception("a look at what runs failed")
            return True

    def _watch(self) -> None:
        idle = 0
        while not self._closed:
            with self._lock:
                slots = list(self._slots)
            now = time.perf_counter()
            rounds = [partial(slot.check, now) for slot in slots] + self._patrols
            busy = [self._is_busy(look) for look in rounds]
            del slots, rounds
            idle = 0 if any(busy) else idle + 1
            if idle < _IDLE_ROUNDS:
                self._sleep()
                continue
            self._asleep = True
            self._work.wait(timeout=1.0)
            self._work.clear()
            self._asleep = False
            idle = 0

    def _sleep(self) -> None:
        """For a period; and where it got longer although the process took no CPU time, because it or its machine was stopped, note that."""
        slept, used = time.perf_counter(), time.process_time()
        time.sleep(_PERIOD_SECONDS)
        stalled = time.perf_counter() - slept - _PERIOD_SECONDS - (time.process_time() - used)
        if stalled > _STALL_SECONDS:
            self.stalled += stalled


def timed_out(seconds: float) -> FunctionTimeoutError:
    """The error of a function that ran out of time."""
    return FunctionTimeoutError(f"Function execution timed out (maximum duration: {seconds:g}s)")


def _debugger_attached() -> bool:
    return sys.gettrace() is not None


def _raise_in_thread(thread_id: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), ctypes.py_object(exception) if exception else None
    )
