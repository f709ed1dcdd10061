"""JSON text that anyone may have written."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camber.errors import InvalidValueError
from camber.values import parse_json
from tests.values.strategies import any_texts, brief
from tests.vectors.reading import same


@pytest.mark.parametrize("text", ["5", " 5 ", "5.0", "50e-1", "0.5E1"])
def test_every_number_is_a_float(text: str) -> None:
    assert same(parse_json(text), 5.0)
    assert same(parse_json(f'{{"a":[{text}]}}'.encode()), {"a": [5.0]})


@pytest.mark.parametrize("text", ["-0", "[-0]", '{"a": -0}', '{"a":[{"b":-0}]}'])
def test_minus_zero_keeps_its_sign(text: str) -> None:
    assert "-0.0" in repr(parse_json(text))
    assert "-0.0" in repr(parse_json(text.encode()))


def test_whole_numbers_are_rounded_as_floats_are() -> None:
    assert parse_json("9007199254740993") == 2**53
    assert parse_json("1" + "0" * 300) == 1e300


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400, "-1" + "0" * 400, "9" * 5000], ids=brief)
@pytest.mark.parametrize("around", ["{}", '[1, {{"a": {}}}]'])
def test_a_number_that_no_float_can_hold_is_refused(number: str, around: str) -> None:
    with pytest.raises(InvalidValueError, match="float64"):
        parse_json(around.format(number))


@pytest.mark.parametrize(
    ("text", "name"), [('{"a":1,"a":2}', "a"), ('[{"b":{"x:y":1,"c":2,"x:y":3}}]', "x:y"), ('{"a":1,"\\u0061":2}', "a")]
)
def test_a_name_twice_in_an_object_is_refused(text: str, name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"An object has the field '{name}' twice"):
        parse_json(text)


def test_colons_in_text_are_no_names() -> None:
    assert parse_json('{"url":"http://x:80","t":["12:30"],"a:b":{"c":":"}}') == {
        "url": "http://x:80",
        "t": ["12:30"],
        "a:b": {"c": ":"},
    }


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a":"\\udc00x"}', '{"\\ud800":1}', '"\ud800"'])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="lone surrogate"):
        parse_json(text)


@pytest.mark.parametrize("text", [b'"\xff"', b'{"\xff":1}', b'["\xed\xa0\x80"]', b'"\xc3'])
def test_bytes_that_are_not_utf8_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidValueError, match=r"not UTF-8|Not valid JSON"):
        parse_json(text)


def test_the_byte_that_is_not_utf8_is_named() -> None:
    with pytest.raises(InvalidValueError, match="byte 0xff at position 7"):
        parse_json(b'{"a": "\xff"}')


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("levels", [201, 10_000, 300_000])
def test_deep_json_is_refused(opening: str, levels: int) -> None:
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    for text in (opening * levels + "1" + closing * levels, opening * levels):
        with pytest.raises(InvalidValueError, match=r"too nested|Not valid JSON"):
            parse_json(text)


def test_json_of_200_levels_is_read() -> None:
    parsed = parse_json("[" * 200 + "]" * 200)

    for _ in range(199):
        (parsed,) = parsed
    assert parsed == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nul",
        "{",
        '{"a"}',
        "[1,]",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "Infinity",
        "-Infinity",
        "'a'",
        "5 6",
        '"\t"',
        "\ufeff5",
    ],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(InvalidValueError, match="Not valid JSON"):
            parse_json(form)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | any_texts(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_texts(), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSON_VALUES, ascii_only=st.booleans())
@settings(deadline=None)
def test_what_python_writes_is_read_back(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)

    assert same(parse_json(text), value)
    assert same(parse_json(text.encode()), value)


@given(text=st.binary(max_size=40) | st.text('{}[]:,"\\0123456789-+.eEtrufalsn u\ud800', max_size=30))
@settings(deadline=None, max_examples=500)
def test_any_text_is_read_or_refused(text: bytes | str) -> None:
    try:
        parsed = parse_json(text)
    except InvalidValueError:
        return
    # What Python's more lenient parser makes of it is the same, as long as it has no name twice.
    assert same(parsed, json.loads(text, parse_int=float))
    assert not isinstance(parsed, float) or math.isfinite(parsed)
