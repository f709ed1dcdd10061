"""What the signals of the system mean to a server: SIGTERM and SIGINT to stop, SIGHUP to load its code anew."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_TERMINAL: Final = "/dev/tty"

_log = logging.getLogger("camber.server")


class Signals:
    """Takes the signals of the running event loop for as long as the block lasts. Without `reload`, SIGHUP keeps its meaning."""

    def __init__(self, *, stop: Callable[[], None], reload: Callable[[], None] | None) -> None:
        self._stop, self._reload = stop, reload
        self._had_terminal = _has_terminal()
        self._loop = asyncio.get_running_loop()
        self._taken: list[int] = []

    def __enter__(self) -> Self:
        # Windows has no such handlers; there the runner turns Ctrl-C into a KeyboardInterrupt.
        if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
            self._take(signal.SIGINT, self._on_stop)
            self._take(signal.SIGTERM, self._on_stop)
            if self._reload is not None:
                self._take(signal.SIGHUP, self._on_hangup)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._taken:
            self._loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals, act: Callable[[signal.Signals], None]) -> None:
        self._loop.add_signal_handler(number, act, number)
        self._taken.append(number)

    def _on_stop(self, number: signal.Signals) -> None:
        _log.info("stopping", extra={"signal": number.name})
        self._stop()

    def _on_hangup(self, number: signal.Signals) -> None:
        # The system also says so when the terminal is closed in which the server was started.
        if self._had_terminal and not _has_terminal():
            self._on_stop(number)
        elif self._reload is not None:
            _log.info("loading the code anew", extra={"signal": number.name})
            self._reload()


def _has_terminal() -> bool:
    """Whether this process was started in a terminal that is still there."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
