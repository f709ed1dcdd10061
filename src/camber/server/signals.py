"""What the signals of the system mean to a server: SIGTERM and SIGINT to stop, SIGHUP to load its code anew."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final, Self

_TERMINAL: Final = "/dev/tty"

_log = logging.getLogger("camber.server")


class Hangups:
    """Takes SIGHUP where nobody can act on it: it would end a server that is about to serve, or that closes its data.

    Make one as early as possible. What comes until `Signals` takes over is acted on then.
    """

    def __init__(self) -> None:
        self.are_noted = False
        self.had_terminal = _has_terminal()
        self.take()

    def take(self) -> None:
        """Note SIGHUP from now on."""
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            # A handler of Python's, not SIG_IGN: programs that functions start would inherit that.
            signal.signal(signal.SIGHUP, self._note)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # a worker is started with it held back

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.are_noted = True


@contextmanager
def held_back_hangups() -> Generator[None]:
    """SIGHUP waits until the block ends. A process that is started in it meets it when it makes its `Hangups`, not while Python begins."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Takes the signals of the running event loop for as long as the block lasts. Without `hangups`, SIGHUP keeps its meaning."""

    def __init__(self, *, stop: Callable[[], None], reload: Callable[[], None], hangups: Hangups | None) -> None:
        self._stop, self._reload, self._hangups = stop, reload, hangups
        self._loop = asyncio.get_running_loop()
        self._taken: list[int] = []

    def __enter__(self) -> Self:
        # Windows has no such handlers; there the runner turns Ctrl-C into a KeyboardInterrupt.
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            self._take(signal.SIGINT, self._on_stop)
            self._take(signal.SIGTERM, self._on_stop)
            if self._hangups is not None:
                self._take(signal.SIGHUP, self._on_hangup)
                if self._hangups.are_noted:
                    self._loop.call_soon(self._on_hangup, signal.SIGHUP)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with held_back_hangups():  # between the two there is a moment without a handler
            for number in self._taken:
                self._loop.remove_signal_handler(number)
            if self._hangups is not None:
                self._hangups.take()

    def _take(self, number: signal.Signals, act: Callable[[signal.Signals], None]) -> None:
        self._loop.add_signal_handler(number, act, number)
        self._taken.append(number)

    def _on_stop(self, number: signal.Signals) -> None:
        _log.info("stopping", extra={"signal": number.name})
        self._stop()

    def _on_hangup(self, number: signal.Signals) -> None:
        # The system also says so when the terminal is closed in which the server was started.
        if self._hangups is not None and self._hangups.had_terminal and not _has_terminal():
            self._on_stop(number)
        else:
            _log.info("loading the code anew", extra={"signal": number.name})
            self._reload()


def _has_terminal() -> bool:
    """Whether this process was started in a terminal that is still there."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
