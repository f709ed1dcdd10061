"""Index keys: bytes whose order is the order of the values.

The part of one field begins with a tag that grows with the kind, and says itself where it ends, so that parts are simply
put one behind the other. Text and bytes write 00 as `00 FF` and end with `00`: what follows a part is a tag (at most 0x7F) or
a mark (0x00, 0x01), so an `FF` there can't be mistaken. Hence every key that begins with the parts `p` lies in
`p <= key < p + AFTER_KEY`, and no other key does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from camber.values.kinds import MISSING, Int64, Missing, Value, type_of

AFTER_KEY: Final = b"\x80"
"""Put behind key parts, it gives the end (exclusive) of all keys that begin with them."""

_MISSING = b"\x01"
_NULL = b"\x02"
_INT64 = 0x03
_FLOAT64 = 0x04
_FALSE = b"\x05"
_TRUE = b"\x06"
_STRING = b"\x07"
_BYTES = b"\x08"
_ARRAY = b"\x09"
_OBJECT = b"\x0a"

_END = b"\x00"
_PAIR = b"\x01"
"""Before each field of an object, so that an object with more fields sorts behind the end of a shorter one."""

_DOUBLE = struct.Struct(">d")
_SIGNED = struct.Struct(">q")
_TAGGED = struct.Struct(">BQ")
_SIGN_BIT = 1 << 63
_ALL_BITS = (1 << 64) - 1


def key_of(value: Value | Missing) -> bytes:
    """The key part of one field. Parts compare as `compare` compares the values."""
    return _key(value)


def float_key(x: float) -> bytes:
    """The key part of a float64: the tag and 8 bytes in IEEE 754's total order."""
    bits: int = _SIGNED.unpack(_DOUBLE.pack(x))[0]
    return _TAGGED.pack(_FLOAT64, bits | _SIGN_BIT if bits >= 0 else ~bits & _ALL_BITS)


def _key(value: Any) -> bytes:
    kind = type_of(value)
    if kind is str:
        return _STRING + _escaped(value.encode()) + _END
    if kind is float:
        return float_key(value)
    if kind is Int64:
        return _TAGGED.pack(_INT64, value + _SIGN_BIT)
    if value is None:
        return _NULL
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is bytes:
        return _BYTES + _escaped(value) + _END
    if kind is list:
        return _ARRAY + b"".join(map(_key, value)) + _END
    if kind is dict:
        return _OBJECT + b"".join([_pair(name, value[name]) for name in sorted(value)]) + _END
    if value is MISSING:
        return _MISSING
    raise TypeError(f"{kind.__name__} has no index key: normalize it first")


def _pair(name: str, value: Any) -> bytes:
    return _PAIR + _escaped(name.encode()) + _END + _key(value)


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\x00", b"\x00\xff") if 0 in data else data


def field_of(document: Mapping[str, Any], path: str) -> Any:
    """The value at a path like `a.b`. A step that is missing, or a value on the way that is no object, gives MISSING."""
    if "." not in path:
        return document.get(path, MISSING)
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, dict):
            return MISSING
        value = cast("dict[str, Any]", value).get(name, MISSING)
    return value


def parts_reader(fields: Sequence[str]) -> Callable[[Mapping[str, Any]], list[bytes]]:
    """A function from a document to the key parts of these fields."""
    names = tuple(fields)
    if any("." in name for name in names):
        return lambda document: [_key(field_of(document, name)) for name in names]

    def read(document: Mapping[str, Any]) -> list[bytes]:
        parts: list[bytes] = []
        for name in names:
            value = document.get(name, MISSING)
            if type(value) is str and "\x00" not in value:
                parts.append(f"\x07{value}\x00".encode())
            elif value is MISSING:
                parts.append(_MISSING)
            else:
                parts.append(_key(value))
        return parts

    return read
