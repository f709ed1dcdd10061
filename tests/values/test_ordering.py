"""The order of values and the bytes that carry it into indexes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camber.values import AFTER_KEY, MISSING, Int64, compare, field_of, float_key, key_of, parts_reader
from tests.values.strategies import INT64_EXTREMES, any_floats, any_values, documents, float_of_bits

PARTS = any_values() | st.just(MISSING)

# One row of the picture in protocol 1.4, smallest first.
ASCENDING: list[Any] = [
    MISSING,
    None,
    *map(Int64, INT64_EXTREMES),
    float_of_bits(0xFFFFFFFFFFFFFFFF),
    float_of_bits(0xFFF8000000000000),
    float("-inf"),
    -1e308,
    -1.0,
    -5e-324,
    -0.0,
    0.0,
    5e-324,
    1.0,
    float("inf"),
    float_of_bits(0x7FF8000000000000),
    float_of_bits(0x7FF8000000000001),
    False,
    True,
    "",
    "\0",
    "\0\0",
    "\0a",
    "\x01",
    "a",
    "a\0",
    "a\0b",
    "ab",
    "é",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    b"",
    b"\0",
    b"\0\0",
    b"\0\xff",
    b"\x01",
    b"\xff",
    b"\xff\xff",
    [],
    [None],
    [None, None],
    [Int64(5)],
    ["a"],
    ["a", None],
    ["a\0"],
    [[]],
    [[], []],
    [[[]]],
    [{}],
    {},
    {"": None},
    {"": None, "a": 1.0},
    {"": 1.0},
    {"a": None},
    {"a": 1.0},
    {"a": 1.0, "b": 0.0},
    {"a": {}},
    {"aa": None},
    {"b": None},
]


def sign_of_keys(a: bytes, b: bytes) -> int:
    return (a > b) - (a < b)


@pytest.mark.parametrize(("smaller", "larger"), list(pairwise(ASCENDING)), ids=repr)
def test_neighbours_are_in_order(smaller: Any, larger: Any) -> None:
    assert compare(smaller, larger) == -1
    assert compare(larger, smaller) == 1
    assert key_of(smaller) < key_of(larger)


@given(a=PARTS, b=PARTS)
@settings(deadline=None, max_examples=500)
def test_keys_compare_as_values_do(a: Any, b: Any) -> None:
    assert sign_of_keys(key_of(a), key_of(b)) == compare(a, b)
    assert compare(a, b) == -compare(b, a)
    assert compare(a, a) == 0


@given(left=st.lists(PARTS, min_size=1, max_size=3), right=st.lists(PARTS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=300)
def test_keys_of_several_fields_compare_field_by_field(left: list[Any], right: list[Any]) -> None:
    pairs = zip(left, right, strict=False)
    expected = next(
        (sign for a, b in pairs if (sign := compare(a, b))), (len(left) > len(right)) - (len(left) < len(right))
    )

    assert sign_of_keys(b"".join(map(key_of, left)), b"".join(map(key_of, right))) == expected


@given(prefix=PARTS, other=PARTS, rest=st.lists(PARTS, min_size=1, max_size=2))
@settings(deadline=None, max_examples=300)
def test_the_keys_that_begin_with_a_part_are_one_range(prefix: Any, other: Any, rest: list[Any]) -> None:
    lower, upper = key_of(prefix), key_of(prefix) + AFTER_KEY
    whole = key_of(other) + b"".join(map(key_of, rest))

    assert (lower <= whole < upper) == (compare(prefix, other) == 0)


@given(value=PARTS)
@settings(deadline=None)
def test_a_key_begins_with_a_tag_that_no_mark_is(value: Any) -> None:
    assert 0x01 <= key_of(value)[0] <= 0x7F


@given(number=any_floats())
@settings(deadline=None)
def test_a_floats_key_has_nine_bytes(number: float) -> None:
    assert key_of(number) == float_key(number)
    assert len(float_key(number)) == 9


@given(document=documents(), data=st.data())
@settings(deadline=None)
def test_a_reader_puts_the_parts_behind_one_another(document: dict[str, Any], data: st.DataObject) -> None:
    names = st.sampled_from([*document, "nothing", "a.b", "a"])
    fields = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))

    assert parts_reader(fields)(document) == [key_of(field_of(document, path)) for path in fields]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", {"b": {"c": 1.0}, "n": None}),
        ("a.b", {"c": 1.0}),
        ("a.b.c", 1.0),
        ("a.n", None),
        ("a.n.x", MISSING),
        ("a.x", MISSING),
        ("list.0", MISSING),
        ("x.y", MISSING),
    ],
)
def test_a_dotted_path_leads_into_objects_only(path: str, expected: Any) -> None:
    document = {"a": {"b": {"c": 1.0}, "n": None}, "list": [1.0]}

    assert field_of(document, path) == expected


def test_a_plain_int_has_no_key() -> None:
    with pytest.raises(TypeError, match="normalize it first"):
        key_of(5)  # pyright: ignore[reportArgumentType]


def test_the_key_of_text_is_its_bytes_between_a_tag_and_an_end() -> None:
    assert key_of("é") == b"\x07\xc3\xa9\x00"
    assert key_of("a\0b") == b"\x07a\x00\xffb\x00"
    assert b"".join(parts_reader(["x", "y"])({"x": "a", "y": "b\0"})) == b"\x07a\x00\x07b\x00\xff\x00"
