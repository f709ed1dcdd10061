"""What a history is made of: transactions, with what each of them read and wrote and what its client knows of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

Value = Hashable


class Untold(Enum):
    """Stands for what nobody said."""

    UNTOLD = "untold"


UNTOLD = Untold.UNTOLD


class Append(NamedTuple):
    """An element was put at the end of a list."""

    key: str
    element: Value


class ReadList(NamedTuple):
    """A list was read as a whole."""

    key: str
    elements: tuple[Value, ...]


class Write(NamedTuple):
    """A register was given a value. With a `choice`: the transaction may have done without this, and all of that number."""

    key: str
    value: Value
    choice: int = 0


class Read(NamedTuple):
    """A register was read; None: it was never written. `after`: what this value replaced, if the value itself tells."""

    key: str
    value: Value | None
    after: Value | Untold | None = UNTOLD


def everything(_: Value) -> bool:
    """Any value."""
    return True


class Scan(NamedTuple):
    """All registers with low <= key < high whose value is one of those that are covered were read at once."""

    low: str
    high: str
    found: Mapping[str, Value]
    covers: Callable[[Value], bool] = everything


Event = Append | ReadList | Write | Read | Scan


class Outcome(Enum):
    """What the client knows: it was carried out; it was not, and must never be seen; or either."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False, slots=True)
class Transaction:
    """What one transaction did, as far as its client knows. One that is unknown has no reads.

    `process` names who asked; of one who is told of a transaction the next one comes later. `began` and `ended` are times of one
    clock; without them nothing is known of the time. `timestamp` is that of the commit, or of the state that was read.
    """

    name: str
    events: Sequence[Event]
    outcome: Outcome = Outcome.DONE
    process: str | None = None
    began: float | None = None
    ended: float | None = None
    timestamp: int | None = None


__all__ = [
    "UNTOLD",
    "Append",
    "Event",
    "Outcome",
    "Read",
    "ReadList",
    "Scan",
    "Transaction",
    "Untold",
    "Value",
    "Write",
    "everything",
]
