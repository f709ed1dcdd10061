"""Values as the JSON that clients exchange."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from camber.errors import InvalidValueError
from camber.values import Int64, decode_value, encode_clean, encode_value, parse_json, to_json
from tests.values.strategies import any_values, brief, float_of_bits
from tests.vectors.reading import same


@given(value=any_values())
@settings(deadline=None, max_examples=300)
def test_every_value_survives_the_way_to_a_client_and_back(value: Any) -> None:
    assert same(decode_value(parse_json(encode_value(value))), value)
    assert same(decode_value(to_json(value)), value)


@given(value=any_values())
@settings(deadline=None)
def test_names_are_sorted_so_that_equal_values_have_equal_bytes(value: Any) -> None:
    def turned(item: Any) -> Any:
        if isinstance(item, dict):
            return {name: turned(inner) for name, inner in reversed(item.items())}
        return [turned(inner) for inner in item] if isinstance(item, list) else item

    assert encode_value(turned(value)) == encode_value(value)


def test_encoding_is_compact_utf8() -> None:
    assert encode_value({"b": [1.5, None], "a": "é\0"}) == '{"a":"é\\u0000","b":[1.5,null]}'.encode()


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (Int64(-(2**63)), '"-9223372036854775808"'),
        (b"\x01\x02", '"AQI="'),
        (float("nan"), '"NaN"'),
        (float("inf"), '"Infinity"'),
        (float("-inf"), '"-Infinity"'),
        ({"a": [Int64(5), 1.5, True, None, "x"]}, '{"a":["5",1.5,true,null,"x"]}'),
    ],
)
def test_clean_json_has_no_special_objects(value: Any, clean: str) -> None:
    assert encode_clean(value) == clean.encode()


@pytest.mark.parametrize(
    ("json_value", "problem", "path"),
    [
        ({"a": [{"$integer": "AAA="}]}, "Received 2 bytes, expected 8 for \\$integer", ".a[0]"),
        ({"$integer": 5.0}, "Malformed \\$integer", ""),
        ({"$bytes": "AB=="}, "not valid base64", ""),
        ({"$bytes": "A A="}, "not valid base64", ""),
        ({"$bytes": "AAAA\n"}, "not valid base64", ""),
        ({"$bytes": "éé=="}, "not valid base64", ""),
        ({"$float": "AAAAAAAA8D8="}, "Float 1.0 should be encoded as a number", ""),
        ({"a": {"$set": []}}, "starts with a '\\$', which is reserved", ".a"),
        ({"a": {"$commitTs": None}}, "starts with a '\\$', which is reserved", ".a"),
        ({"$bytes": "", "a": 1.0}, "starts with a '\\$', which is reserved", ".$bytes"),
        ({"é": 1.0}, "has invalid character '\\\\xe9'", ".é"),
        ({"a" * 1025: 1.0}, "is too long \\(1025 > maximum length 1024\\)", "." + "a" * 100),
        ({"a": ["x\ud800"]}, "lone surrogate '\\\\ud800' at position 1", ".a[0]"),
        ([0.0] * 8193, "Array length is too long \\(8193 > maximum length 8192\\)", ""),
        ({f"f{at}": 0.0 for at in range(1025)}, "Object has too many fields \\(1025 > maximum number 1024\\)", ""),
        ([float("inf")], "inf is no JSON number", "[0]"),
        ([10**400], "larger than any float64", "[0]"),
        ([b"x"], "bytes is no JSON", "[0]"),
    ],
    ids=brief,
)
def test_what_no_client_may_send_is_refused_with_its_path(json_value: Any, problem: str, path: str) -> None:
    with pytest.raises(InvalidValueError, match=problem) as refused:
        decode_value(json_value)
    assert refused.value.path == path


def nested(levels: int, innermost: Any = 1.0) -> Any:
    value = innermost
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_a_value_has_64_levels_at_most() -> None:
    assert decode_value(nested(64)) == nested(64)
    assert decode_value(nested(64, {"$integer": "AQAAAAAAAAA="})) == nested(64, Int64(1))
    for levels in (65, 199, 10_000):
        with pytest.raises(InvalidValueError, match="nested 65 levels deep > maximum nesting 64"):
            decode_value(nested(levels))


def test_a_value_above_32_mib_is_refused() -> None:
    assert decode_value(["x" * (4 << 20)] * 7) is not None
    with pytest.raises(InvalidValueError, match="maximum size 32 MiB"):
        decode_value(["x" * (4 << 20)] * 8)


def test_a_name_of_megabytes_does_not_come_back_in_the_error() -> None:
    with pytest.raises(InvalidValueError) as refused:
        decode_value({"é" * 5_000_000: 1.0})
    assert len(str(refused.value)) < 500


def test_the_floats_of_javascript_are_plain_json_numbers() -> None:
    assert json.loads(encode_value([1e22, 5e-324, float_of_bits(0x7FEFFFFFFFFFFFFF)])) == [
        1e22,
        5e-324,
        1.7976931348623157e308,
    ]


def test_containers_are_fresh() -> None:
    recorded = {"a": [1.0]}
    decoded: Any = decode_value(recorded)
    encoded = to_json(decoded)

    encoded["a"].append(2.0)
    decoded["a"].append(3.0)

    assert recorded == {"a": [1.0]}
    assert decoded == {"a": [1.0, 3.0]}
