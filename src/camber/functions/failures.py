"""What is told of an error of a function, to the client and in the log: the one place where such errors become text (protocol 5.9)."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

from camber.errors import (
    ArgumentValidationError,
    CamberError,
    ConvexError,
    FunctionNotFoundError,
    InvalidCursorError,
    InvalidValueError,
    ReturnsValidationError,
    ValidationError,
    WrongKindError,
)
from camber.values import encode_value, normalize

_PREFIXES: tuple[tuple[type[Exception], str], ...] = (
    (ArgumentValidationError, "ArgumentValidationError: "),
    (ReturnsValidationError, "ReturnsValidationError: "),
)
_WITHOUT_PLACE = (ArgumentValidationError, ReturnsValidationError, FunctionNotFoundError, WrongKindError)
_CLIENTS = (ConvexError, ArgumentValidationError, FunctionNotFoundError, WrongKindError)
"""What a client brings about, so that the function's author need not look."""

_ENGINE = str(Path(__file__).resolve().parent.parent) + os.sep
_PLACES_SHOWN = 8

_log = logging.getLogger("camber.functions")


def client_message(error: BaseException, request_id: str, *, dev: bool) -> str:
    """The message a client gets: with the error and where it came from in development, with nothing but the id in production."""
    head = f"[Request ID: {request_id}] Server Error"
    return f"{head}\n{_detail(error)}" if dev else head


def client_data(error: BaseException) -> bytes | None:
    """A ConvexError's data as encoded JSON; None for every other error."""
    return encode_value(normalize(error.data)) if isinstance(error, ConvexError) else None


def checked_error(error: Exception) -> Exception:
    """The error itself, or what is wrong with it: a ConvexError's data must be a value."""
    if not isinstance(error, ConvexError):
        return error
    try:
        normalize(error.data)
    except InvalidValueError as problem:
        found = InvalidValueError(f"The data of a ConvexError is no Convex value: {problem}", path=problem.path)
        return found.with_traceback(error.__traceback__)
    return error


def log_failure(error: Exception, path: str, request_id: str) -> None:
    """Log that the function at this path failed; never with its arguments, which may be secret."""
    facts = {"request_id": request_id, "function": path, "error": type(error).__name__}
    if isinstance(error, ValidationError) and (not isinstance(error, _CLIENTS) or _places(error)):
        # Not what the client sent, but what the function made of it. The error's text shows values.
        _log.error("a function failed", extra={**facts, "kind": error.kind, "at": error.path, "where": _places(error)})
    elif isinstance(error, _CLIENTS):
        _log.debug("a call was refused", extra=facts)
    else:
        _log.error("a function failed", extra=facts, exc_info=error)


def recorded_text(error: Exception) -> str:
    """The text of a failure for the operator who watches: as `client_message` in development, but what a validator refused is not
    shown, as in the log: it may be secret.
    """
    if isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error.kind} at {error.path or 'the top'}{_places(error)}"
    return _detail(error)


def _detail(error: BaseException) -> str:
    for kind, prefix in _PREFIXES:
        if isinstance(error, kind):
            return f"{prefix}{error}"
    if isinstance(error, _WITHOUT_PLACE):
        return str(error)
    if isinstance(error, InvalidCursorError):  # clients look for the code at the beginning
        return f"Uncaught {error}{_places(error)}"
    if isinstance(error, ConvexError):
        shown = error.data if isinstance(error.data, str) else encode_value(normalize(error.data)).decode()
        return f"Uncaught ConvexError: {shown}{_places(error)}"
    name = "Error" if isinstance(error, CamberError) else type(error).__name__
    return f"Uncaught {name}: {_text(error)}{_places(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an application's own exception may fail at this too
        return "(its text can't be made)"


def _places(error: BaseException) -> str:
    """The frames of the application's own code, innermost first."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [(code, line) for code, line in frames if not code.co_filename.startswith(_ENGINE)]
    innermost = reversed(own[-_PLACES_SHOWN:])
    return "".join(f"\n    at {code.co_name} ({_shortened(code.co_filename)}:{line})" for code, line in innermost)


def _shortened(filename: str) -> str:
    return "/".join(Path(filename).parts[-2:])
