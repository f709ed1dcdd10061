"""What is typed on a command line as JSON5, as JSON text for the wire (protocol 1.1)."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import NoReturn, cast

from camber.errors import ConfigurationError


def json_of(text: str, what: str) -> str:
    """The JSON text that says the same. Strict JSON stays as it is, so that the deployment judges it itself.

    `what` names it in the ConfigurationError that is raised for text that is no JSON5.
    """
    try:
        json.loads(text, parse_constant=_not_strict)
    except (ValueError, RecursionError):
        return _from_json5(text, what)
    return text


def _not_strict(constant: str) -> NoReturn:
    raise ValueError(constant)


def _from_json5(text: str, what: str) -> str:
    import json5

    try:
        found: object = json5.loads(text)
        return json.dumps(_on_the_wire(found), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{what} can't be read as JSON5: {error or 'nested too deeply'}\n  {text[:200]}"
        ) from error


def _on_the_wire(value: object) -> object:
    """Numbers that JSON lacks in the form that the wire has for them."""
    if isinstance(value, float) and (not math.isfinite(value) or repr(value) == "-0.0"):
        return {"$float": base64.b64encode(struct.pack("<d", value)).decode()}
    if isinstance(value, list):
        return [_on_the_wire(part) for part in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(name): _on_the_wire(part) for name, part in cast("dict[object, object]", value).items()}
    return value
