"""Results of queries that are still good: kept by what was asked, dropped when a commit touches what they read (design, "Live queries")."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from camber.clock import Clock
from camber.database import Read
from camber.database.feed import CommitFeed
from camber.functions.running import RunOutcome
from camber.identity import Caller
from camber.storage import Timestamp

AnswerT = TypeVar("AnswerT")

CLOCK_NS = 5_000_000_000
"""How long a result that depends on the time is given to new callers."""

_UNKNOWN_DEMAND = 512
_REMEMBERED_DEMAND = 4096
"""How many results of a function are kept in any case, and from how many on they count half."""

_ENTRY_BYTES = 400
_READ_BYTES = 200

ResultKey = tuple[str, bytes, bytes]
"""Path, arguments in canonical form, and the caller for results that depend on who asks (empty otherwise)."""


class CachedResult(Generic[AnswerT]):
    """One result. `stale` is set by the thread that commits, and never taken back."""

    __slots__ = ("answer", "demand", "expires_ns", "internal", "key", "reads", "size", "stale")

    def __init__(
        self,
        key: ResultKey,
        answer: AnswerT,
        outcome: RunOutcome,
        reads: Sequence[Read],
        *,
        internal: bool,
        expires_ns: int | None,
        demand: Demand,
    ) -> None:
        self.demand = demand
        self.key, self.answer, self.reads, self.internal = key, answer, reads, internal
        self.stale = False
        self.expires_ns = expires_ns
        self.size = _ENTRY_BYTES + len(outcome.value or b"") + len(key[1]) + _READ_BYTES * len(reads)

    def became_stale(self, timestamp: Timestamp) -> None:  # noqa: ARG002
        """A commit touched what this result read."""
        self.stale = True


class Demand:
    """Whether results of one function are asked for again. Where hardly any is, keeping them all costs a tenth of the work for nothing.

    Then one in eight is kept, and all of them again as soon as those are asked for.
    """

    __slots__ = ("asked_again", "made")

    def __init__(self) -> None:
        self.made = self.asked_again = 0

    def wants_another(self) -> bool:
        """A result was made: is it worth keeping?"""
        self.made += 1
        if self.made >= _REMEMBERED_DEMAND:  # what was long ago counts less
            self.made //= 2
            self.asked_again //= 2
        return self.made < _UNKNOWN_DEMAND or self.asked_again * 16 >= self.made or self.made % 8 == 0


class ResultCache(Generic[AnswerT]):
    """Good results up to a number and a total size; the least recently used go first. Safe for several threads."""

    def __init__(self, feed: CommitFeed, clock: Clock, *, entries: int, size: int) -> None:
        self._feed, self._clock, self._most_entries, self._most_bytes = feed, clock, entries, size
        self._results: OrderedDict[ResultKey, CachedResult[AnswerT]] = OrderedDict()
        self._by_identity: set[tuple[str, bytes]] = set()
        self._demand: dict[str, Demand] = {}
        self._size = 0
        self._version = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._results)

    def find(self, path: str, args: bytes, caller: Caller) -> CachedResult[AnswerT] | None:
        """A result that this caller may have and that is still good."""
        with self._lock:
            found = self._results.get((path, args, b""))
            if found is None:
                if (path, args) not in self._by_identity:
                    return None
                found = self._results.get((path, args, caller_key(caller)))
                if found is None:
                    return None
            if found.stale or self._is_past(found.expires_ns):
                self._drop(found)
                return None
            if found.internal and not caller.is_admin:
                return None
            self._results.move_to_end(found.key)
            found.demand.asked_again += 1
            return found

    def add(
        self,
        asked: tuple[str, bytes],
        caller: Caller,
        outcome: RunOutcome,
        answer: AnswerT,
        reads: Sequence[Read],
        timestamp: Timestamp,
        *,
        internal: bool,
        version: int,
    ) -> bool:
        """Keep a result with the answer it gives, unless a commit since its timestamp touched it, or it is of another version.

        False where it is not worth keeping.
        """
        demand = self._demand_for(asked[0])
        if not demand.wants_another():
            return False
        who = caller_key(caller) if outcome.read_identity else b""
        expires_ns = self._clock.now_ns() + CLOCK_NS if outcome.read_clock else None
        result = CachedResult(
            (*asked, who), answer, outcome, reads, internal=internal, expires_ns=expires_ns, demand=demand
        )
        if result.size > self._most_bytes // 8 or not self._feed.watch(result, timestamp):
            return True
        with self._lock:
            if version == self._version:
                self._put(result)
            else:
                self._feed.forget(result)
        return True

    def _is_past(self, expires_ns: int | None) -> bool:
        # By the clock that functions see. One that was set back ends a result too, rather than keep it until it catches up.
        return expires_ns is not None and not 0 <= expires_ns - self._clock.now_ns() <= CLOCK_NS

    def clear(self, version: int) -> None:
        """Drop everything, when the application or the tables change; from now on keep what this version gives."""
        with self._lock:
            self._version = version
            for result in list(self._results.values()):
                self._drop(result)
            self._by_identity.clear()
            self._demand.clear()

    def _demand_for(self, path: str) -> Demand:
        demand = self._demand.get(path)
        return self._demand.setdefault(path, Demand()) if demand is None else demand

    def _put(self, result: CachedResult[AnswerT]) -> None:
        path, args, who = result.key
        if present := self._results.get(result.key):
            self._drop(present)
        if who:
            # A result that turned out to depend on the caller was never good for others.
            self._by_identity.add((path, args))
            if shared := self._results.get((path, args, b"")):
                self._drop(shared)
        self._results[result.key] = result
        self._size += result.size
        while len(self._results) > self._most_entries or self._size > self._most_bytes:
            self._drop(next(iter(self._results.values())))

    def _drop(self, result: CachedResult[AnswerT]) -> None:
        if self._results.get(result.key) is result:
            del self._results[result.key]
            self._size -= result.size
        if not result.stale:
            self._feed.forget(result)
        if len(self._by_identity) > 4 * self._most_entries:
            self._by_identity = {key[:2] for key in self._results if key[2]}


def caller_key(caller: Caller) -> bytes:
    """What distinguishes callers for functions that look at them."""
    if caller.identity is None:
        return b"operator" if caller.is_admin else b"anonymous"
    return caller.identity.fingerprint + (b"admin" if caller.is_admin else b"")
