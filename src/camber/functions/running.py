"""Running one query or mutation on a transaction: arguments checked, handler called, result checked and encoded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, cast

from camber.clock import Entropy
from camber.database import Abandoned, Interrupted, RunState, Transaction
from camber.database.pagination import Cursors
from camber.errors import DatabaseUsageError, FunctionError, FunctionNotFoundError, WrongKindError
from camber.functions.contexts import MutationCtx, QueryCtx
from camber.functions.guard import forbid_io
from camber.functions.logs import RunLog
from camber.functions.registration import RegisteredFunction
from camber.identity import Caller
from camber.values import TableNames, encode_value, size_of

MIB = 1 << 20


class Functions(Protocol):
    """Where functions are found by their path."""

    def find(self, path: str) -> RegisteredFunction[..., Any] | None: ...


class RunOutcome:
    """How a run ended, with everything its result depends on."""

    __slots__ = ("error", "journal", "log_lines", "read_clock", "read_identity", "seconds", "value")

    def __init__(self) -> None:
        self.value: bytes | None = None
        """The encoded result, None if the run raised."""
        self.error: Exception | None = None
        self.log_lines: list[str] = []
        self.read_identity = False
        self.read_clock = False
        self.journal: str | None = None
        self.seconds: float | None = None
        """How long it ran; None if it did not begin to."""


class FunctionRun:
    """One run of one query or mutation; the `Run` behind its context."""

    __slots__ = (
        "_began",
        "_entropy",
        "_functions",
        "built_in",
        "caller",
        "log",
        "read_clock",
        "read_identity",
        "state",
    )

    def __init__(
        self,
        transaction: Transaction,
        functions: Functions,
        caller: Caller,
        cursors: Cursors,
        entropy: Entropy,
        built_in: Mapping[str, str],
        journal: str | None = None,
    ) -> None:
        self.caller, self.built_in = caller, built_in
        self.state = RunState(transaction, cursors, journal)
        self.log = RunLog()
        self.read_identity = False
        self.read_clock = False
        self._functions, self._entropy = functions, entropy
        self._began = time.perf_counter()

    def random_bytes(self, count: int) -> bytes:
        """From the server's source of randomness."""
        return self._entropy.random_bytes(count)

    def run(self, function: RegisteredFunction[..., Any], args: Mapping[str, Any], *, result_bytes: int) -> RunOutcome:
        """Run it to its end. An error that it raises is part of the outcome; only interruptions get through."""
        outcome = RunOutcome()
        catalog = self.state.transaction.catalog
        try:
            given = function.checked_args(args, catalog)
            forbid_io(function.kind)
            try:
                result = function(self.context(function.kind), **given)
            finally:
                forbid_io(None)
            outcome.value = encoded_result(function, result, catalog, result_bytes)
        except (Interrupted, Abandoned):
            raise
        except Exception as error:  # noqa: BLE001  whatever a function raises is its outcome
            outcome.error = error
        except BaseException as error:  # noqa: BLE001  SystemExit or its like must not end the thread that serves everybody
            outcome.error = ended_the_run(function.path, error)
        return self._noted(outcome)

    def ended(self, error: Exception) -> RunOutcome:
        """The outcome of a run that was ended from outside."""
        outcome = RunOutcome()
        outcome.error = error
        return self._noted(outcome)

    def _noted(self, outcome: RunOutcome) -> RunOutcome:
        outcome.seconds = time.perf_counter() - self._began
        outcome.log_lines, outcome.journal = self.log.lines, self.state.journal_out
        outcome.read_identity, outcome.read_clock = self.read_identity, self.read_clock
        return outcome

    def context(self, kind: str) -> QueryCtx:
        """The context for a function of this kind."""
        return MutationCtx(self) if kind == "mutation" else QueryCtx(self)

    def call(self, function: Any, kind: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any:
        """A function called by a function: in this transaction, as a sub-transaction, with the same caller."""
        target = find_called(self._functions, function, kind)
        wire = arguments_of_call(function, target, args, kwargs)
        transaction = self.state.transaction
        catalog = transaction.catalog
        mark = transaction.mark()
        outer, self.state = self.state, RunState(transaction, self.state.cursors)
        try:
            result = target(self.context(target.kind), **target.checked_args(wire, catalog))
            checked = target.checked_result(result, catalog)
        except Exception:
            transaction.rollback(mark)
            raise
        finally:
            self.state = outer
        returns = target.returns
        return checked if returns is None else returns.hand_over(checked)


def encoded_result(function: RegisteredFunction[..., Any], result: object, tables: TableNames, limit: int) -> bytes:
    """The result, checked and as encoded JSON. Raises ReturnsValidationError, InvalidValueError, FunctionError."""
    value = function.checked_result(result, tables)
    encoded = encode_value(value)
    # The text of a value is hardly ever shorter than the value, so most are not measured.
    if len(encoded) * 9 > limit and (size := size_of(value)) > limit:
        raise too_large(f"The result of {function.path} is", size, limit)
    return encoded


def too_large(what: str, size: int, limit: int) -> FunctionError:
    """The error of arguments or a result above the limit (protocol 3.11)."""
    most = f"{limit >> 20} MiB" if limit % MIB == 0 else f"{limit} bytes"
    return FunctionError(f"{what} too large (actual: {size} bytes, limit: {most})")


def ended_the_run(path: str, error: BaseException) -> FunctionError:
    """The error of a function that raised what would end a thread."""
    return FunctionError(f"{path} raised {type(error).__name__}: {error}").with_traceback(error.__traceback__)


def find_called(functions: Functions, function: Any, kind: str) -> RegisteredFunction[..., Any]:
    """The function that is meant, by itself or by its path. Raises FunctionNotFoundError, WrongKindError."""
    if isinstance(function, RegisteredFunction):
        target = cast("RegisteredFunction[..., Any]", function)
    elif isinstance(function, str):
        found = functions.find(function)
        if found is None:
            raise FunctionNotFoundError(f"Could not find function for '{function}'.")
        target = found
    else:
        raise DatabaseUsageError(f"run_{kind} takes a function declared with @{kind}, or its path, not {function!r}")
    if target.kind != kind:
        raise WrongKindError(
            f"{target.path or target.name} is a {target.kind}; call it with ctx.run_{target.kind}, not ctx.run_{kind}."
        )
    return target


def arguments_of_call(
    function: object, target: RegisteredFunction[..., Any], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Mapping[str, Any]:
    """The arguments under wire names: by path one mapping, by function keyword arguments under Python's names."""
    if not isinstance(function, str):
        return target.wire_args(args, kwargs)
    if kwargs or len(args) > 1 or (args and not isinstance(args[0], Mapping)):
        raise DatabaseUsageError("A function called by its path takes one mapping with the arguments' wire names.")
    return cast("Mapping[str, Any]", args[0]) if args else {}
