"""The formats in which values travel over HTTP (protocol 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from camber.errors import RequestError
from camber.values import decode_value, encode_clean, encode_document, parse_json


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """One way to write a value; `rewrite` turns convex_encoded_json text, the form functions answer in, into it."""

    name: str
    rewrite: Callable[[bytes], bytes]


def _unchanged(text: bytes) -> bytes:
    return text


def _clean(text: bytes) -> bytes:
    return encode_clean(decode_value(parse_json(text)))


def _export(text: bytes) -> bytes:
    # The stored form is defined for documents: the value is written as a document's only field and cut out of it.
    return encode_document({"v": decode_value(parse_json(text))})[len('{"v":') : -len("}")].encode()


ENCODED: Final = Format("convex_encoded_json", _unchanged)
CLEAN: Final = Format("json", _clean)
EXPORT: Final = Format("export_json", _export)

_BY_NAME: Final = {
    "convex_encoded_json": ENCODED,
    "convex_json": ENCODED,
    "json": CLEAN,
    "convex_clean_json": CLEAN,
    "export_json": EXPORT,
}


def format_named(name: str) -> Format:
    """The format of this name or alias. Raises RequestError 400 `BadFormat`."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise RequestError(400, "BadFormat", f"format param must be one of [`json`]. Got {name}") from None
