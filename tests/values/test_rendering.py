"""How values look in messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from camber.values import Int64, render
from tests.values.strategies import any_values


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (Int64(5), "5"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e22, "10000000000000000000000.0"),
        (1e-7, "0.0000001"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ('say "hi"\n', '"say \\"hi\\"\\n"'),
        ("é", '"é"'),
        (b"\x01\x02", 'b"AQI="'),
        ([1.0, "x"], '[1.0, "x"]'),
        ({"b": "x", "a": 1.0}, '{a: 1.0, b: "x"}'),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_each_kind_is_shown_as_in_convexs_messages(value: Any, shown: str) -> None:
    assert render(value) == shown


@given(value=any_values())
@settings(deadline=None)
def test_every_value_can_be_shown(value: Any) -> None:
    assert render(value)


def test_a_large_value_is_cut() -> None:
    shown = render("x" * 1_000_000)

    assert len(shown) < 9000
    assert shown.endswith("… (1000002 characters)")
