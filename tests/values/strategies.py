"""What hypothesis draws: values of every kind, with the awkward ones often."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from camber.values import Int64

INT64_EXTREMES = [-(2**63), -(2**63) + 1, -(2**53) - 1, -1, 0, 1, 2**53 + 1, 2**63 - 2, 2**63 - 1]

FLOAT_BITS = [
    0x0000000000000000,  # 0
    0x8000000000000000,  # -0
    0x0000000000000001,  # the smallest number above 0
    0x8000000000000001,
    0x7FF0000000000000,  # Infinity
    0xFFF0000000000000,
    0x7FF8000000000000,  # NaN
    0xFFF8000000000000,  # NaN with a sign
    0x7FF8000000000001,  # NaN with a payload
    0xFFFFFFFFFFFFFFFF,
    0x7FEFFFFFFFFFFFFF,  # the largest number
    0x4480F0CF064DD592,  # 1e22, which Python writes with an exponent
    0x3EE4F8B588E368F1,  # 1e-5
    0x4341C37937E08000,  # 1e16
]


def brief(value: object) -> str:
    """A parameter as part of a test's name, which a value of megabytes must not be, nor an address: each worker has another."""
    text = ascii(value)[:50]
    return type(value).__name__ if " at 0x" in text else text


def float_of_bits(bits: int) -> float:
    return struct.unpack(">d", bits.to_bytes(8, "big"))[0]


def any_texts() -> st.SearchStrategy[str]:
    awkward = st.sampled_from(
        ["", "\0", "a\0", "a\0b", "\x7f", "\u2028", "\uffff", "😀", "\U0010ffff", '"\\/', "\n", "{}:,-0"]
    )
    return awkward | st.text(st.characters(codec="utf-8"), max_size=8)


def int64s() -> st.SearchStrategy[Int64]:
    return (st.sampled_from(INT64_EXTREMES) | st.integers(-(2**63), 2**63 - 1)).map(Int64)


def any_floats() -> st.SearchStrategy[float]:
    every_bit_pattern = st.integers(0, 2**64 - 1).map(float_of_bits)
    return st.sampled_from(FLOAT_BITS).map(float_of_bits) | every_bit_pattern | st.floats()


def any_bytes() -> st.SearchStrategy[bytes]:
    return st.sampled_from([b"", b"\0", b"\0\xff", b"\xff", b"\0\0"]) | st.binary(max_size=8)


def field_names() -> st.SearchStrategy[str]:
    printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
    return (st.sampled_from(["", "a", "b", "aa", "_id", "with space"]) | st.text(printable, max_size=5)).filter(
        lambda name: not name.startswith("$")
    )


def scalars() -> st.SearchStrategy[Any]:
    return st.none() | st.booleans() | int64s() | any_floats() | any_texts() | any_bytes()


def any_values() -> st.SearchStrategy[Any]:
    """Values in their normal form."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names(), inner, max_size=4),
        max_leaves=12,
    )


def documents() -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(field_names().filter(lambda name: not name.startswith("_")), any_values(), max_size=6)
