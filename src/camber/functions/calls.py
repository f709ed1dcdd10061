"""One call of a query, mutation or action, from its arguments to its outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from camber.database import Abandoned, Interrupted, RequestKey, Transaction, remember, remembered, timed_out
from camber.database.held_snapshots import HeldSnapshot, snapshot_expired
from camber.errors import DatabaseUsageError, RequestError, StorageError
from camber.functions.contexts import ActionCtx, MutationCtx
from camber.functions.logs import ActionLog, RunLog
from camber.functions.outcomes import Done, Outcome
from camber.functions.registration import RegisteredFunction
from camber.functions.results import caller_key
from camber.functions.run_records import Origin
from camber.functions.running import (
    FunctionRun,
    RunOutcome,
    arguments_of_call,
    encoded_result,
    ended_the_run,
    find_called,
)
from camber.identity import OPERATOR, Caller
from camber.storage import Snapshot, Timestamp
from camber.values import decode_value, encode_value, normalize, parse_json

if TYPE_CHECKING:
    from camber.functions.runner import Runner

T = TypeVar("T")

Function = RegisteredFunction[..., Any]

VARIABLE = "_system/cli/queryEnvironmentVariables:get"


class Call:
    """A function with its arguments, who calls it, and who is told how it ended."""

    def __init__(
        self,
        runner: Runner,
        function: Function,
        path: str,
        arguments: Mapping[str, Any],
        caller: Caller,
        request_id: str,
        done: Done,
        *,
        origin: Origin = "HttpApi",
    ) -> None:
        self.runner, self.function, self.path, self.arguments = runner, function, path, arguments
        self.caller, self.request_id, self.done = caller, request_id, done
        self.origin: Origin = origin
        self.version = runner.version
        """Of the application that the function is of."""
        self.has_begun = False
        """Whether it has begun to run: until then nothing can show its effect."""
        self._current: FunctionRun | None = None

    def run_on(self, transaction: Transaction) -> RunOutcome:
        """Run a query or mutation on this transaction."""
        runner = self.runner
        run = self._current = runner.function_run(transaction, self.caller)
        outcome = run.run(self.function, self.arguments, result_bytes=runner.settings.result_bytes)
        if runner.on_run is not None:
            runner.on_run(transaction.usage)
        return outcome

    def renew(self) -> None:
        """Be a call of the same path in the application that is served now."""
        self.version = self.runner.version
        self.function = self.runner.functions.by_path.get(self.path, self.function)

    def cut_short(self, error: Exception) -> RunOutcome:
        """The outcome of a run that was ended from outside: with what it had logged and looked at until then."""
        return failed(error) if self._current is None else self._current.ended(error)

    def answer_of(self, run: RunOutcome, timestamp: int) -> Outcome:
        """What a client is told of how it ended; noted for the operator too."""
        answer = self.runner.outcome(run, timestamp, self.request_id, self.path)
        self.note(run, answer)
        return answer

    def note(self, run: RunOutcome, answer: Outcome) -> None:
        """Note for the operator how it ended."""
        self.runner.run_records.add(
            self.function.kind, self.path, self.request_id, self.caller, self.origin, run, answer.exception
        )

    def tell(self, run: RunOutcome, timestamp: int) -> None:
        """Tell how it ended."""
        self.done(self.answer_of(run, timestamp))


class QueryCall(Call):
    """A query, with everybody who waits for the same; a `QueryJob`."""

    def __init__(self, *call: Any, raw: tuple[str, bytes] | None, origin: Origin = "HttpApi") -> None:
        super().__init__(*call, origin=origin)
        self.raw = raw
        self.canonical_args = encode_value(dict(self.arguments))
        self.key = (self.path, self.canonical_args)
        self.held: HeldSnapshot | None = None
        self.seconds = self.runner.settings.query_seconds
        self._run = RunOutcome()
        self._lock = threading.Lock()
        self._started = False
        self._joined: list[QueryCall] = []

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot it must run on; None for the latest state."""
        return None if self.held is None else self.held.snapshot

    def join(self, other: QueryCall) -> bool:
        """Let another call have this one's result; False if this has started: its snapshot may be older than the other call."""
        with self._lock:
            if self._started:
                return False
            self._joined.append(other)
            return True

    def begin(self) -> None:
        """From now on nobody can join: who comes later may have seen a commit that the snapshot of this run has not."""
        with self._lock:
            self._started = True
        self.runner.is_running(self)

    def run(self, transaction: Transaction) -> None:
        """Run it, and keep how it went."""
        if self.held is not None and self.held.closed:
            raise snapshot_expired(transaction.timestamp)
        self._run = self.run_on(transaction)

    def finish(self, transaction: Transaction | None, error: Exception | None) -> None:
        """Tell all who wait; keep the result for those to come."""
        runner = self.runner
        if self.held is not None:
            self.held.leave()
        if isinstance(error, (StorageError, RequestError)):
            for call in (self, *self._joined):
                call.done(error)
            return
        if error is None and self._run.error is not None and self.held is None and self._is_for_new_code():
            return
        run = self._run if error is None else self.cut_short(error)
        timestamp = 0 if transaction is None else transaction.timestamp
        answer = self.answer_of(run, timestamp)
        if transaction is not None and run.error is None and self.held is None:
            runner.keep(self, run, transaction, answer)
        self.done(answer)
        for other in self._joined:
            if run.read_identity and caller_key(other.caller) != caller_key(self.caller):
                runner.start_again(other)
            else:
                other.done(answer)

    def _is_for_new_code(self) -> bool:
        """Whether the code was changed while this failed: then the new code answers. What the old one read by may be gone."""
        runner = self.runner
        runner.database.wait_until_changed()
        if not runner.is_outdated(self):
            return False
        with self._lock:
            calls, self._joined, self._started = [self, *self._joined], [], False
        for call in calls:
            call.renew()
            runner.start_again(call)
        return True


class MutationCall(Call):
    """A mutation; a `database.Mutation`. With a request key it runs once, however often it is asked for."""

    def __init__(self, *call: Any, request: RequestKey | None = None, origin: Origin = "HttpApi") -> None:
        super().__init__(*call, origin=origin)
        self._request = request
        self.seconds = self.runner.settings.mutation_seconds
        self._run = RunOutcome()

    def run(self, transaction: Transaction) -> None:
        """Run it; what it raised is raised, so that its writes are rolled back."""
        self.has_begun = True
        if self._request is not None and (earlier := remembered(transaction, self._request)) is not None:
            self._run = RunOutcome()
            self._run.value, self._run.log_lines = earlier.result or b"null", earlier.log_lines
            return
        if self.runner.is_outdated(self):  # the code was changed while it waited
            self.renew()
        self._run = self.run_on(transaction)
        if self._run.error is not None:
            raise self._run.error
        if self._request is not None:
            remember(transaction, self._request, self._run.value or b"null", self._run.log_lines)

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:
        """Tell how it ended."""
        if isinstance(error, (StorageError, RequestError)):
            self.done(error)
            return
        if error is not None and self._run.error is not error:
            self._run = self.cut_short(error)
        self.tell(self._run, timestamp or 0)


class StepCall(Generic[T]):
    """A piece of Python that is run in one mutation transaction, as the operator; a `database.Mutation`."""

    seconds = float("inf")

    def __init__(self, runner: Runner, step: Callable[[MutationCtx], T]) -> None:
        self._runner, self._step = runner, step
        self._returned: list[T] = []
        self._future: Future[T] = Future()
        self.log_lines: list[str] = []

    def run(self, transaction: Transaction) -> None:
        """Run it; what it raised is raised, so that its writes are rolled back."""
        run = self._runner.function_run(transaction, OPERATOR)
        self.log_lines = run.log.lines
        self._returned = [self._step(MutationCtx(run))]

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:  # noqa: ARG002
        """Let the thread that waits go on."""
        if error is None:
            self._future.set_result(self._returned[0])
        else:
            self._future.set_exception(error)

    def wait(self) -> T:
        """What the step returned, once it is stored. Raises what it raised."""
        return self._future.result()


class ActionCall(Call):
    """An action, and the `ActionRun` behind its context; an `ActionJob`."""

    def __init__(self, *call: Any, origin: Origin = "HttpApi") -> None:
        super().__init__(*call, origin=origin)
        self._log = ActionLog()
        self.log: RunLog = self._log
        self.seconds = self.runner.settings.action_seconds
        self._run = RunOutcome()
        self._told = False
        self._began: float | None = None

    async def run(self) -> None:
        """Run it to its end, and keep how it went."""
        function, run = self.function, self._run
        self._began = time.perf_counter()
        limit = asyncio.timeout(self.seconds)
        try:
            catalog = self.runner.database.catalog
            given = function.checked_args(self.arguments, catalog)
            async with limit:
                result = await function(ActionCtx(self), **given)
            run.value = encoded_result(function, result, catalog, self.runner.settings.result_bytes)
        except TimeoutError as error:
            run.error = timed_out(self.seconds) if limit.expired() else error
        except Exception as error:  # noqa: BLE001  whatever a function raises is its outcome
            run.error = error
        except (asyncio.CancelledError, Interrupted, Abandoned):
            raise
        except BaseException as error:  # noqa: BLE001  SystemExit or its like must not end the thread
            run.error = ended_the_run(self.path, error)

    def finish(self, error: Exception | None) -> None:
        """Tell how it ended."""
        self._told = True
        run = self._run if error is None else failed(error)
        if isinstance(run.error, (StorageError, RequestError)):
            self.done(run.error)
            return
        run.seconds = None if self._began is None else time.perf_counter() - self._began
        run.log_lines = self.log.lines
        answer = self.runner.outcome(run, 0, self.request_id, self.path)
        run.log_lines = self._log.own  # those of the functions it called are noted with these
        self.note(run, answer)
        self.done(answer)

    def now_ms(self) -> float:
        """The server's time."""
        return self.runner.database.now_ms()

    def random_bytes(self, count: int) -> bytes:
        """From the server's source of randomness."""
        return self.runner.entropy.random_bytes(count)

    def environment(self, name: str) -> str | None:
        """An environment variable as it is now."""
        if (built_in := self.runner.built_in.get(name)) is not None:
            return built_in
        variable = self.runner.functions.find(VARIABLE)
        assert variable is not None
        future = self._dispatch(variable, VARIABLE, {"name": name}, OPERATOR)
        found = decode_value(parse_json(future.result().value or b"null"))
        return str(found["value"]) if isinstance(found, dict) else None

    def call(self, function: Any, kind: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Awaitable[Any]:
        """A function called by the action, in a transaction of its own, for the same caller."""
        target = find_called(self.runner.functions, function, kind)
        arguments = normalize(arguments_of_call(function, target, args, kwargs))
        assert isinstance(arguments, dict)
        return self._result_of(target, self._dispatch(target, target.path or str(function), arguments, self.caller))

    def _dispatch(self, target: Function, path: str, arguments: Mapping[str, Any], caller: Caller) -> Future[Outcome]:
        if self._told:
            raise DatabaseUsageError("This action has ended; its ctx can't be used any more.")
        future: Future[Outcome] = Future()
        # An action that is cancelled gives up waiting; what it waits for is told all the same.
        future.set_running_or_notify_cancel()
        self.runner.start(
            target,
            path,
            arguments,
            caller,
            self.request_id,
            lambda result: settle_future(future, result),
            origin="Action",
        )
        return future

    async def _result_of(self, target: Function, future: Future[Outcome]) -> Any:
        outcome = await asyncio.wrap_future(future)
        self._log.take_over(outcome.log_lines)
        if outcome.exception is not None:
            raise outcome.exception
        value = decode_value(parse_json(outcome.value or b"null"))
        return value if target.returns is None else target.returns.hand_over(value)


def failed(error: Exception) -> RunOutcome:
    """The outcome of a run that did not come to its end."""
    outcome = RunOutcome()
    outcome.error = error
    return outcome


def settle_future(future: Future[Outcome], result: Outcome | Exception) -> None:
    """Give a waiting thread its answer."""
    if isinstance(result, Outcome):
        future.set_result(result)
    else:
        future.set_exception(result)
