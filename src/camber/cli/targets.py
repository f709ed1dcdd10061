"""What commands work on: one small interface, whether a server answers or the data is opened in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from camber.errors import FunctionError


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended. Values are JSON as in protocol 1.1, parsed."""

    value: Any = None
    error: str | None = None
    """What went wrong, as a client is told; None where nothing did."""
    log_lines: list[str] = field(default_factory=list[str])


class Rows(NamedTuple):
    """What an SQL statement gave; `more` tells of further rows. Values are JSON: bytes are base64, NaN and the infinities null."""

    columns: list[str]
    rows: list[list[object]]
    more: bool


class Target(Protocol):
    """A deployment that commands work on, as its operator.

    A function that fails is an answer. Raises ConfigurationError where nothing answers or the key is refused, RequestError where
    the call as a whole is refused, StorageError, and FunctionError where it is open whether a call was carried out.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def call(self, path: str, args: str = "{}", *, identity: Mapping[str, object] | None = None) -> Answer:
        """Call a function of any kind with JSON text as its arguments, for the operator or as this person."""
        ...

    def sql(self, statement: str, *, limit: int) -> Rows:
        """Run one statement that only reads."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def ask(target: Target, path: str, args: Mapping[str, object] | None = None) -> Any:
    """The result of one of the engine's own functions. Raises FunctionError where it fails, and as the target does."""
    answer = target.call(path, json.dumps(args or {}))
    if answer.error is not None:
        raise FunctionError(without_heading(answer.error))
    return answer.value


def without_heading(error: str) -> str:
    """A function's error without the line that says on which request it came, where more follows."""
    heading, _, rest = error.partition("\n")
    return rest if rest and heading.startswith("[Request ID: ") else error
