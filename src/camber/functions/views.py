"""What one client watches: queries whose values are all of one moment, and where it stands on its way to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from camber.errors import FunctionError
from camber.functions.live_results import Content, LiveQuery
from camber.identity import Caller
from camber.storage import Timestamp

if TYPE_CHECKING:
    from camber.functions.live import LiveQueries
    from camber.functions.ticks import Tick

MAX_VIEW_BYTES: Final = 64 * 1024 * 1024
"""How large the values of one view may be together."""
_TOO_LARGE: Final = (
    f"The results of the queries that this client watches are larger than {MAX_VIEW_BYTES >> 20} MiB together"
)


class Watched:
    """One query of one view: what it asked for, and what it was told last."""

    __slots__ = ("args", "arguments", "journal", "path", "query", "refused", "tag", "told", "view")

    def __init__(self, view: View, tag: int) -> None:
        self.view, self.tag = view, tag
        self.path, self.args = "", b""
        self.journal: str | None = None
        self.arguments: Mapping[str, Any] = {}
        self.query: LiveQuery | None = None
        self.refused: Content | None = None
        """What it is told in place of a result, where it can't be run."""
        self.told: Content | None = None


class Holder(Protocol):
    """Who looks through a view."""

    def may_move(self) -> bool:
        """Whether a transition can be taken now. Who said no calls `View.advance` when that has changed."""
        ...

    def moved(self, timestamp: Timestamp, changes: Sequence[tuple[int, Content]]) -> None:
        """All values are of this timestamp now; these are other than before. Called without changes where a move was owed."""
        ...

    def failed(self, error: Exception) -> None:
        """The values can't be kept up to date: a fault of the server. The view is of no use any more."""
        ...


class View:
    """All the queries that one client watches. Their values are those of one moment."""

    __slots__ = (
        "_holder",
        "_live",
        "behind",
        "caller",
        "needed",
        "owed",
        "pending",
        "size",
        "tick",
        "timestamp",
        "unsettled",
        "waiting",
        "watched",
    )

    def __init__(self, live: LiveQueries, holder: Holder, caller: Caller) -> None:
        self._live, self._holder, self.caller = live, holder, caller
        self.watched: dict[int, Watched] = {}
        self.unsettled: dict[Watched, None] = {}
        """Those whose result has become stale, or was not told yet."""
        self.tick: Tick | None = None
        self.waiting = 0
        self.needed: list[Watched] = []
        self.pending: list[tuple[Watched, Content]] = []
        self.behind = False
        self.owed: Timestamp | None = None
        self.size = 0
        """Bytes of all values that it holds."""
        self.timestamp = Timestamp(0)
        """Of the moment that it is at, or of a later one that it is not to be behind from now on."""

    def add(self, tag: int, path: str, args: bytes, journal: str | None) -> None:
        """Watch a query; `args` is JSON text, `journal` what was told with its last result (protocol 3.5)."""
        self.leave_tick()
        watched = self.watched[tag] = Watched(self, tag)
        watched.journal = journal
        self._live.begin(watched, path, args)
        self.unsettled[watched] = None

    def remove(self, tag: int) -> None:
        """Watch it no longer."""
        self.leave_tick()
        watched = self.watched.pop(tag)
        self.unsettled.pop(watched, None)
        if watched.told is not None:
            self.size -= watched.told.size
        self._live.release(watched)

    def become(self, caller: Caller) -> None:
        """From now on it is this caller who watches: what depends on who asks is run anew, and nothing else."""
        self.leave_tick()
        self.caller = caller
        for watched in self.watched.values():
            self._live.reconsider(watched)

    def owe(self, timestamp: Timestamp | None = None) -> None:
        """The holder is to be told of the next moment, from this one on, also where nothing changed."""
        self.owed = max(self.owed or Timestamp(0), timestamp or Timestamp(0))

    def advance(self) -> None:
        """Move to a newer moment as soon as it can be."""
        self._live.advance(self)

    def close(self) -> None:
        """Watch nothing any more."""
        self.leave_tick()
        self.behind = False
        for watched in self.watched.values():
            self._live.release(watched)
        self.watched.clear()
        self.unsettled.clear()
        self._live.forget(self)

    # For LiveQueries

    def may_move(self) -> bool:
        """Whether its holder can take a transition."""
        return self._holder.may_move()

    def leave_tick(self) -> None:
        """What it waits for is of another set of queries, or of another caller."""
        if self.tick is not None:
            self.tick, self.waiting, self.behind = None, 0, True
            self.needed, self.pending = [], []

    def join(self, tick: Tick, needed: list[Watched], pending: list[tuple[Watched, Content]]) -> None:
        """Wait for these in a tick; the pending ones are to be told with them."""
        self.tick, self.needed, self.pending, self.waiting = tick, needed, pending, len(needed)

    def move(self, timestamp: Timestamp, changes: Iterable[tuple[Watched, Content]]) -> None:
        """Tell the holder."""
        self.timestamp = timestamp
        told: list[tuple[int, Content]] = []
        for watched, content in changes:
            before, watched.told = watched.told, content
            self.size += content.size - (0 if before is None else before.size)
            if before is None or not before.tells_the_same_as(content):
                told.append((watched.tag, content))
        if self.size > MAX_VIEW_BYTES:
            self.fail(FunctionError(_TOO_LARGE))
            return
        # A tick that was at work when a mutation committed is older than what is owed: then the next one follows.
        if self.owed is not None and self.owed <= timestamp:
            self.owed = None
        elif not told:
            return
        self._holder.moved(timestamp, told)

    def fail(self, error: Exception) -> None:
        """Give up."""
        self.leave_tick()
        self._holder.failed(error)
