"""Values as the JSON that clients exchange (protocol 1.1), and reading JSON text that anyone may have written."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from itertools import repeat
from struct import Struct
from typing import Any, NoReturn

import msgspec

from camber.errors import InvalidValueError
from camber.values.faults import Fault, Invalid
from camber.values.kinds import Int64, Value, shortened, type_of
from camber.values.limits import (
    GOOD_NAMES,
    MAX_ARRAY_LENGTH,
    MAX_NESTING,
    MAX_OBJECT_FIELDS,
    MAX_VALUE_SIZE,
    TooNested,
    check_field_name,
    check_text,
    too_large,
    too_long_array,
    too_many_fields,
)
from camber.values.sizes import size_of
from camber.values.stored import is_special

MAX_JSON_NESTING = 200
"""Levels of any JSON text we read: those of a value, and room for what is around it."""

_MAX_FLOAT = 1.7976931348623157e308

_LITTLE_DOUBLE = Struct("<d")
_LITTLE_INT64 = Struct("<q")

_encode = msgspec.json.Encoder(order="sorted").encode
_decode_json = msgspec.json.Decoder().decode

_MINUS_ZERO = re.compile(r"-0(?![.eE0-9])")
_MINUS_ZERO_BYTES = re.compile(rb"-0(?![.eE0-9])")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


# --- Reading JSON text


def parse_json(text: bytes | str) -> Any:
    """JSON text as Python's dicts, lists, str, float, bool and None; whole numbers become floats too.

    Raises InvalidValueError, saying what and where, for text that is not UTF-8 or not JSON, for a name twice in an object,
    lone surrogates, numbers that no float64 can hold, and more than 200 levels.
    """
    try:
        parsed = _decode_json(text)
        names, parsed = _count_names(parsed, MAX_JSON_NESTING)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidValueError(_why_unreadable(text, error)) from None
    except (RecursionError, TooNested):
        raise InvalidValueError(f"JSON is too nested (more than {MAX_JSON_NESTING} levels deep)") from None
    except Fault as fault:
        raise fault.as_error() from None
    # Each name brings one colon; where there are more, some are inside texts or belong to a name that is there twice. The
    # decoder reads -0 as a whole number without a sign.
    if (text.count(b":") if isinstance(text, bytes) else text.count(":")) != names or _has_minus_zero(text):
        return _parse_slowly(text)
    return parsed


def _has_minus_zero(text: bytes | str) -> bool:
    if isinstance(text, bytes):
        return b"-0" in text and _MINUS_ZERO_BYTES.search(text) is not None
    return "-0" in text and _MINUS_ZERO.search(text) is not None


def _count_names(parsed: Any, room: int) -> tuple[int, Any]:
    """How many names the objects in it have together, and the same with floats for whole numbers."""
    kind = type_of(parsed)
    if kind is int:
        return 0, _json_float(parsed)
    if kind is dict:
        return _count_in_object(parsed, room)
    if kind is list:
        return _count_in_array(parsed, room)
    return 0, parsed


def _count_in_object(parsed: dict[str, Any], room: int) -> tuple[int, Any]:
    if room <= 0:
        raise TooNested
    names = len(parsed)
    name = ""
    try:
        for name, item in parsed.items():
            kind = type_of(item)
            if kind is dict or kind is list or kind is int:
                more, parsed[name] = _count_names(item, room - 1)
                names += more
    except Fault as fault:
        fault.below(name)
        raise
    return names, parsed


def _count_in_array(parsed: list[Any], room: int) -> tuple[int, Any]:
    if room <= 0:
        raise TooNested
    names = index = 0
    try:
        for index, item in enumerate(parsed):
            kind = type_of(item)
            if kind is dict or kind is list or kind is int:
                more, parsed[index] = _count_names(item, room - 1)
                names += more
    except Fault as fault:
        fault.steps.append(f"[{index}]")
        raise
    return names, parsed


def _json_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        raise Invalid(f"{shortened(number)} is larger than any float64") from None


def _parse_slowly(text: bytes | str) -> Any:
    """Text that is known to be good JSON of bounded depth, looking at each name of each object."""
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_int=float)
    except Fault as fault:
        raise fault.as_error() from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        doubled = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise Invalid(f"An object has the field {doubled[:60]!a} twice")
    return fields


def _why_unreadable(text: bytes | str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(text, error)
    if isinstance(error, UnicodeEncodeError) or _is_json_but_for_surrogates(text):
        return "JSON holds a lone surrogate, which is no Unicode character"
    detail = str(error).removeprefix("JSON is malformed: ")
    if "out of range" in detail:
        return "JSON holds a number that no float64 can hold"
    return f"Not valid JSON: {detail[:1].lower()}{detail[1:]}"


def _not_utf8(text: bytes | str, error: UnicodeDecodeError) -> str:
    # The decoder's own position counts from the beginning of one text inside the JSON.
    try:
        text.decode() if isinstance(text, bytes) else text.encode()
    except UnicodeDecodeError as whole:
        error = whole
    return f"JSON is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"


def _is_json_but_for_surrogates(text: bytes | str) -> bool:
    try:
        readable = text.decode() if isinstance(text, bytes) else text
        if not _SURROGATE_ESCAPE.search(readable):
            return False
        json.loads(readable, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


# --- From JSON to values


def decode_value(json: object, *, measure: bool = True) -> Value:
    """The value that this JSON stands for (protocol 1.1), in its normal form and in fresh containers.

    Without `measure` its size is not looked at, for callers who know that the text it comes from is short.

    Raises InvalidValueError, with the path, for what no client may send: malformed special objects, field names, lone surrogates,
    more than 64 levels, arrays, objects and values that are too large.
    """
    try:
        value = _decoded(json, MAX_NESTING)
        if measure and (size := size_of(value)) > MAX_VALUE_SIZE:
            raise too_large(size, MAX_VALUE_SIZE)
    except Fault as fault:
        raise fault.as_error() from None
    return value


def _decoded(value: Any, room: int) -> Any:
    kind = type_of(value)
    if kind is str:
        if not value.isascii():
            check_text(value)
        return value
    if kind is float:
        if -_MAX_FLOAT <= value <= _MAX_FLOAT:
            return value
        raise Invalid(f"{value} is no JSON number")
    if kind is bool or value is None:
        return value
    if kind is dict:
        return _decoded_object(value, room)
    if kind is list:
        return _decoded_array(value, room)
    if kind is int:
        return _json_float(value)
    raise Invalid(f"{kind.__name__} is no JSON")


def _decoded_object(fields: dict[str, Any], room: int) -> Any:
    if len(fields) == 1 and "$" in (name := next(iter(fields)))[:1]:
        return _decoded_special(name, fields[name])
    if room <= 0:
        raise TooNested
    if len(fields) > MAX_OBJECT_FIELDS:
        raise too_many_fields(len(fields))
    room -= 1
    value: dict[str, Any] = {}
    name: Any = ""
    try:
        for name, item in fields.items():
            if name not in GOOD_NAMES:
                check_field_name(name)
            if type(item) is str and item.isascii():
                value[name] = item
            else:
                value[name] = _decoded(item, room)
    except Fault as fault:
        fault.below(name)
        raise
    return value


def _decoded_array(items: list[Any], room: int) -> list[Any]:
    if room <= 0:
        raise TooNested
    if len(items) > MAX_ARRAY_LENGTH:
        raise too_long_array(len(items))
    room -= 1
    value: list[Any] = []
    try:
        # Element by element: where it stops, the length says at which.
        value.extend(map(_decoded, items, repeat(room)))
    except Fault as fault:
        fault.steps.append(f"[{len(value)}]")
        raise
    return value


def _decoded_special(name: str, content: Any) -> Any:
    if name == "$integer":
        number: int = _LITTLE_INT64.unpack(_eight_bytes(name, content))[0]
        return int.__new__(Int64, number)
    if name == "$float":
        return _special_float(_LITTLE_DOUBLE.unpack(_eight_bytes(name, content))[0])
    if name == "$bytes":
        return _base64(name, content)
    return _refuse_name(name)


def _refuse_name(name: str) -> NoReturn:
    check_field_name(name)
    raise AssertionError("a name that begins with $ is never good")


def _special_float(number: float) -> float:
    # +0 is let through because Convex does (protocol 1.1).
    if number != 0.0 and not is_special(number):
        raise Invalid(f"Float {number!r} should be encoded as a number")
    return number


def _eight_bytes(name: str, content: Any) -> bytes:
    data = _base64(name, content)
    if len(data) != 8:
        raise Invalid(f"Received {len(data)} bytes, expected 8 for {name}")
    return data


def _base64(name: str, content: Any) -> bytes:
    if type(content) is not str:
        raise Invalid(f"Malformed {name} field: its content must be base64 text")
    try:
        data = binascii.a2b_base64(content, strict_mode=True)
    except ValueError:
        raise Invalid(f"Malformed {name} field: its content is not valid base64") from None
    # Left-over bits would give two spellings of the same bytes.
    if binascii.b2a_base64(data, newline=False).decode() != content:
        raise Invalid(f"Malformed {name} field: its content is not valid base64")
    return data


# --- From values to JSON


def encode_value(value: Value) -> bytes:
    """The value as convex_encoded_json text: compact, names sorted, so that equal values give equal bytes."""
    return _encode(_json_of(value))


def encode_text(text: str) -> bytes:
    """A text of the engine's own as JSON, whatever it holds."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        # Half a surrogate pair, as Python has it in texts about odd file names: it is no Unicode text and can't be sent.
        return _encode(text.encode("utf-8", "replace").decode())


def to_json(value: Value) -> Any:
    """What `encode_value` writes, as Python's dicts, lists and so on."""
    return _json_of(value)


def encode_clean(value: Value) -> bytes:
    """The value in the format `json` of protocol 4.3: int64 as decimal text, bytes as base64, special floats by name."""
    return _encode(_clean(value))


def _json_of(value: Any) -> Any:
    kind = type_of(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is float:
        return value if value and value - value == 0.0 else _json_of_rare_float(value)
    if kind is dict:
        return _json_of_fields(value)
    if kind is list:
        return [_json_of(item) for item in value]
    if kind is Int64:
        return {"$integer": _base64_text(_LITTLE_INT64.pack(value))}
    if kind is bytes:
        return {"$bytes": _base64_text(value)}
    raise TypeError(f"{kind.__name__} can't be encoded: normalize it first")


def _json_of_fields(fields: dict[str, Any]) -> dict[str, Any]:
    for item in fields.values():
        kind = type_of(item)
        if kind is str or kind is bool or item is None or (kind is float and item and item - item == 0.0):
            continue
        return {name: _json_of(item) for name, item in fields.items()}
    return fields.copy()


def _json_of_rare_float(value: float) -> Any:
    return {"$float": _base64_text(_LITTLE_DOUBLE.pack(value))} if is_special(value) else value


def _base64_text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _clean_float(value: float) -> Any:
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


_CLEAN: dict[type[object], Callable[[Any], Any]] = {
    float: _clean_float,
    Int64: lambda number: str(int(number)),
    bytes: _base64_text,
    list: lambda items: [_clean(item) for item in items],
    dict: lambda fields: {name: _clean(item) for name, item in fields.items()},
}


def _clean(value: Any) -> Any:
    clean = _CLEAN.get(type_of(value))
    return clean(value) if clean else value
