"""The last runs of functions and how they ended, for the operator who watches: in memory, and never with arguments or results."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from camber.clock import Clock
from camber.functions.failures import recorded_text
from camber.functions.running import RunOutcome
from camber.identity import Caller

MOST_RECORDS: Final = 1_000
MOST_BYTES: Final = 4 * 1024 * 1024

RECORD_LINE_BYTES: Final = 256 * 1024
"""Of one run's log lines: a run that logs without end must not push out all the others."""

_ERROR_LETTERS: Final = 16_384
_RECORD_BYTES: Final = 600

Origin = Literal["HttpApi", "SyncWorker", "Action"]
"""Who called, in Convex's words: over HTTP, over the socket, or an action."""


class RunRecord(NamedTuple):
    """How one run ended. `cursor` is when, in ms since the epoch, and no two have the same."""

    cursor: float
    size: int
    kind: str
    path: str
    request_id: str
    origin: Origin
    identity: str
    lines: tuple[str, ...]
    error: str | None
    seconds: float


_Fields = tuple[float, int, str, str, str, Origin, str, tuple[str, ...], str | None, float]
"""A record as it is kept: making a plain tuple is several times as fast."""


class NewerRecords(NamedTuple):
    """Records in order, and the cursor behind them; `missed` where some before them are not kept any more."""

    records: list[RunRecord]
    cursor: float
    missed: bool


class RunRecords:
    """The last records, up to a number and a size. Safe for several threads; adding costs about a microsecond."""

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.now_ns
        self._records: deque[_Fields] = deque()
        self._size = 0
        self._last = 0.0
        self._dropped = 0.0
        self._lock = threading.Lock()
        self._bells: tuple[Callable[[], None], ...] = ()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size(self) -> int:
        """Bytes held, as far as they are counted."""
        return self._size

    def add(
        self,
        kind: str,
        path: str,
        request_id: str,
        caller: Caller,
        origin: Origin,
        run: RunOutcome,
        error: Exception | None,
    ) -> None:
        """A run has ended, with this error. One that did not begin is not noted.

        Nor are those of the engine's own functions: who looks at the data would see little else.
        """
        seconds = run.seconds
        if seconds is None or (path[0] == "_" and path.startswith("_system/")):
            return
        size = _RECORD_BYTES
        lines: tuple[str, ...] = ()
        if run.log_lines:
            lines, line_bytes = _bounded(run.log_lines)
            size += line_bytes
        text = None
        if error is not None:
            text = _presentable(recorded_text(error))
            size += sys.getsizeof(text)
        identity = "user" if caller.identity is not None else "instance_admin" if caller.is_admin else "unknown"
        now = self._now_ns() / 1_000_000
        with self._lock:
            if now <= self._last:
                now = math.nextafter(self._last, math.inf)
            self._last = now
            self._records.append((now, size, kind, path, request_id, origin, identity, lines, text, seconds))
            self._size += size
            while len(self._records) > MOST_RECORDS or self._size > MOST_BYTES:
                oldest = self._records.popleft()
                self._dropped = oldest[0]
                self._size -= oldest[1]
        for bell in self._bells:
            bell()

    def newer(self, cursor: float) -> NewerRecords:
        """The records behind this cursor; 0 is before all of them."""
        with self._lock:
            now = max(self._last, self._now_ns() / 1_000_000)
            if cursor > now:
                cursor = 0.0  # from before a restart, by a clock that was ahead
            found: list[RunRecord] = []
            for fields in reversed(self._records):
                if fields[0] <= cursor:
                    break
                found.append(RunRecord(*fields))
            found.reverse()
            missed = 0.0 < cursor < self._dropped
            if found:
                cursor = found[-1].cursor
            elif cursor == 0.0:  # whoever begins where there is nothing yet gets a moment to wait behind
                cursor = self._last = now
            return NewerRecords(found, cursor, missed)

    def listen(self, bell: Callable[[], None]) -> None:
        """Call this after each record that is added, on whatever thread ran the function; it must be quick and must not raise."""
        with self._lock:
            if bell not in self._bells:
                self._bells = (*self._bells, bell)

    def unlisten(self, bell: Callable[[], None]) -> None:
        """Call it no longer."""
        with self._lock:
            self._bells = tuple(each for each in self._bells if each != bell)


def _bounded(lines: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The lines as they are now, up to a total size, and that size. A run that was given up may still add to its own list."""
    kept = tuple(lines)
    total = 0
    for place, line in enumerate(kept):
        total += sys.getsizeof(line)
        if total > RECORD_LINE_BYTES:
            left_out = f"[ERROR] 'Log overflow: {len(kept) - place} further lines of this run are not kept'"
            return (*kept[:place], left_out), RECORD_LINE_BYTES
    return kept, total


def _presentable(text: str) -> str:
    if len(text) > _ERROR_LETTERS:
        text = text[:_ERROR_LETTERS] + " (truncated due to length)"
    # Half a surrogate pair, as Python has it in texts about odd file names, can't be sent.
    return text if text.isascii() else text.encode(errors="replace").decode()
