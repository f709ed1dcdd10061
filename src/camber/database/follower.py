"""Keeps up with what other servers commit to the same database: their commits come from the log and are taken in like our own.

One thread follows the log. It looks when another server rings, when somebody here must know the newest state, and every 250 ms.
What is committed here is taken in by the writer together with all that came before it, so that the order is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from camber.database.feed import CommitFeed
from camber.database.reads import Touched
from camber.errors import DatabaseUnreachableError, StorageError
from camber.storage import CommitLog, CommitRow, Timestamp

LOOK_SECONDS = 0.25
TROUBLE_SECONDS = 2.0
"""How long looks may fail before the deployment is called unready."""
_PATIENCE_SECONDS = 12.0
_PAUSE_SECONDS = 0.2

Looked = Callable[[Exception | None], None]

_log = logging.getLogger("camber.database")


class Follower:
    """Follows the log of one database. Safe for several threads."""

    def __init__(
        self,
        log: CommitLog,
        feed: CommitFeed,
        *,
        token: bytes,
        learn: Callable[[Touched | None], None],
        lost_history: Callable[[Timestamp], Timestamp],
        on_foreign: Callable[[], None],
    ) -> None:
        """`token` is that of the commit at `feed.marked`.

        `learn` is told what a commit of another server touched before anything of it is marked, None where that is not known; it may
        raise StorageError. `lost_history` is called where the log does not go on from what was known, and returns from when on it
        does; `on_foreign` after commits of others have been marked.
        """
        self._commits, self._feed = log, feed
        self._learn, self._lost_history, self._on_foreign = learn, lost_history, on_foreign
        self._token = token
        self.has_company = True
        """Whether other servers may be there, who are to be told of each commit at once."""
        self._taking = threading.Lock()
        self._waiting: deque[Looked] = deque()
        self._failing_since: float | None = None
        self._unanswered_since: float | None = None
        """When the first look began that has had no answer."""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="camber-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def look(self, looked: Looked) -> None:
        """Call this when everything is marked that was committed anywhere before now; with an error where that can't be known.

        On the follower's thread: it must be quick and must not raise.
        """
        self._waiting.append(looked)
        self._commits.wake()
        if self._closed:
            self._tell(StorageError("The server is shutting down."))

    def look_now(self) -> None:
        """The same for a thread that waits. Raises StorageError."""
        done = threading.Event()
        failure: list[Exception] = []

        def looked(error: Exception | None) -> None:
            if error is not None:
                failure.append(error)
            done.set()

        self.look(looked)
        if not done.wait(_PATIENCE_SECONDS):
            raise DatabaseUnreachableError("PostgreSQL did not answer in time.")
        if failure:
            raise failure[0]

    def take_in(
        self,
        rows: Sequence[CommitRow],
        *,
        since: Timestamp,
        own: CommitRow | None = None,
        touched: Touched | None = None,
    ) -> None:
        """Mark what these commits touched, those that are not known yet. They are the log from `since` on, which was marked then.

        `own` is the last one, which was made here and of which it is known better what it `touched`. Raises StorageError.
        """
        with self._taking:
            foreign = self._take(rows) if self._goes_on(rows, since) else self._start_over(own or rows[-1])
            if own is not None and own.timestamp > self._feed.marked:
                self._token = own.token
                self._feed.publish(own.timestamp, touched or Touched.decode(own.touched))
        if own is not None and self.has_company:
            self._commits.ring()
        if foreign:
            self._on_foreign()

    def trouble(self) -> str | None:
        """Why nothing new can be learnt, if that has been so for a while."""
        since = self._unanswered_since
        if since is None or time.monotonic() - since < TROUBLE_SECONDS:
            return None
        return "PostgreSQL can't be reached"

    def close(self) -> None:
        """Follow no more."""
        self._closed = True
        self._commits.wake()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        self._tell(StorageError("The server is shutting down."))

    def _work(self) -> None:
        while not self._closed:
            try:
                if self._unanswered_since is None:
                    self._unanswered_since = time.monotonic()
                self._look_once()
                self._failing_since = self._unanswered_since = None
                if not self._waiting:
                    self._commits.wait(LOOK_SECONDS)
            except StorageError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001  whatever it is, following must go on
                _log.exception("the commits of other servers could not be taken in")
                self._failed(StorageError(f"the commits of other servers could not be taken in: {error}"))
        self._commits.close()

    def _failed(self, error: StorageError) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            if not self._closed:
                _log.warning("the commits of other servers can't be read for now: %s", error)
        if time.monotonic() - self._failing_since > TROUBLE_SECONDS:
            self._tell(error)
        time.sleep(_PAUSE_SECONDS)

    def _look_once(self) -> None:
        asked = len(self._waiting)
        since = self._feed.marked
        rows = self._commits.rows_from(since)
        with self._taking:
            goes_on = self._goes_on(rows, since)
            foreign = goes_on and self._take(rows)
        if not goes_on:
            # Not while others wait to take something in: this waits for the commit lock, which one of them may have.
            at = self._lost_history(since)
            rows = self._commits.rows_from(at)
            with self._taking:
                foreign = self._start_over(rows[0]) if rows and rows[0].timestamp > self._feed.marked else True
        if foreign:
            self._on_foreign()
        for _ in range(asked):
            self._waiting.popleft()(None)

    def _goes_on(self, rows: Sequence[CommitRow], since: Timestamp) -> bool:
        """Whether nothing is missing between what is marked and these rows, which are the log from `since` on."""
        if not since or self._feed.marked > since:  # somebody has taken in more meanwhile, and seen to it
            return True
        return bool(rows) and rows[0].timestamp == since and rows[0].token == self._token

    def _take(self, rows: Sequence[CommitRow]) -> bool:
        """Mark those that are new; whether there were any."""
        feed, found = self._feed, False
        for row in rows:
            if row.timestamp <= feed.marked:
                continue
            touched = Touched.decode(row.touched)
            self._learn(touched)
            self._token = row.token
            feed.publish(row.timestamp, touched)
            found = True
        return found

    def _start_over(self, row: CommitRow) -> bool:
        """We were away for longer than the log goes back, or the database was put back to an earlier state."""
        _log.warning("the commit log does not go on from what this server knew: all results are dropped")
        self._learn(None)
        self._token = row.token
        self._feed.start_over(row.timestamp)
        return True

    def _tell(self, error: StorageError) -> None:
        for _ in range(len(self._waiting)):
            self._waiting.popleft()(error)
