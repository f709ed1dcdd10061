"""The total order of all values (protocol 1.4), the one that `keys` writes as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from camber.values.kinds import MISSING, Int64, Missing, Value, type_of

_RANKS: dict[type, int] = {
    Missing: 0,
    type(None): 1,
    Int64: 2,
    float: 3,
    bool: 4,
    str: 5,
    bytes: 6,
    list: 7,
    dict: 8,
}

_DOUBLE = struct.Struct(">d")
_SIGNED = struct.Struct(">q")


def compare(a: Value | Missing, b: Value | Missing) -> int:
    """-1, 0 or 1: whether a sorts before b, is equal, or sorts after. Both in their normal form."""
    return _compare(a, b)


def _compare(a: Any, b: Any) -> int:
    kind = type_of(a)
    if kind is not type(b):
        return -1 if _RANKS[kind] < _RANKS[type(b)] else 1
    if kind is float:
        if a == b and a != 0.0:
            return 0
        a, b = _total_order(a), _total_order(b)
    elif kind is list:
        return _compare_sequences(a, b)
    elif kind is dict:
        return _compare_sequences(_flattened(a), _flattened(b))
    elif a is None or a is MISSING:
        return 0
    # Python compares text by code point, which is the order of its UTF-8 bytes.
    return (a > b) - (a < b)


def _compare_sequences(a: Sequence[Any], b: Sequence[Any]) -> int:
    for left, right in zip(a, b, strict=False):
        if result := _compare(left, right):
            return result
    return (len(a) > len(b)) - (len(a) < len(b))


def _flattened(fields: dict[str, Any]) -> list[Any]:
    """Name, value, name, value …, by name: comparing these compares the pairs one after another."""
    return [part for name in sorted(fields) for part in (name, fields[name])]


def _total_order(number: float) -> int:
    """IEEE 754's total order as a whole number: -NaN, -Infinity … -0, 0 … Infinity, NaN."""
    bits: int = _SIGNED.unpack(_DOUBLE.pack(number))[0]
    return bits if bits >= 0 else ~bits - (1 << 63)
