"""values.json: encoding and decoding, as the published client does it and, where it differs, as the server does."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import pytest

from camber.errors import InvalidValueError
from camber.values import (
    MISSING,
    Int64,
    decode_document,
    decode_value,
    encode_document,
    encode_value,
    normalize,
    parse_json,
    size_of,
    to_json,
)
from tests.vectors.reading import cases, each, same

CASES = cases("values.json")


class _PlainObject:
    """Something that is neither a value nor like one."""


UNSUPPORTED: dict[str, object] = {
    "map": {("a", 1)},
    "function": len,
    "symbol": re.compile("s"),
    "class-instance": _PlainObject(),
    "uint8array": bytearray(b"\x01\x02"),
    "error": ValueError("x"),
}


def spelled(value: dict[str, Any]) -> Any:
    """The Python value of a spelled-out one."""
    match value["t"]:
        case "null":
            return None
        case "int64":
            return Int64(int(value["v"]))
        case "float64":
            return struct.unpack(">d", bytes.fromhex(value["bits"]))[0]
        case "boolean" | "string":
            return value["v"]
        case "bytes":
            return bytes.fromhex(value["hex"])
        case "array":
            return [spelled(item) for item in value["v"]]
        case "object":
            # JavaScript drops fields that are undefined before anything looks at them.
            return {name: spelled(item) for name, item in value["v"] if item["t"] != "undefined"}
        case "undefined":
            return MISSING
        case "unsupported":
            return UNSUPPORTED[value["what"]]
        case other:
            raise AssertionError(other)


def is_accepted(case: dict[str, Any]) -> bool:
    return case.get("backend", case)["accepted"]


def as_floats(recorded: Any) -> Any:
    """Recorded JSON with floats for its whole numbers, as they mean the same here."""
    return json.loads(json.dumps(recorded), parse_int=float)


@pytest.mark.parametrize("case", each([case for case in CASES if case["op"] == "encode"]))
def test_a_value_is_encoded_as_recorded(case: dict[str, Any]) -> None:
    if not is_accepted(case):
        with pytest.raises(InvalidValueError):
            normalize(spelled(case["value"]))
        return

    value = normalize(spelled(case["value"]))

    assert same(to_json(value), as_floats(case["json"]))
    assert same(json.loads(encode_value(value), parse_int=float), as_floats(case["json"]))
    assert size_of(value) == case["size"]
    assert same(decode_document(encode_document({"f": value})), {"f": value})


@pytest.mark.parametrize("case", each([case for case in CASES if case["op"] == "decode"]))
def test_json_is_decoded_as_recorded(case: dict[str, Any]) -> None:
    # The texts are about the decoder behind a JSON parser; what our own parser refuses before is in tests/values.
    text = case.get("jsonText")
    recorded = case["json"] if text is None else json.loads(text, parse_int=float)
    if not is_accepted(case):
        with pytest.raises(InvalidValueError):
            decode_value(recorded)
        return

    value = decode_value(recorded)

    assert same(value, spelled(case["value"]))
    assert same(to_json(value), as_floats(case["reencoded"]))
    assert size_of(value) == case["size"]


@pytest.mark.parametrize(
    "case", each([case for case in CASES if "jsonText" in case and case["jsonText"].count('"a"') < 2])
)
def test_our_parser_reads_the_recorded_texts(case: dict[str, Any]) -> None:
    assert same(decode_value(parse_json(case["jsonText"])), spelled(case["value"]))
    assert same(decode_value(parse_json(case["jsonText"].encode())), spelled(case["value"]))
