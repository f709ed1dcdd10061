"""The stored form of documents: JSON text in which every value survives bit for bit and SQL can still read it.

Names are sorted; an int64 is bare (`5`); a float64 has a point and no exponent (`5.0`); NaN, the infinities and -0 are
`{"$float": base64}`, bytes `{"$bytes": base64}` as in Convex's export form (protocol 4.3); text stays UTF-8.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from decimal import Decimal
from struct import Struct
from typing import Any, cast

import msgspec

from camber.values.kinds import Int64, Value, type_of

_LITTLE_DOUBLE = Struct("<d")

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode

# Between these, either side of zero, the encoder writes floats without an exponent.
_PLAIN_FROM = 1e-5
_PLAIN_BELOW = 1e16


def encode_document(fields: Mapping[str, Any]) -> str:
    """The stored form of a document's fields, which are in their normal form."""
    for item in fields.values():
        kind = type_of(item)
        if kind is str or kind is bool or item is None or (kind is float and _PLAIN_FROM <= item < _PLAIN_BELOW):
            continue
        return _encode(_storable(fields)).decode()
    return _encode(fields).decode()


def decode_document(text: str) -> dict[str, Value]:
    """The fields of a stored document; the exact inverse of `encode_document`."""
    document: dict[str, Any] = _decode(text)
    for name, item in document.items():
        kind = type_of(item)
        if kind is str or kind is float:
            continue
        if kind is int:
            document[name] = int.__new__(Int64, item)
        elif kind is dict or kind is list:
            document[name] = _restored(item)
    return document


def _storable(value: Any) -> Any:
    kind = type_of(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is float:
        return value if _PLAIN_FROM <= value < _PLAIN_BELOW else _storable_float(value)
    if kind is Int64:
        return int(value)
    if kind is list:
        return [_storable(item) for item in value]
    if kind is dict:
        return {name: _storable(item) for name, item in value.items()}
    if kind is bytes:
        return {"$bytes": b2a_base64(value, newline=False).decode()}
    raise TypeError(f"{kind.__name__} can't be stored: normalize it first")


def _storable_float(value: float) -> Any:
    if -_PLAIN_BELOW < value <= -_PLAIN_FROM:
        return value
    if is_special(value):
        return {"$float": b2a_base64(_LITTLE_DOUBLE.pack(value), newline=False).decode()}
    return msgspec.Raw(positional(value).encode()) if value else value


def is_special(value: float) -> bool:
    """Whether this float has no form as a JSON number: NaN, the infinities, -0."""
    return value - value != 0.0 or (value == 0.0 and repr(value) == "-0.0")


def positional(value: float) -> str:
    """A finite float as decimal digits with a point and without an exponent; reading it gives the same float."""
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text if "." in text else text + ".0"


def _restored(value: Any) -> Any:
    kind = type_of(value)
    if kind is int:
        return int.__new__(Int64, value)
    if kind is list:
        return [_restored(item) for item in value]
    if kind is not dict:
        return value
    fields = cast("dict[str, Any]", value)
    if len(fields) == 1:
        # No name of a field begins with $, so these can be nothing else.
        if "$bytes" in fields:
            return a2b_base64(fields["$bytes"])
        if "$float" in fields:
            return _LITTLE_DOUBLE.unpack(a2b_base64(fields["$float"]))[0]
    return {name: _restored(item) for name, item in fields.items()}
