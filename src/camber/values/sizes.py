"""How large Convex says a value is, and how deep (protocol 1.3)."""

from __future__ import annotations

from typing import Any, Final

from camber.values.kinds import Int64, Value, type_of

SYSTEM_FIELDS_SIZE: Final = 61
"""What `_id` (32 letters) and `_creationTime` add to a document."""


def size_of(value: Value) -> int:
    """The size in bytes by Convex's own measure; the value is in its normal form."""
    return _size(value)


def _size(value: Any) -> int:
    kind = type_of(value)
    if kind is dict:
        return _size_of_fields(value)
    if kind is list:
        return 2 + sum(map(_size, value))
    if kind is str:
        return len(value) + 2 if value.isascii() else len(value.encode()) + 2
    if kind is float or kind is Int64:
        return 9
    if kind is bool or value is None:
        return 1
    return len(value) + 2


def _size_of_fields(fields: dict[str, Any]) -> int:
    # Names are ASCII, so that their length is their size.
    size = 2 + len(fields) + sum(map(len, fields))
    for item in fields.values():
        kind = type_of(item)
        if kind is str and item.isascii():
            size += len(item) + 2
        elif kind is float:
            size += 9
        else:
            size += _size(item)
    return size


def nesting_of(value: Value) -> int:
    """Levels of arrays and objects: 0 for everything else."""
    if type(value) is list:
        return 1 + max(map(nesting_of, value), default=0)
    if type(value) is dict:
        return 1 + max(map(nesting_of, value.values()), default=0)
    return 0
