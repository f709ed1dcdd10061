"""What a client is told of an error: the one place where errors of functions become text (protocol 5.9)."""

from __future__ import annotations

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
    WrongKindError,
)
from camber.values import encode_value, normalize

_PREFIXES: tuple[tuple[type[Exception], str], ...] = (
    (ArgumentValidationError, "ArgumentValidationError: "),
    (ReturnsValidationError, "ReturnsValidationError: "),
)
_WITHOUT_PLACE = (ArgumentValidationError, ReturnsValidationError, FunctionNotFoundError, WrongKindError)
_ENGINE = Path(__file__).resolve().parent.parent


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
        return InvalidValueError(f"The data of a ConvexError is no Convex value: {problem}", path=problem.path)
    return error


def _detail(error: BaseException) -> str:
    for kind, prefix in _PREFIXES:
        if isinstance(error, kind):
            return f"{prefix}{error}"
    if isinstance(error, _WITHOUT_PLACE):
        return str(error)
    if isinstance(error, ConvexError) and not isinstance(error, InvalidCursorError):
        shown = error.data if isinstance(error.data, str) else encode_value(normalize(error.data)).decode()
        return f"Uncaught ConvexError: {shown}{_places(error)}"
    if isinstance(error, CamberError):
        return (
            f"Uncaught {error}{_places(error)}"
            if isinstance(error, InvalidCursorError)
            else f"Uncaught Error: {error}{_places(error)}"
        )
    return f"Uncaught {type(error).__name__}: {error}{_places(error)}"


def _places(error: BaseException) -> str:
    """The frames of the application's own code, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _ENGINE not in Path(frame.filename).parents]
    return "".join(
        f"\n    at {frame.name} ({_shortened(frame.filename)}:{frame.lineno})" for frame in reversed(own[-8:])
    )


def _shortened(filename: str) -> str:
    return "/".join(Path(filename).parts[-2:])
