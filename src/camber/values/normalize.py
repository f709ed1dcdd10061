"""The normal form of what Python code hands us: whole numbers become floats, tuples lists, and every rule is checked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, cast

from camber.values.faults import Fault, Invalid
from camber.values.kinds import (
    INT64_MAX,
    INT64_MIN,
    UNSET,
    WHOLE_LIMIT,
    Int64,
    Missing,
    Unset,
    Value,
    shortened,
    type_of,
)
from camber.values.limits import (
    MAX_ARRAY_LENGTH,
    MAX_DOCUMENT_NESTING,
    MAX_DOCUMENT_SIZE,
    MAX_NESTING,
    MAX_OBJECT_FIELDS,
    MAX_VALUE_SIZE,
    SYSTEM_FIELDS,
    TooNested,
    check_field_name,
    check_text,
    too_large,
    too_long_array,
    too_many_fields,
)
from camber.values.sizes import SYSTEM_FIELDS_SIZE, nesting_of, size_of
from camber.values.stored import encode_document

_ONLY_TEXT = frozenset({str})
_HINTS = {
    "datetime": "store milliseconds since the epoch, a float",
    "date": "store milliseconds since the epoch, or text",
    "Decimal": "store a float, or text",
    "UUID": "store its text",
    "bytearray": "wrap it in bytes(...)",
    "memoryview": "wrap it in bytes(...)",
    "set": "store a sorted list",
    "frozenset": "store a sorted list",
}


def normalize(value: object, *, max_nesting: int = MAX_NESTING) -> Value:
    """The value in its normal form, in fresh containers.

    A plain int becomes a float64. Raises InvalidValueError, with the path, for anything that is no Convex value or beyond a
    limit of protocol 1.2 or 1.3.
    """
    try:
        normal = normal_value(value, max_nesting)
        size = size_of(normal)
        if size > MAX_VALUE_SIZE:
            raise too_large(size, MAX_VALUE_SIZE)
    except TooNested as fault:
        raise fault.within(max_nesting).as_error() from None
    except Fault as fault:
        raise fault.as_error() from None
    return normal


def normalize_document(value: object) -> dict[str, Value]:
    """A document in its normal form: an object under the rules for stored ones (names, 16 levels, 1 MiB).

    `_id` and `_creationTime` may be among the fields; no other name may begin with an underscore. Raises InvalidValueError.
    """
    return prepare_document(value)[0]


def prepare_document(value: object) -> tuple[dict[str, Value], str, int]:
    """What `normalize_document` gives, its stored form, and its size in bytes together with its two system fields."""
    try:
        document = _document(value)
        return document, *encode_and_measure(document)
    except Fault as fault:
        raise fault.as_error() from None


def encode_and_measure(document: dict[str, Value]) -> tuple[str, int]:
    """The stored form, and the size with the two system fields, counted whether they are there or not.

    Raises Invalid above 1 MiB.
    """
    text = encode_document(document)
    if document and text.isascii() and "\\" not in text and _ONLY_TEXT.issuperset(map(type, document.values())):
        # Each `"name":"value",` is six more than what it holds, and Convex counts three more; the braces are one more.
        size = len(text) + 1 - 3 * len(document)
    else:
        size = size_of(document)
    if "_id" not in document:
        size += SYSTEM_FIELDS_SIZE
    if size > MAX_DOCUMENT_SIZE:
        raise too_large(size, MAX_DOCUMENT_SIZE)
    return text, size


def check_document_nesting(document: dict[str, Value]) -> None:
    """Raise Invalid above 16 levels."""
    if (levels := nesting_of(document)) > MAX_DOCUMENT_NESTING:
        raise Invalid(f"Document is too nested (nested {levels} levels deep > maximum nesting {MAX_DOCUMENT_NESTING})")


def _document(value: object) -> dict[str, Value]:
    if not isinstance(value, Mapping):
        raise Invalid(f"Value must be an Object, not {type(value).__name__}")
    try:
        document = normal_object(cast("Mapping[object, object]", value), MAX_DOCUMENT_NESTING)
    except TooNested:
        document = normal_object(cast("Mapping[object, object]", value), MAX_NESTING)
        check_document_nesting(document)
    for name in document:
        if name.startswith("_") and name not in SYSTEM_FIELDS:
            raise Invalid(
                f"Field '{name}' starts with an underscore, which is only allowed for system fields like '_id'"
            )
    return document


def normal_value(value: Any, room: int) -> Any:
    """The walk behind `normalize`: `room` levels may follow. Raises Fault."""
    kind = type_of(value)
    if kind is str:
        if not value.isascii():
            check_text(value)
        return value
    if kind is float or kind is bool or value is None or kind is Int64 or kind is bytes:
        return value
    if kind is dict:
        return normal_object(value, room)
    if kind is list or kind is tuple:
        return _normal_array(value, room)
    if kind is int:
        return float_of(value)
    return _normal_other(value, room)


def normal_object(value: Mapping[Any, Any], room: int) -> dict[str, Any]:
    """An object in its normal form, its names checked. Raises Fault."""
    if room <= 0:
        raise TooNested
    if len(value) > MAX_OBJECT_FIELDS:
        raise too_many_fields(len(value))
    room -= 1
    normal: dict[str, Any] = {}
    name: Any = ""
    try:
        for name, item in value.items():
            check_field_name(name)
            kind = type_of(item)
            if kind is float or (kind is str and item.isascii()):
                normal[name] = item
            else:
                normal[name] = normal_value(item, room)
    except Fault as fault:
        fault.below(name)
        raise
    return normal


def _normal_array(value: list[Any] | tuple[Any, ...], room: int) -> list[Any]:
    if room <= 0:
        raise TooNested
    if len(value) > MAX_ARRAY_LENGTH:
        raise too_long_array(len(value))
    room -= 1
    normal: list[Any] = []
    try:
        # Element by element: where it stops, the length says at which.
        normal.extend(map(normal_value, value, repeat(room)))
    except Fault as fault:
        fault.steps.append(f"[{len(normal)}]")
        raise
    return normal


def _normal_other(value: object, room: int) -> Any:
    """Subclasses become the type they extend; the rest is refused with a hint where we have one."""
    if isinstance(value, (str, float, int, bytes)):
        return normal_value(plain(value), room)
    if isinstance(value, (list, tuple)):
        return _normal_array(list(cast("list[object]", value)), room)
    if isinstance(value, Mapping):
        return normal_object(cast("Mapping[object, object]", value), room)
    raise no_value(value)


def plain(value: str | float | int | bytes) -> str | float | int | bytes:
    """A subclass's content as the type it extends: an Enum's text, numpy's float64."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return bytes(memoryview(value))


def no_value(value: object) -> Invalid:
    """The refusal of something that is no Convex value."""
    if isinstance(value, (Missing, Unset)):
        where = "the fields of a patch" if value is UNSET else "index ranges and filters"
        return Invalid(f"{value!r} is no Convex value; it belongs into {where}")
    name = type(value).__name__
    hint = f"; {_HINTS[name]}" if name in _HINTS else ""
    return Invalid(f"{name} is not a supported Convex type{hint}")


def float_of(value: int) -> float:
    """Convex's number for a plain int. Raises Invalid where a float64 can't hold each whole number."""
    if -WHOLE_LIMIT <= value <= WHOLE_LIMIT:
        return float(value)
    raise Invalid(f"{shortened(value)} is too large for a number (beyond 2^53); use a float, or Int64 for an int64")


def int64_of(value: int) -> Int64:
    """An int64 for a plain int. Raises Invalid out of range."""
    if INT64_MIN <= value <= INT64_MAX:
        return int.__new__(Int64, value)
    raise Invalid(f"{shortened(value)} does not fit into a 64-bit signed integer")
