"""The one writer of a server: runs waiting mutations one after another on one snapshot and commits them as a group.

Where other servers write too, their commits since the snapshot are looked through under the commit lock. A mutation that read what
one of them touched has lost and is left out, and so is one that read what an earlier loser wrote; they run again in a group that has
the lock from the start, in which nobody can lose (design, "Committing").

Nobody is answered before the group's commit is on disk and the results it touches are marked stale. A mutation that runs out of
time costs its group a second run, no more: if its thread doesn't come back, another thread takes over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol

from camber.clock import Clock, Entropy
from camber.database.catalog import Catalog, touches_catalog
from camber.database.feed import CommitFeed
from camber.database.follower import Follower
from camber.database.foresight import Asked, Foresight
from camber.database.limits import Limits
from camber.database.overlay import Overlay
from camber.database.reads import Read, Touched
from camber.database.transaction import Attempt, CreationTimes, Kept, TableMissing, Transaction
from camber.database.watchdog import Abandoned, Slot, Watchdog
from camber.errors import CommitUnknownError, DatabaseUsageError, FunctionTimeoutError, StorageError, UniqueIndexError
from camber.storage import CommitConflict, CommitRow, Storage, Timestamp, UniqueKeyTaken, WriteGroup

MAX_MEMBERS = 128
MAX_GROUP_SECONDS = 0.005
FORESEEN_MEMBERS = 32
"""For so many at a time is looked up what they will look up."""
COMMITS_KEPT_SECONDS = 60.0
CONTENDED_GROUPS = 8
MAX_LOSSES = 3
"""A mutation loses once at most; more can only come from rows that were changed behind our back."""

_log = logging.getLogger("camber.committer")


class Mutation(Protocol):
    """Something that reads and writes in one transaction. It may be run more than once; only the last run counts."""

    seconds: float
    """How long it may run."""

    def run(self, transaction: Transaction) -> None:
        """Do it, and keep the outcome until it is settled. An error that is raised rolls the writes back and settles it."""
        ...

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:
        """It is over: committed at this timestamp (with the run's own error, if it raised one), or refused with `timestamp` None.

        Called on the writer's thread, or the watchdog's; it must be quick and must not raise.
        """
        ...


class _Member:
    """A mutation in a group, with how its run went."""

    __slots__ = (
        "asked",
        "attempts",
        "error",
        "is_suspect",
        "losses",
        "marks",
        "mutation",
        "reads",
        "timestamp",
        "wrote",
    )

    def __init__(self, mutation: Mutation, asked: Asked | None = None) -> None:
        self.mutation, self.asked = mutation, asked
        self.losses = 0
        self.is_suspect = False
        """Whether it is to run alone, as it may be the one that keeps its group from being committed."""
        self.reads: Sequence[Read] = ()
        self.marks: tuple[int, int] = (0, 0)
        """Between which marks of the overlay its writes are."""
        self.error: Exception | None = None
        self.wrote = False
        self.timestamp = Timestamp(0)
        self.attempts: list[Attempt] = []


class Committer:
    """Takes mutations from any thread; see the module for what it does with them."""

    def __init__(
        self,
        storage: Storage,
        feed: CommitFeed,
        catalog: Callable[[], Catalog],
        create_table: Callable[[str], None],
        *,
        clock: Clock,
        entropy: Entropy,
        limits: Limits,
        watchdog: Watchdog,
        last: Timestamp,
        on_settled: Callable[[], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        self.storage, self.feed, self.catalog, self.create_table = storage, feed, catalog, create_table
        self.clock, self.entropy, self.limits, self.watchdog = clock, entropy, limits, watchdog
        self.on_settled, self.on_abandoned = on_settled, on_abandoned
        self.last = last
        self.creation_times = CreationTimes(last / 1e6)
        self.waiting: deque[_Member] = deque()
        self.idle = False
        self.wakes: SimpleQueue[None] = SimpleQueue()
        """Wakes the writer where it is idle. One too many does no harm: it looks, and finds nothing."""
        self.closed = False
        self.broken: StorageError | None = None
        self.follower: Follower | None = None
        """Follows the commits of other servers, where there are any."""
        self.contended = 0
        """How many groups still begin with the lock, because others were in the way a moment ago."""
        self.foresight = Foresight() if storage.is_far else None
        self._seen: deque[tuple[float, Timestamp]] = deque()
        """What was marked when, by a clock that is never set, for as long as the log of commits is kept."""
        self._writer = _Writer(self)

    def submit(self, mutation: Mutation, asked: Asked | None = None) -> None:
        """Have it run; it is settled in every case. What it will look up may be foretold from what is `asked`."""
        self.waiting.append(_Member(mutation, asked))
        if self.idle:
            self.idle = False
            self.wakes.put(None)
        if self.closed:
            self._refuse_waiting(StorageError("The server is shutting down."))

    def run_alone(self, step: Callable[[], None]) -> None:
        """Run this on the writer's thread between two groups, and return when it is done; raises what it raises."""
        alone = _Alone(step)
        self.submit(alone)
        alone.done.wait()
        if alone.error is not None:
            raise alone.error

    def close(self) -> None:
        """Run what waits, then stop."""
        self.closed = True
        self.wakes.put(None)
        # The watchdog may put another in its place meanwhile; where it can't, nobody waits for the one that is stuck.
        while self._writer.thread.is_alive() and not (self._writer.is_abandoned and self.broken):
            self._writer.thread.join(timeout=0.1)
        self._refuse_waiting(StorageError("The server is shutting down."))

    def next_timestamp(self) -> Timestamp:
        """Above every timestamp and creation time given so far, and not below the clock."""
        return Timestamp(max(self.clock.now_ns(), self.last + 1, self.creation_times.end_ns()))

    def replace_writer(self, abandoned: _Writer) -> None:
        """Go on with a new thread; the abandoned one has no effect any more."""
        self.on_abandoned()  # first: whoever is told that it timed out finds a server that knows of it
        stuck = abandoned.running
        if stuck is not None:
            others = [member for member in abandoned.members if member is not stuck]
            self.again(others, tuple(stuck.attempts))
            _settle(stuck.mutation, None, abandoned.error())
        try:
            self._writer = _Writer(self)
        except RuntimeError as error:  # the system gives no more threads: a process without a writer is to be replaced
            self.broken = StorageError(f"No thread can be started that writes: {error}")
            self._refuse_waiting(self.broken)
        self.on_settled()

    def again(self, members: Sequence[_Member], attempts: Sequence[Attempt]) -> None:
        """Have these run once more, before the others, after counting attempts that must not be lost."""
        self.waiting.extendleft(reversed(members))
        if attempts:
            self.waiting.appendleft(_Member(_Recount(attempts)))

    def take_in(
        self,
        news: Sequence[CommitRow],
        since: Timestamp,
        own: CommitRow | None = None,
        touched: Touched | None = None,
    ) -> None:
        """Mark what was committed: by others, the log from `since` on, which was marked then; and last by ourselves."""
        if self.follower is not None:
            rows = [row for row in news if row.timestamp >= since]
            self.follower.take_in(rows, since=since, own=own, touched=touched)
        elif own is not None:
            self.feed.publish(own.timestamp, touched or Touched.decode(own.touched))

    def refuse_all(self, error: StorageError) -> None:
        """None of those that wait can be run."""
        self.note_failure(error)
        self._refuse_waiting(error)

    def forget_old_commits(self) -> None:
        """Now and then drop the part of the commit log that nobody needs.

        By how long ago it was seen here: timestamps tell nothing of that where a clock has been ahead.
        """
        now = time.monotonic()
        if self._seen and now - self._seen[-1][0] < COMMITS_KEPT_SECONDS / 6:
            return
        self._seen.append((now, self.feed.marked))
        before = Timestamp(0)
        while now - self._seen[0][0] >= COMMITS_KEPT_SECONDS:
            before = self._seen.popleft()[1]
        if not before:
            return
        try:
            self.storage.forget_commits(before)
        except StorageError as error:
            self.note_failure(error)
            self.on_settled()  # no call is settled by this, but a commit in doubt must be noticed
            _log.warning("old rows of the commit log could not be dropped", exc_info=error)

    def note_failure(self, error: Exception) -> None:
        """After a COMMIT in doubt nothing more is written, where the storage itself is in doubt by it."""
        if isinstance(error, CommitUnknownError) and self.storage.ends_in_doubt:
            self.broken = error

    def _refuse_waiting(self, error: StorageError) -> None:
        refused = False
        while self.waiting:
            _settle(self.waiting.popleft().mutation, None, error)
            refused = True
        if refused:
            self.on_settled()


class _Alone:
    """A step that is no mutation: it runs between two groups."""

    seconds = float("inf")

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self.error: Exception | None = None
        self.done = threading.Event()

    def run_step(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001
            self.error = error
        self.done.set()

    def run(self, transaction: Transaction) -> None:  # noqa: ARG002
        raise AssertionError("a step that runs alone has no transaction")

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:  # noqa: ARG002
        self.error = error
        self.done.set()


class _Recount:
    """Counts the attempts of a mutation whose own run can't do it."""

    seconds = 1.0

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._attempts = attempts

    def run(self, transaction: Transaction) -> None:
        for attempt in self._attempts:
            attempt.count(transaction)

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:  # noqa: ARG002
        if error is not None:
            _log.warning("attempts under a rate limit could not be counted", exc_info=error)


class _Writer:
    """One thread that runs groups, until it is abandoned."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self.members: list[_Member] = []
        self.running: _Member | None = None
        """The member that runs, or ran last: of a thread that was given up still the one, also when it has come back meanwhile."""
        self._group: WriteGroup | None = None
        self._catalog = committer.catalog()
        self.is_abandoned = False
        self._on_disk = self._is_locked = self._have_lost = False
        self._handler_seconds = 0.0
        self._transaction: Transaction | None = None
        self._slot: Slot | None = None
        self.thread = threading.Thread(target=self._work, name="camber-writer", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        committer = self._committer
        self._slot = committer.watchdog.slot(self._abandoned)
        try:
            while self._wait():
                try:
                    self._run_group()
                except Exception as error:  # noqa: BLE001  whatever it is, this thread must go on
                    _log.exception("a group of mutations failed in a way that was not foreseen")
                    committer.refuse_all(StorageError(f"The commit failed: {error}"))
        except Abandoned:
            return

    def _wait(self) -> bool:
        """True when a mutation waits, False when the committer is closed and none does."""
        committer = self._committer
        while not committer.waiting:
            if committer.closed:
                return False
            committer.idle = True
            # Looked at once more behind the flag: whoever puts something there looks at the flag afterwards.
            if not committer.waiting and not committer.closed:
                committer.wakes.get()
            committer.idle = False
        return True

    def error(self) -> FunctionTimeoutError:
        """The error of the mutation that this thread does not come back from."""
        assert self._slot is not None
        return self._slot.error()

    def _abandoned(self) -> None:
        """Called by the watchdog: this thread does not come back from the mutation it runs."""
        if self._transaction is not None:
            self._transaction.refuse(
                FunctionTimeoutError("This function ran out of time; nothing it does has any effect.")
            )
        self.is_abandoned = True
        if self._group is not None:
            self._group.close()  # the next writer needs the one that can be open
        self._committer.replace_writer(self)

    def _run_group(self) -> None:
        committer = self._committer
        self.members, self._on_disk, self._have_lost = [], False, False
        if isinstance(alone := committer.waiting[0].mutation, _Alone):
            committer.waiting.popleft()
            alone.run_step()
            if alone.error is not None:
                committer.note_failure(alone.error)
                committer.on_settled()
            return
        is_locked = committer.contended > 0 or committer.waiting[0].losses > 0
        marked = committer.feed.marked
        try:
            group = self._group = committer.storage.write_group(locked=is_locked)
        except Exception as error:  # noqa: BLE001  whatever it is, this thread must go on
            self._failed(error)
            return
        self._is_locked = is_locked
        missing: tuple[_Member, str] | None = None
        try:
            overlay = Overlay()
            if committer.follower is not None and group.timestamp < marked:
                # The database was put back to an earlier state. Without the lock, which is needed to find out where the log goes on.
                group.close()
                committer.feed.hurry()
                return
            if committer.follower is not None and group.timestamp != marked:
                # Another server may have made tables that the catalog must know.
                if is_locked:
                    committer.take_in(group.lock(Timestamp(marked - 1)), marked)
                else:
                    committer.feed.hurry()
            missing = self._run_members(group, overlay)
            if missing is None or self.members:
                self._commit(group, overlay)
        except _GroupSpoiled:
            missing = None
        except Exception as error:  # noqa: BLE001
            missing = None
            self._failed(error)
        finally:
            group.close()
        if self._is_locked and committer.contended:
            committer.contended -= 1
        # Now, when little is left to do: whoever is woken by this needs what this thread holds, the interpreter.
        committer.on_settled()
        if missing is not None:
            self._create_table(*missing)
        committer.forget_old_commits()

    def _failed(self, error: Exception) -> None:
        """The group came to an end that was not foreseen."""
        if not isinstance(error, StorageError):
            _log.exception("a group of mutations failed")
        if self._on_disk:
            self._settle_all(self.members, CommitUnknownError(f"After the commit something failed: {error}"))
            return
        refusal = error if isinstance(error, StorageError) else StorageError(f"The commit failed: {error}")
        if self.members:
            self._settle_all(self.members, refusal)
        elif not self._have_lost:  # those wait for the next group, which fails by itself where none can be committed
            self._committer.refuse_all(refusal)

    def _run_members(self, group: WriteGroup, overlay: Overlay) -> tuple[_Member, str] | None:
        """Run waiting mutations until the group is full, or until one needs a table: then it and the table's name, and it still waits."""
        committer = self._committer
        catalog = committer.catalog()
        if catalog is not self._catalog and committer.foresight is not None:
            committer.foresight = Foresight()  # what is known is about indexes that may be gone
        self._catalog = catalog
        kept = Kept()
        unforeseen = 0
        self._handler_seconds = 0.0
        while committer.waiting and len(self.members) < MAX_MEMBERS:
            coming = committer.waiting[0]
            if self.members and (
                self._handler_seconds > MAX_GROUP_SECONDS
                or isinstance(coming.mutation, _Alone)
                or coming.is_suspect
                or self.members[0].is_suspect
            ):
                break
            if unforeseen == 0:
                self._foresee(group, kept)
                unforeseen = FORESEEN_MEMBERS
            unforeseen -= 1
            member = committer.waiting.popleft()
            try:
                self._run_member(member, group, overlay, catalog, kept)
            except TableMissing as missing:
                committer.waiting.appendleft(member)
                return member, missing.name
            self.members.append(member)
        return None

    def _foresee(self, group: WriteGroup, kept: Kept) -> None:
        """Look up what the next members will look up, in one step instead of one after another."""
        foresight, waiting = self._committer.foresight, self._committer.waiting
        if foresight is None or len(waiting) < 2 or waiting[0].is_suspect:
            return
        coming = [waiting[place].asked for place in range(min(len(waiting), FORESEEN_MEMBERS))]
        with suppress(StorageError):  # the members find it out for themselves
            kept.keep(foresight.look_up(group, [asked for asked in coming if asked is not None], kept.rows))

    def _run_member(self, member: _Member, group: WriteGroup, overlay: Overlay, catalog: Catalog, kept: Kept) -> None:
        committer = self._committer
        assert self._slot is not None
        transaction = Transaction(
            group,
            catalog,
            limits=committer.limits,
            now_ms=committer.clock.now_ns() / 1e6,
            overlay=overlay,
            creation_times=committer.creation_times,
            entropy=committer.entropy,
            kept=kept,
        )
        member.error, member.attempts, kept.missed = None, transaction.attempts, []
        mark = transaction.mark()
        self.running, self._transaction = member, transaction
        started = time.perf_counter()
        try:
            self._slot.run(lambda: member.mutation.run(transaction), member.mutation.seconds, transaction.usage)
        except Exception as error:  # noqa: BLE001
            if self._slot.time_is_up():
                self._spoiled(member, error)
            member.error = error
        self._handler_seconds += time.perf_counter() - started - transaction.usage.database_seconds
        if transaction.missing_table is not None:  # also where the function caught the error and went on
            overlay.rollback(mark)
            raise TableMissing(transaction.missing_table)
        if member.error is not None:
            transaction.rollback(mark)
        if kept.missed and member.asked is not None and committer.foresight is not None:
            committer.foresight.learn(member.asked, kept.missed)
        transaction.refuse(DatabaseUsageError("This function has ended; its ctx can't be used any more."))
        member.wrote = overlay.wrote_since(mark)
        member.reads, member.marks = transaction.reads, (mark, overlay.mark())

    def _spoiled(self, member: _Member, error: Exception) -> None:
        """The interruption may have struck anywhere, so the group's overlay can't be trusted: the others run again."""
        self._committer.again(self.members, member.attempts)
        self.members = []
        _settle(member.mutation, None, error)
        self._committer.on_settled()
        raise _GroupSpoiled

    def _commit(self, group: WriteGroup, overlay: Overlay) -> None:
        # The one that the members ran with. If others have changed it meanwhile, nobody has won.
        committer, catalog = self._committer, self._catalog
        if group.failure is not None:
            raise group.failure
        base, news, since = group.timestamp, list[CommitRow](), Timestamp(0)
        if committer.follower is not None:
            try:
                news, since = self._news(group, overlay)
            except CommitConflict as conflict:
                self._run_again(self.members, conflict)
                return
            overlay = self._leave_out_losers(group, overlay, news, since, catalog)
            if news:
                base = max(base, news[-1].timestamp)
                committer.last = max(committer.last, base)
        writes = overlay.row_writes()
        if not writes:
            committer.take_in(news, since)
            for member in self.members:
                _settle(member.mutation, base, member.error)
            return
        timestamp = self._number_members(base, committer.next_timestamp())
        touched = overlay.touched(catalog.index_numbers)
        record = CommitRow(timestamp, touched.brief().encode(), committer.entropy.random_bytes(16))
        try:
            group.commit(writes, record)
        except CommitConflict as conflict:
            self._run_again(self.members, conflict)
            return
        self._on_disk = True
        committer.last = max(committer.last, timestamp)
        try:
            committer.take_in(news, since, record, touched)
        except StorageError:
            # It is committed all the same. What could not be learnt of the others is read again with all that follows.
            committer.feed.wait_until_marked(timestamp)
        for member in self.members:
            _settle(member.mutation, member.timestamp, member.error)

    def _news(self, group: WriteGroup, overlay: Overlay) -> tuple[list[CommitRow], Timestamp]:
        """The log from the snapshot on, or from what is marked if that is older, and from when on: 0 where nothing can be new.

        From here on, if anything is to be written, nobody else commits.
        """
        marked = self._committer.feed.marked
        if self._is_locked and group.timestamp == marked:
            return [], Timestamp(0)
        since = min(marked, group.timestamp)
        if self._is_locked or overlay.mark():
            return group.lock(Timestamp(since - 1)), since
        return self._committer.storage.commits_after(Timestamp(since - 1)), since

    def _leave_out_losers(
        self, group: WriteGroup, overlay: Overlay, news: Sequence[CommitRow], since: Timestamp, catalog: Catalog
    ) -> Overlay:
        """Have those run again that read what is other by now; returns what the others wrote."""
        foreign = [Touched.decode(row.touched) for row in news if row.timestamp > group.timestamp]
        # Where the row to begin with is gone we were away for so long that others are gone too: nobody knows what they touched.
        has_gap = since > 0 and (not news or news[0].timestamp != since)
        if not foreign and not has_gap:
            return overlay
        winners: list[_Member] = []
        losers: list[_Member] = []
        in_the_way = foreign
        all_lose = has_gap or any(map(touches_catalog, foreign))
        for member in self.members:
            if not all_lose and not any(touched.meets(member.reads) for touched in in_the_way):
                winners.append(member)
                continue
            losers.append(member)
            if member.wrote:
                in_the_way.append(overlay.touched_between(member.marks, catalog.index_numbers))
        if not losers:
            return overlay
        self._run_again(losers, None)
        self.members = winners
        return overlay.only(member.marks for member in winners)

    def _run_again(self, losers: Sequence[_Member], conflict: CommitConflict | None) -> None:
        """They lost to another server, and can't the next time.

        Where the database itself finds a conflict again, each of them runs alone, so that nobody is refused for what another one does.
        """
        committer = self._committer
        committer.contended = CONTENDED_GROUPS
        self._have_lost = True
        if isinstance(conflict, UniqueKeyTaken) and self._is_locked and len(losers) == 1:
            committer.again((), losers[0].attempts)
            _settle(losers[0].mutation, None, self._unique_index_error(conflict))
            return
        for member in losers:
            member.losses += 1
            member.is_suspect = conflict is not None and member.losses > 1
        again = [member for member in losers if member.losses <= MAX_LOSSES]
        committer.again(again, ())
        if len(again) < len(losers):  # nobody was in the way: the rows themselves are not as they should be
            self._settle_all(
                [member for member in losers if member.losses > MAX_LOSSES],
                StorageError(f"The commit failed: {conflict}"),
            )

    def _unique_index_error(self, conflict: UniqueKeyTaken) -> Exception:
        """Of a key that is taken and could not be looked for, as the index by it is still being made."""
        for table in self._catalog.by_name.values():
            for index in table.unique_indexes if table.number == conflict.table else ():
                if index.number == conflict.index:
                    return UniqueIndexError(table=table.name, index=index.name)
        return StorageError(f"The commit failed: {conflict}")

    def _number_members(self, base: Timestamp, first: Timestamp) -> Timestamp:
        """Give members that wrote consecutive timestamps, others that of the state they saw; returns the group's."""
        latest = base
        for member in self.members:
            if member.wrote:
                latest = Timestamp(max(latest + 1, first))
            member.timestamp = latest
        return latest

    def _settle_all(self, members: Sequence[_Member], error: StorageError) -> None:
        self._committer.note_failure(error)
        for member in members:
            _settle(member.mutation, None, error)
        self._committer.on_settled()

    def _create_table(self, member: _Member, name: str) -> None:
        try:
            self._committer.create_table(name)
        except Exception as error:  # noqa: BLE001
            self._committer.note_failure(error)
            with suppress(ValueError):  # it may have been refused with all that wait
                self._committer.waiting.remove(member)
                _settle(member.mutation, None, error)
            self._committer.on_settled()


def _settle(mutation: Mutation, timestamp: Timestamp | None, error: Exception | None) -> None:
    """Settle one. If that fails, the others must be told all the same, and nothing that is on disk may be called failed."""
    try:
        mutation.settle(timestamp, error)
    except Exception:  # noqa: BLE001
        _log.exception("whoever asked for a mutation could not be told how it ended")


class _GroupSpoiled(Exception):
    """The group was given up after one of its members ran out of time."""
