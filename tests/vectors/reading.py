"""Reading the recorded vectors: their JSON tokens as camber's values (README.md says what each token stands for).

What a token like `{"$docId": 3}` stands for is known only while a case runs: such tokens are given as functions.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from camber.values import MISSING, Int64

HERE = Path(__file__).parent

Token = Callable[[Any], Any]
"""From what a token holds to the value it stands for."""

_UNDEFINED = {"$undefined": None}


def cases(file: str) -> list[dict[str, Any]]:
    """All cases of one file, like `values.json`."""
    return json.loads((HERE / file).read_text(encoding="utf-8"))["cases"]


def each(found: list[dict[str, Any]]) -> list[Any]:
    """The cases as parameters of one test, each under its name."""
    return [pytest.param(case, id=_readable(case["name"], at)) for at, case in enumerate(found)]


def _readable(name: str, at: int) -> str:
    # Names hold quotes, brackets and every script; the number tells apart what is cut.
    plain = "".join(character if character.isascii() and character.isprintable() else "?" for character in name)
    return f"{at}: {plain[:70]}"


def value_of(recorded: Any, tokens: Mapping[str, Token] | None = None) -> Any:
    """The value that recorded JSON stands for, built without any checks.

    `{"$undefined": null}` is MISSING, except as the field of an object, where it is dropped as JavaScript drops it. `tokens` says what
    further one-key objects stand for.
    """
    tokens = tokens or {}
    if isinstance(recorded, dict):
        if len(recorded) == 1:
            ((name, content),) = recorded.items()
            if name in tokens:
                return tokens[name](content)
            if name in _TOKENS:
                return _TOKENS[name](content)
        return {name: value_of(item, tokens) for name, item in recorded.items() if item != _UNDEFINED}
    if isinstance(recorded, list):
        return [value_of(item, tokens) for item in recorded]
    if isinstance(recorded, int) and not isinstance(recorded, bool):
        return float(recorded)
    return recorded


def patch_of(recorded: dict[str, Any], unset: object, tokens: Mapping[str, Token] | None = None) -> dict[str, Any]:
    """The fields of a patch: at the top level `{"$undefined": null}` means that the field is to be removed."""
    return {name: unset if item == _UNDEFINED else value_of(item, tokens) for name, item in recorded.items()}


def same(left: Any, right: Any) -> bool:
    """Equal bit for bit: NaN and -0 included, a number is no boolean, an int64 no float64."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    return left == right


def _decoded(content: str) -> bytes:
    return base64.b64decode(content)


_TOKENS: dict[str, Token] = {
    "$undefined": lambda _: MISSING,
    "$integer": lambda content: Int64(int.from_bytes(_decoded(content), "little", signed=True)),
    "$float": lambda content: struct.unpack("<d", _decoded(content))[0],
    "$bytes": _decoded,
}
