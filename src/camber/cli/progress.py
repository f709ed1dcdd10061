"""How far something is that takes its time: a bar on a terminal, now and then a line elsewhere; nothing for the first second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from camber.cli.printing import note

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE_SECONDS: Final = 1.0
_SECONDS_BETWEEN_LINES: Final = 10.0


class Progress:
    """Told what is being done and how much of how much; `with` takes the bar away in the end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next_line = self._started + PATIENCE_SECONDS
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if (now := time.monotonic()) < self._started + PATIENCE_SECONDS:
            return
        if sys.stderr.isatty():
            self._show(what, done, total)
        elif now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            note(f"{what}: {done:,} of {total:,}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)
