"""Live queries: results that are kept up to date for those who watch them, each view moving from moment to moment as a whole.

Equal queries share one run and one result (`LiveQuery`). What one client watches is a `View`: all its values are of one timestamp.
When a commit makes results stale, the views that hold them join the next tick: one timestamp, on snapshots of which everything stale
is run. A view moves there once all that it waits for has been run, and is told what is other than before. A slow query delays only
those who watch it.

Everything here happens on the event loop, except what runs queries (on the threads of the pool) and `LiveResult.became_stale` (on
the thread that commits).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from camber.errors import FunctionError, RequestError
from camber.functions.calls import failed
from camber.functions.live_results import Content, LiveKey, LiveQuery, LiveResult, content_of
from camber.functions.outcomes import Outcome
from camber.functions.requests import checked_path, read_arguments, refusal
from camber.functions.results import CLOCK_NS, caller_key
from camber.functions.running import too_large
from camber.functions.ticks import NotRun, Tick
from camber.functions.views import Holder, View, Watched
from camber.identity import Caller
from camber.storage import Timestamp
from camber.values import encode_value, size_of

if TYPE_CHECKING:
    from camber.functions.runner import Runner

_log = logging.getLogger("camber.functions")

OPEN_TICKS: Final = 8
"""Each is kept open by a slow query at most; with more of those, those who wait for quick ones would wait too."""
LANES: Final = 3
"""Snapshots of one tick at most, so that a slow query does not hold up the others of its tick."""
_MOMENT_SECONDS: Final = 0.002
_MOVES_BETWEEN: Final = 4
_SLICE_SECONDS: Final = 0.001
"""How long views are moved before others of the event loop get their turn."""


class LiveQueries:
    """All live queries of a deployment."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._feed = runner, runner.database.feed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queries: dict[LiveKey, LiveQuery] = {}
        self._looks_at_caller: set[str] = set()
        self._views: set[View] = set()
        self._stale: deque[LiveResult] = deque()
        self._finished: deque[Callable[[], None]] = deque()
        self._called = False
        self._wanting: dict[View, None] = {}
        self._ticks: set[Tick] = set()
        self._opening = False
        self._lanes = 1
        self._moves: deque[tuple[Callable[[Any, Any], None], View | None, Tick | None]] = deque()
        self._moving = False

    def __len__(self) -> int:
        return len(self._queries)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Everything happens on this loop from now on."""
        if loop is not self._loop:
            self._loop, self._called = loop, False
            self._moving = False

    def view(self, holder: Holder, caller: Caller) -> View:
        """A new view, of nothing so far."""
        view = View(self, holder, caller)
        self._views.add(view)
        return view

    def shared(self, path: str, args: bytes, caller: Caller) -> Outcome | None:
        """The result that watchers of a query without a journal share, for a caller who asks once. Safe for several threads."""
        query = self._queries.get((path, args, None, b""))
        if query is None or (query.function.internal and not caller.is_admin):
            return None
        if query.function is not self._runner.functions.by_path.get(path):  # there is another application by now
            return None
        result = query.result
        if result is None or result.stale_at is not None or self._is_past(result) or result.content.value is None:
            return None
        content = result.content
        return Outcome(content.value, None, None, list(content.log_lines), result.timestamp)

    # Told from other threads

    def note_stale(self, result: LiveResult) -> None:
        """A commit touched it. `wake` follows when those who wait for the commit have been answered."""
        self._stale.append(result)

    def wake(self) -> None:
        """After a commit: look for what has become stale."""
        if self._stale:
            self.post(self._advance_stale)

    def post(self, step: Callable[[], None]) -> None:
        """Do this on the loop; many steps take one wake-up."""
        self._finished.append(step)
        if not self._called and self._loop is not None:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._run_posted)
            except RuntimeError:  # the loop is closed; nobody watches any more
                self._finished.clear()

    def _run_posted(self) -> None:
        self._called = False
        for _ in range(len(self._finished)):
            step = self._finished.popleft()
            try:
                step()
            except Exception:  # noqa: BLE001  one view's trouble must not keep the others from moving
                _log.exception("a live query could not be brought forward")
        if self._finished and not self._called:
            self.post(self._advance_stale)

    # For views

    def begin(self, watched: Watched, path: str, args: bytes) -> None:
        """Find or make the live query for what is asked."""
        try:
            watched.path = checked_path(path)
            watched.arguments = read_arguments(args)
            watched.args = encode_value(dict(watched.arguments))
        except RequestError as error:
            watched.refused = self._failure(FunctionError(error.message), path[:200])
            return
        self._connect(watched)

    def release(self, watched: Watched) -> None:
        """Nobody looks at this one any more; a query that nobody watches is forgotten."""
        query, watched.query = watched.query, None
        if query is None:
            return
        query.watched.pop(watched, None)
        if not query.watched:
            self._unregister(query)
            if query.result is not None and query.result.stale_at is None:
                self._feed.forget(query.result)

    def reconsider(self, watched: Watched) -> None:
        """Its view belongs to another caller now."""
        query = watched.query
        if query is not None and not query.key[3] and not query.function.internal and query.result is not None:
            return  # whoever asks gets this result
        self._reconnect(watched)

    def reload(self) -> None:
        """There is another application: everything is asked anew. What gives the same as before is not told again."""
        self._looks_at_caller.clear()
        self._queries.clear()
        for view in list(self._views):
            self._later(self._ask_anew, view, None)

    def _ask_anew(self, view: View, _: Tick | None) -> None:
        view.leave_tick()
        for watched in view.watched.values():
            self._reconnect(watched)
        view.advance()

    def forget(self, view: View) -> None:
        """It is closed."""
        self._views.discard(view)
        self._wanting.pop(view, None)

    def close(self) -> None:
        """Bring nothing forward any more."""
        self._loop = None
        for tick in list(self._ticks):
            tick.close()

    def advance(self, view: View) -> None:
        """Move this view to the newest moment: now if all its results hold, else with the next tick."""
        if not view.unsettled and view.owed is None:
            return
        # In this order: a mutation of the holder's that has not begun by now is not in `marked`, and what a commit touched is noted
        # before `marked` tells of it.
        marked = self._feed.marked
        if view.tick is not None or not view.may_move():
            view.behind = True
            return
        view.behind = False
        self._drain()
        changes: list[tuple[Watched, Content]] = []
        for watched in view.unsettled:
            content = watched.refused
            if content is None:
                assert watched.query is not None
                result = watched.query.result
                if result is None or not result.holds_at(marked) or self._asks_anew(watched):
                    # The holder may have seen this moment elsewhere: a tick that is being opened may be too old.
                    view.timestamp = max(view.timestamp, marked)
                    self._want(view)
                    self._open_tick()
                    return
                content = result.content
            if content is not watched.told:
                changes.append((watched, content))
        self._move(view, marked, changes)
        self._open_tick()  # for the other views: what was noted for them here is not found again by who commits

    # Queries and who watches them

    def _connect(self, watched: Watched) -> None:
        caller, functions = watched.view.caller, self._runner.functions.by_path
        error = refusal(functions, watched.path, "query", caller) or self._too_large(watched)
        if error is not None:
            watched.refused = self._failure(error, watched.path)
            return
        watched.refused = None
        who = caller_key(caller) if watched.path in self._looks_at_caller else b""
        key = (watched.path, watched.args, watched.journal, who)
        query = self._queries.get(key)
        if query is None or (query.result is not None and not self._is_for_newcomers(query.result)):
            query = self._queries[key] = LiveQuery(key, functions[watched.path], watched.arguments)
            self._lanes += 1
        query.watched[watched] = None
        watched.query = query

    def _asks_anew(self, watched: Watched) -> bool:
        """Whether it came for a result that has become stale, and perhaps another one, before it was told of it."""
        query = watched.query
        if watched.told is not None or query is None or query.result is None:
            return False
        return query.journal != watched.journal or not self._is_for_newcomers(query.result)

    def _connect_anew(self, watched: Watched) -> LiveQuery | None:
        self.release(watched)
        self._connect(watched)
        return watched.query

    def _reconnect(self, watched: Watched) -> None:
        if not watched.args:  # what was asked for can't be read, whoever asks and whatever is served
            return
        if watched.query is not None and watched.told is not None:
            watched.journal = watched.told.journal or watched.journal
        self.release(watched)
        self._connect(watched)
        watched.view.unsettled[watched] = None

    def _too_large(self, watched: Watched) -> FunctionError | None:
        limit = self._runner.settings.arguments_bytes
        if len(watched.args) * 9 <= limit or (size := size_of(dict(watched.arguments))) <= limit:
            return None
        return too_large(f"Arguments for {watched.path} are", size, limit)

    def _failure(self, error: FunctionError, path: str) -> Content:
        request_id = hashlib.sha256(path.encode()).hexdigest()[:16]
        return content_of(self._runner.outcome(failed(error), 0, request_id, path), None)

    def _unregister(self, query: LiveQuery) -> None:
        if self._queries.get(query.key) is query:
            del self._queries[query.key]

    def _is_for_newcomers(self, result: LiveResult) -> bool:
        # A page that has to be read again ends where it ended for those who hold it: whoever has no journal asks for another one.
        is_old_page = result.stale_at is not None and result.content.journal != result.query.journal
        return not is_old_page and not self._is_past(result)

    def _is_past(self, result: LiveResult) -> bool:
        # As for cached results: a clock that was set back ends it too.
        now = self._runner.database.clock.now_ns()
        return result.expires_ns is not None and not 0 <= result.expires_ns - now <= CLOCK_NS

    # Ticks

    def _advance_stale(self) -> None:
        self._drain()
        self._open_tick()

    def _drain(self) -> None:
        """Note for each view what has become stale."""
        while self._stale:
            result = self._stale.popleft()
            if result.query.result is result:
                self._lanes += 1
                for watched in result.query.watched:
                    view = watched.view
                    view.unsettled[watched] = None
                    if view.tick is None:
                        self._wanting[view] = None
                    else:
                        view.behind = True

    def _want(self, view: View) -> None:
        self._wanting[view] = None

    def _open_tick(self) -> None:
        """Begin the next tick, unless one is just being opened or too many are at work: then it begins when that has changed."""
        if not self._wanting or self._opening or len(self._ticks) >= OPEN_TICKS:
            return
        self._opening = True
        tick = Tick(self, self._runner)
        self._ticks.add(tick)
        tick.open(lanes=min(LANES, max(1, self._lanes)))
        self._lanes = 0

    def opened(self, tick: Tick, error: Exception | None) -> None:
        """The tick has its timestamp: let every view join that wants to."""
        self._opening = False
        wanting, self._wanting = self._wanting, {}
        if error is not None:
            self._ticks.discard(tick)
            for view in wanting:
                view.fail(error)
            return
        self._drain()  # what was touched up to the tick's timestamp is known by now
        views = tick.views = list(wanting)
        while views and not tick.waiting:
            self._later(self._join, views.pop(), tick)
        if views and self._loop is not None:
            # A run has begun. If it ends in a moment, all who wait for it join and move in one step.
            self._loop.call_later(_MOMENT_SECONDS, self._go_on_joining, tick)
        else:
            self._go_on_joining(tick)

    def _go_on_joining(self, tick: Tick) -> None:
        if not tick.is_joining:
            tick.is_joining = True
            self._moves.extend((self._join, view, tick) for view in tick.views)
            tick.views = []
            self._later(self._all_joined, None, tick)

    def _join(self, view: View, tick: Tick) -> None:
        if view.tick is not None or view not in self._views:
            return
        if not view.may_move():
            view.behind = True
            return
        if tick.timestamp < view.timestamp:  # it has moved on meanwhile
            if view.unsettled or view.owed is not None:
                self._want(view)
            return
        needed: list[Watched] = []
        pending: list[tuple[Watched, Content]] = []
        for watched in view.unsettled:
            content = watched.refused
            if content is None:
                query = self._connect_anew(watched) if self._asks_anew(watched) else watched.query
                assert query is not None
                result = query.result
                if result is None or (result.stale_at is not None and result.stale_at <= tick.timestamp):
                    if query.running is not None and query.running is not tick:
                        view.behind = True  # it goes on when that run has ended
                        return
                    needed.append(watched)
                    continue
                if result.timestamp > tick.timestamp:
                    self._want(view)
                    return
                content = result.content
            if content is not watched.told:
                pending.append((watched, content))
        if not needed:
            self._move(view, tick.timestamp, pending)
            return
        view.join(tick, needed, pending)
        tick.need(view, [watched.query for watched in needed if watched.query is not None])

    def _all_joined(self, _: View | None, tick: Tick) -> None:
        tick.is_joined = True
        self._end_when_done(tick)
        self._open_tick()

    def ran(
        self, tick: Tick, query: LiveQuery, caller: Caller, result: LiveResult | Exception, *, by_caller: bool
    ) -> None:
        """A run of a tick has ended."""
        query.running = None
        views = tick.waiting.pop(query, [])
        if isinstance(result, NotRun):
            for view in views:
                if view.tick is tick:
                    view.leave_tick()
        elif isinstance(result, Exception):
            for view in views:
                if view.tick is tick:
                    view.fail(result)
        else:
            self._take(query, result, caller, by_caller=by_caller)
            tick.results[query] = result
            self._go_on_joining(tick)
            if views:
                self._moves.extend((self._one_less, view, tick) for view in views[1:])
                self._later(self._one_less, views[0], tick)
        for watched in query.watched:
            if watched.view.behind and watched.view.tick is None:
                self._want(watched.view)
        self._end_when_done(tick)
        self._open_tick()

    def _take(self, query: LiveQuery, result: LiveResult, caller: Caller, *, by_caller: bool) -> None:
        """The query has a new result; those for whom it is not are given queries of their own."""
        if not query.watched:  # everybody has left meanwhile
            if result.stale_at is None:
                self._feed.forget(result)
            return
        is_callers = by_caller and not query.key[3]
        if is_callers:  # first, because `shared` looks for results on other threads
            self._rename(query, (*query.key[:3], caller_key(caller)))
        before, query.result = query.result, result
        if before is not None and before.content.tells_the_same_as(result.content):
            result.content = before.content
        if is_callers:
            self._belongs_to(query, caller)
        journal = result.content.journal
        if before is not None and journal is not None and journal != query.journal:
            # Its page ends where it ended first. Whoever asks for the page without a journal asks for another one.
            self._rename(query, (query.path, query.args, journal, query.key[3]))
        if result.stale_at is not None:
            self._stale.append(result)
            self._drain()

    def _belongs_to(self, query: LiveQuery, caller: Caller) -> None:
        """A run that others share looked at who asks: its result is this caller's alone."""
        self._looks_at_caller.add(query.path)
        who = caller_key(caller)
        for watched in [each for each in query.watched if caller_key(each.view.caller) != who]:
            watched.view.leave_tick()
            self._reconnect(watched)
            self._want(watched.view)

    def _rename(self, query: LiveQuery, key: LiveKey) -> None:
        # One of an earlier application is not found any more, and shall not be again.
        is_found = self._queries.get(query.key) is query
        self._unregister(query)
        query.key, query.journal = key, key[2]
        if is_found:
            self._queries.setdefault(key, query)

    def _one_less(self, view: View, tick: Tick) -> None:
        """Something that this view waits for in this tick is there."""
        if view.tick is not tick:
            return
        view.waiting -= 1
        if view.waiting:
            return
        needed, changes = view.needed, view.pending
        view.tick, view.needed, view.pending = None, [], []
        if not view.may_move():
            view.behind = True
            return
        for watched in needed:
            assert watched.query is not None
            content = tick.results[watched.query].content
            if content is not watched.told:
                changes.append((watched, content))
        self._move(view, tick.timestamp, changes)

    def _move(self, view: View, timestamp: Timestamp, changes: list[tuple[Watched, Content]]) -> None:
        """Tell a view; it goes on at once where something of it is stale again."""
        view.move(timestamp, changes)
        unsettled = view.unsettled
        still = [watched for watched in unsettled if not _is_settled(watched)]
        if len(still) != len(unsettled):
            unsettled.clear()
            unsettled.update(dict.fromkeys(still))
        view.behind = False
        if view.unsettled or view.owed is not None:
            self._want(view)
            self._open_tick()

    def _end_when_done(self, tick: Tick) -> None:
        if tick.is_joined and not tick.waiting:
            self._ticks.discard(tick)
            tick.close()

    # Taking turns with the rest of the loop

    def _later(self, step: Callable[[Any, Any], None], view: View | None, tick: Tick | None) -> None:
        self._moves.append((step, view, tick))
        if not self._moving:
            self._moving = True
            self._make_moves()

    def _make_moves(self) -> None:
        until = time.perf_counter() + _SLICE_SECONDS
        moves, made = self._moves, 0
        while moves:
            step, view, tick = moves.popleft()
            try:
                step(view, tick)
            except Exception:  # noqa: BLE001  one view's trouble must not keep the others from moving
                _log.exception("a view could not be moved")
            made += 1
            if not made % _MOVES_BETWEEN and time.perf_counter() > until:
                if self._loop is not None:
                    self._loop.call_soon(self._make_moves)
                return
        self._moving = False


def _is_settled(watched: Watched) -> bool:
    """Whether it was told what holds now."""
    if watched.query is None:
        return True
    result = watched.query.result
    return result is not None and result.stale_at is None and result.content is watched.told
