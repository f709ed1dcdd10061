"""How a call of a function ended, as the server told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from camber.errors import ClientError, ConvexError, FunctionError
from camber.values import decode_value, parse_json


@dataclass(frozen=True, slots=True)
class Success:
    """It returned this: the JSON of a value, read only when somebody takes it."""

    json: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """It raised. `data` is the JSON of a ConvexError's data, None for any other error."""

    message: str
    data: bytes | None = None


Outcome: TypeAlias = Success | Failure


def result_of(outcome: Outcome) -> Any:
    """The value, in containers of its own. Raises ConvexError with the function's data, or FunctionError with the message."""
    match outcome:
        case Success(json):
            return decode_value(parse_json(json))
        case Failure(message, data):
            raise FunctionError(message) if data is None else ConvexError(decode_value(parse_json(data)))


def one_more(error: ClientError) -> ClientError:
    """The same error once more: each of those who are told raises one of their own, with a traceback of its own."""
    return type(error)(*error.args)
