"""How values look in messages to people (protocol 2.3)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, cast

from msgspec import json

from camber.values.faults import Invalid
from camber.values.kinds import WHOLE_LIMIT, Int64, Value
from camber.values.limits import MAX_NESTING, TooNested, check_text
from camber.values.normalize import int64_of, no_value, plain
from camber.values.stored import positional

_LONGEST = 8192
"""Letters of a value shown in a message: enough for anyone's eyes, and a message stays small when the value is not."""


def render(value: Value) -> str:
    """`null`, `5`, `5.0`, `"text"`, `b"<base64>"`, `[1.0, "x"]`, `{a: 1.0}`, with fields by name; cut after 8,192 letters."""
    return shown(value)


def shown(value: object) -> str:
    """The same for what Python code handed us and may be no Convex value, which raises Fault."""
    text = _rendered(value, MAX_NESTING)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def render_float(value: float) -> str:
    """Always with a point, unless it is NaN or infinite."""
    if value - value == 0.0:
        return positional(value)
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def render_text(value: str) -> str:
    """Text in double quotes, with JSON's escapes."""
    check_text(value)
    return json.encode(value).decode()


def _rendered(value: Any, room: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Int64):
        return int.__repr__(value)
    if isinstance(value, int):
        return render_float(float(value)) if -WHOLE_LIMIT <= value <= WHOLE_LIMIT else int.__repr__(int64_of(value))
    if isinstance(value, float):
        return render_float(float.__float__(value))
    if isinstance(value, str):
        return render_text(str.__str__(value))
    if isinstance(value, bytes):
        return f'b"{b2a_base64(cast("bytes", plain(value)), newline=False).decode()}"'
    if not isinstance(value, (list, tuple, Mapping)):
        raise no_value(value)
    return _rendered_container(cast("list[Any] | Mapping[Any, Any]", value), room)


def _rendered_container(value: list[Any] | Mapping[Any, Any], room: int) -> str:
    if room <= 0:
        raise TooNested
    room -= 1
    if not isinstance(value, Mapping):
        return f"[{', '.join([_rendered(item, room) for item in value])}]"
    for name in value:
        if not isinstance(name, str):
            raise Invalid(f"Field names are text, not {type(name).__name__}: {str(name)[:60]}")
    return f"{{{', '.join([f'{name}: {_rendered(value[name], room)}' for name in sorted(value)])}}}"
