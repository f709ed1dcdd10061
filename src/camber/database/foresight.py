"""What mutations will look up, foretold from their arguments, so that those of a group are looked up in one round trip.

Where the database is another process each look-up takes longer than all else that a short mutation does. Which look-ups a function
makes often follows from its arguments (the row of this name), so how they did in its last runs is remembered: as a pattern, in which
the key of an argument stands where it stood. A wrong guess costs a look-up that nobody asks for, and nothing else: what a mutation
has read is what it asked for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from camber.storage import BY_ID, Row, Snapshot
from camber.values import AFTER_KEY, key_of

MOST_FUNCTIONS: Final = 1000
MOST_PATTERNS: Final = 8
"""Of one function."""
MOST_LESSONS: Final = 16
"""After so many runs of which look-ups were not foreseen a function has shown what it does, or that it can't be foreseen."""
_MOST_ARGUMENTS: Final = 16
_LONGEST_TEXT: Final = 500
_FEW: Final = 2
"""Rows that a look-up may give to be kept; the group's memory is not for long lists."""

LookUp = tuple[int, int, bytes, bytes | None, bool, int]
"""Table, index, bounds, whether it is descending, how many rows at most."""

Asked = tuple[str, Mapping[str, Any]]
"""A function's path and its arguments, as they came."""

_Form = tuple[str, bool]
"""The key of an argument: its name, and whether its text was put in lower case first."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    table: int
    index: int
    limit: int
    parts: tuple[bytes | _Form, ...]

    def lower_bound(self, keys: Mapping[_Form, bytes]) -> bytes | None:
        """The range's lower bound with these arguments; None where one is missing."""
        found = b""
        for part in self.parts:
            key = part if isinstance(part, bytes) else keys.get(part)
            if key is None:
                return None
            found += key
        return found


class _Function:
    def __init__(self) -> None:
        self.patterns: list[_Pattern] = []
        self.lessons = 0


class Foresight:
    """What is known of functions. For one thread at a time."""

    def __init__(self) -> None:
        self._functions: dict[str, _Function] = {}

    def learn(self, asked: Asked, missed: Sequence[LookUp]) -> None:
        """A run made these look-ups, which were not foreseen."""
        path, arguments = asked
        function = self._functions.get(path)
        if function is None:
            if len(self._functions) >= MOST_FUNCTIONS:
                return
            function = self._functions[path] = _Function()
        if function.lessons >= MOST_LESSONS:
            return
        function.lessons += 1
        keys = _keys_of(arguments)
        for table, index, lower, upper, descending, limit in missed:
            if descending or index == BY_ID or upper != lower + AFTER_KEY or len(function.patterns) >= MOST_PATTERNS:
                continue
            parts = _parts(lower, keys)
            pattern = _Pattern(table, index, limit, parts)
            if any(not isinstance(part, bytes) for part in parts) and pattern not in function.patterns:
                function.patterns.append(pattern)

    def look_up(
        self, snapshot: Snapshot, coming: Iterable[Asked], known: Mapping[LookUp, Sequence[Row]]
    ) -> dict[LookUp, Sequence[Row]]:
        """What these calls will look up, as far as it is foreseen and not `known`, with what it gives. Raises StorageError."""
        wanted: dict[tuple[int, int, int], dict[bytes, None]] = {}
        for path, arguments in coming:
            function = self._functions.get(path)
            if function is None or not function.patterns:
                continue
            keys = _keys_of(arguments)
            for pattern in function.patterns:
                lower = pattern.lower_bound(keys)
                if lower is not None and _whole(pattern.table, pattern.index, lower, pattern.limit) not in known:
                    wanted.setdefault((pattern.table, pattern.index, pattern.limit), {})[lower] = None
        found: dict[LookUp, Sequence[Row]] = {}
        for (table, index, limit), bounds in wanted.items():
            ranges = [(lower, lower + AFTER_KEY) for lower in bounds]
            rows_of = snapshot.first_of_each(table, index, ranges, limit=min(limit, _FEW + 1))
            for lower, rows in zip(bounds, rows_of, strict=True):
                if len(rows) <= _FEW:
                    found[_whole(table, index, lower, limit)] = rows
        return found


def _whole(table: int, index: int, lower: bytes, limit: int) -> LookUp:
    return table, index, lower, lower + AFTER_KEY, False, limit


def _keys_of(arguments: Mapping[str, Any]) -> dict[_Form, bytes]:
    """The keys that a look-up by these arguments can have in it."""
    keys: dict[_Form, bytes] = {}
    for name, value in islice(arguments.items(), _MOST_ARGUMENTS):
        if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
            with suppress(UnicodeEncodeError):  # a lone surrogate, which the call itself will refuse
                keys[name, False], keys[name, True] = key_of(value), key_of(value.lower())
    return keys


def _parts(lower: bytes, keys: Mapping[_Form, bytes]) -> tuple[bytes | _Form, ...]:
    """The bound with the arguments in place of their keys. No key is the beginning of another."""
    parts: list[bytes | _Form] = []
    literal, at = b"", 0
    while at < len(lower):
        form = next((form for form, key in keys.items() if lower.startswith(key, at)), None)
        if form is None:
            literal += lower[at : at + 1]
            at += 1
            continue
        if literal:
            parts.append(literal)
        parts.append(form)
        literal, at = b"", at + len(keys[form])
    return tuple([*parts, literal] if literal else parts)
