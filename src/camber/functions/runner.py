"""Where calls go: queries to their cache or their threads, mutations to the writer, actions to their loops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from camber.clock import Entropy
from camber.database import Database, RequestKey, Transaction, Usage
from camber.database.held_snapshots import MAX_HELD, HeldSnapshots
from camber.errors import RequestError
from camber.functions.action_pool import ActionPool
from camber.functions.application import canonical_path
from camber.functions.calls import ActionCall, Call, Function, MutationCall, QueryCall, StepCall
from camber.functions.contexts import MutationCtx
from camber.functions.failures import checked_error, client_data, client_message, log_failure
from camber.functions.live import LiveQueries
from camber.functions.outcomes import Done, Outcome
from camber.functions.query_pool import QueryJob, QueryPool
from camber.functions.results import ResultCache
from camber.functions.run_records import Origin, RunRecords
from camber.functions.running import FunctionRun, RunOutcome
from camber.identity import Caller
from camber.settings import Settings
from camber.storage import Timestamp

T = TypeVar("T")


class FunctionsByPath:
    """Functions by their path in any spelling."""

    def __init__(self, by_path: Mapping[str, Function]) -> None:
        self.by_path = by_path

    def find(self, path: str) -> Function | None:
        """The function at this path, or None."""
        return self.by_path.get(path) or self.by_path.get(canonical_path(path))


def built_in_variables(url: str, site_url: str) -> dict[str, str]:
    """The environment variables that are not stored but follow from where the server is reached (protocol 6.4)."""
    return {"CONVEX_CLOUD_URL": url, "CONVEX_SITE_URL": site_url}


def _snapshots_held(settings: Settings) -> int:
    """How many may be kept: each has a connection, and of few connections to PostgreSQL half must stay for everybody else."""
    return min(MAX_HELD, settings.database_connections // 2) if settings.database_url else MAX_HELD


class Runner:
    """Runs the functions of one deployment. Safe for several threads."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        entropy: Entropy,
        *,
        finished: Callable[[], None],
        on_abandoned: Callable[[], None],
    ) -> None:
        self.database, self.settings, self.entropy = database, settings, entropy
        self.functions = FunctionsByPath({})
        self.built_in = built_in_variables(settings.api_origin(), settings.site_origin())
        """Environment variables that are not stored (protocol 6.4)."""
        self.version = 0
        """Counts applications: a result of an earlier one is not kept."""
        self.on_run: Callable[[Usage], None] | None = None
        self.run_records = RunRecords(database.clock)
        """The last runs, for the operator."""
        self._finished = finished
        self.held = HeldSnapshots(database.storage, most=_snapshots_held(settings))
        self._queries = QueryPool(
            database, threads=settings.query_threads, finished=finished, on_abandoned=on_abandoned
        )
        self._actions = ActionPool(
            database.watchdog, threads=settings.running_actions, finished=finished, on_abandoned=on_abandoned
        )
        self._results: ResultCache[Outcome] = ResultCache(
            database.feed, database.clock, entries=settings.cache_entries, size=settings.cache_bytes
        )
        self.live = LiveQueries(self)
        self._asked: dict[tuple[str, bytes], tuple[str, bytes]] = {}
        self._asked_lock = threading.Lock()
        self._pending: dict[tuple[str, bytes], QueryCall] = {}

    def serve(self, functions: Mapping[str, Function]) -> None:
        """From now on these are the functions."""
        self.functions = FunctionsByPath(functions)
        self.version += 1
        self._pending.clear()  # nobody who comes from now on joins a run of an earlier application
        with self._asked_lock:
            self._asked.clear()
        self._results.clear(self.version)
        self.live.post(self.live.reload)

    def close(self) -> None:
        """Finish what runs."""
        self.live.close()
        self._actions.close()
        self._queries.close()
        self.held.close()

    def cached(self, path: str, args: bytes, caller: Caller) -> Outcome | None:
        """A query's result that is still good, for these texts exactly as an earlier call had them."""
        known = self._asked.get((path, args))
        if known is None:
            return None
        found = self._results.find(known[0], known[1], caller)
        return None if found is None else found.answer

    def start(
        self,
        function: Function,
        path: str,
        arguments: Mapping[str, Any],
        caller: Caller,
        request_id: str,
        done: Done,
        *,
        raw: tuple[str, bytes] | None = None,
        at: Timestamp | None = None,
        request: RequestKey | None = None,
        origin: Origin = "HttpApi",
        is_current: bool = False,
    ) -> Call:
        """Have it run and `done` told. Raises RequestError (503) where too many wait already.

        A mutation with a `request` runs once however often it is asked for.
        """
        asked = (self, function, path, arguments, caller, request_id)
        if function.kind == "query":
            query = QueryCall(*asked, done, raw=raw, origin=origin)
            if at is None and self.database.is_shared and not is_current:
                self.database.look(partial(self._looked, query))
            elif at is None:
                self._start_query(query)
            else:
                query.held = self.held.find(at)
                self._refuse_crowd()
                query.held.enter(partial(self._queries.submit, query))
            return query
        if function.kind == "mutation":
            mutation = MutationCall(*asked, done, request=request, origin=origin)
            self._start_mutation(mutation)
            return mutation
        action = ActionCall(*asked, done, origin=origin)
        self._actions.submit(action)
        return action

    def transact(self, step: Callable[[MutationCtx], T], lines: list[str]) -> T:
        """Run this in one mutation transaction, as the operator and without a limit of time; what it logs goes to `lines`.

        Returns what it returned, whatever that is. Raises what it raised, and StorageError.
        """
        call = StepCall(self, step)
        self.database.submit(call)
        try:
            return call.wait()
        finally:
            lines += call.log_lines

    # For calls

    def function_run(self, transaction: Transaction, caller: Caller, journal: str | None = None) -> FunctionRun:
        """A run of functions on this transaction."""
        return FunctionRun(
            transaction, self.functions, caller, self.database.cursors, self.entropy, self.built_in, journal
        )

    def is_outdated(self, call: Call) -> bool:
        """Whether there is another application than the call's by now, with a function of its kind at its path."""
        function = self.functions.by_path.get(call.path)
        return (
            function is not None
            and function is not call.function
            and (function.kind, function.internal) == (call.function.kind, call.function.internal)
        )

    def submit_query(self, job: QueryJob) -> None:
        """Have this run on a thread for queries."""
        self._queries.submit(job)

    def start_again(self, call: QueryCall) -> None:
        """A call joined a run whose result turned out not to be for it."""
        try:
            self._start_query(call)
        except RequestError as error:
            call.done(error)

    def _looked(self, call: QueryCall, error: Exception | None) -> None:
        """What was acknowledged before this call came is known by now; on the thread that follows the log."""
        if error is not None:
            call.done(error)
        else:
            self.start_again(call)
        self._finished()

    def is_running(self, call: QueryCall) -> None:
        """Nobody can join this call any more."""
        if self._pending.get(call.key) is call:
            self._pending.pop(call.key, None)

    def keep(self, call: QueryCall, run: RunOutcome, transaction: Transaction, answer: Outcome) -> None:
        """Keep a result for later callers."""
        if self.functions.by_path.get(call.path) is not call.function:  # there is another application by now
            return
        worth_keeping = self._results.add(
            call.key,
            call.caller,
            run,
            answer,
            transaction.reads,
            transaction.timestamp,
            internal=call.function.internal,
            version=call.version,
        )
        if worth_keeping:
            self._note_asked(call)

    def outcome(self, run: RunOutcome, timestamp: int, request_id: str, path: str) -> Outcome:
        """What a client is told of a run of the function at this path."""
        dev = self.settings.dev
        lines = run.log_lines if dev else []
        if run.error is None:
            return Outcome(run.value, None, None, lines, timestamp)
        error = checked_error(run.error)
        log_failure(error, path, request_id)
        return Outcome(None, client_message(error, request_id, dev=dev), client_data(error), lines, timestamp, error)

    # The steps of the above

    def _start_query(self, call: QueryCall) -> None:
        if (found := self._results.find(*call.key, call.caller)) is not None:
            self._note_asked(call)
            call.done(found.answer)
            return
        if (shared := self.live.shared(*call.key, call.caller)) is not None:
            call.done(shared)
            return
        waiting = self._pending.get(call.key)
        if waiting is not None and waiting.function is call.function and waiting.join(call):
            return
        self._refuse_crowd()
        self._pending[call.key] = call
        self._queries.submit(call)

    def _refuse_crowd(self) -> None:
        if self._queries.waiting >= self.settings.queued_queries:
            raise _busy("TooManyConcurrentQueries", f"{self.settings.queued_queries} queries wait already.")

    def _start_mutation(self, call: MutationCall) -> None:
        if self.database.waiting_mutations >= self.settings.queued_mutations:
            raise _busy("TooManyConcurrentMutations", f"{self.settings.queued_mutations} mutations wait already.")
        if self.database.broken is not None:
            raise RequestError(503, "ShuttingDown", "Nothing can be written until the server has restarted.")
        self.database.submit(call, (call.path, call.arguments))

    def _note_asked(self, call: QueryCall) -> None:
        """Remember that these texts ask for this: the next call needs no parsing."""
        if call.raw is None:
            return
        with self._asked_lock:
            self._asked[call.raw] = call.key
            if len(self._asked) > self.settings.cache_entries:
                del self._asked[next(iter(self._asked))]


def _busy(code: str, what: str) -> RequestError:
    return RequestError(503, code, f"{what} Try again in a moment.", headers={"Retry-After": "1"})
