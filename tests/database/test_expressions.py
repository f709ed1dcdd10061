"""`field("tier") == "Gold"`: what an expression gives for a document, how it prints, and where it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber import MISSING, CamberError, DatabaseUsageError, Int64, QueryBuildError, field
from camber.database.expressions import Expression, as_expression
from camber.values import compare
from tests.values.strategies import any_values
from tests.vectors.reading import same

ADA = {"name": "ada", "age": 36.0, "visits": Int64(3), "deep": {"x": 1.0}, "vip": True, "none": None}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (field("name"), "ada"),
        (field("deep.x"), 1.0),
        (field("deep.y.z"), MISSING),
        (field("name.x"), MISSING),
        (field("nothing"), MISSING),
        (field("name") == "ada", True),
        (field("age") != 36, False),
        (field("visits") == 3, False),
        (field("visits") == Int64(3), True),
        (field("nothing") == MISSING, True),
        (field("none") == MISSING, False),
        (field("nothing") < None, True),
        (field("age") > field("visits"), True),
        (field("age") + 4, 40.0),
        (4 - field("age"), -32.0),
        (field("visits") * Int64(-2), Int64(-6)),
        (field("visits") / Int64(-2), Int64(-1)),
        (field("visits") % Int64(-2), Int64(1)),
        (-field("visits"), Int64(-3)),
        (field("age") / 0, math.inf),
        (-field("age") / 0, -math.inf),
        (field("age") / -0.0, -math.inf),
        (field("age") % 10, 6.0),
        (-field("age") % 10, -6.0),
        ((field("age") > 30) & (field("name") == "ada"), True),
        ((field("age") > 40) | field("vip"), True),
        (~field("vip"), False),
        (True & field("vip"), True),
    ],
    ids=repr,
)
def test_an_expression_gives(expression: Expression, value: Any) -> None:
    assert same(expression.evaluate(ADA), value)


@given(any_values() | st.just(MISSING), any_values() | st.just(MISSING))
def test_comparisons_follow_the_one_order_of_all_values(left: Any, right: Any) -> None:
    document = {} if left is MISSING else {"x": left}
    sign = compare(left, right)
    x = field("x")
    found = [(x == right), (x != right), (x < right), (x <= right), (x > right), (x >= right)]

    assert [one.evaluate(document) for one in found] == [sign == 0, sign != 0, sign < 0, sign <= 0, sign > 0, sign >= 0]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (field("name") + 1, r'Cannot add "ada" \(type string\) and 1\.0 \(type float64\)'),
        (field("age") + Int64(1), r"Cannot add 36\.0 \(type float64\) and 1n? \(type int64\)"),
        (field("nothing") * 2, "Cannot multiply a missing field and"),
        (-field("name"), "Cannot negate"),
        (field("visits") / Int64(0), "by zero"),
        (field("visits") % Int64(0), "by zero"),
        (field("visits") + Int64(2**63 - 1), "overflows"),
        (-as_expression(Int64(-(2**63))), "overflows"),
        (as_expression(Int64(-(2**63))) / Int64(-1), "overflows"),
        (field("name") & True, "takes booleans"),
        (~field("age"), "takes booleans"),
    ],
    ids=repr,
)
def test_what_can_not_be_worked_out_is_an_error(expression: Expression, message: str) -> None:
    with pytest.raises(DatabaseUsageError, match=message):
        expression.evaluate(ADA)


def test_and_and_or_look_at_no_more_than_they_need() -> None:
    broken = field("name") + 1 == 2

    assert (as_expression(False) & broken).evaluate(ADA) is False
    assert (as_expression(True) | broken).evaluate(ADA) is True


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: bool(field("a") == 1),
        lambda: 1 < field("a") < 3,
        lambda: field("a") == 1 and field("b") == 2,
        lambda: not field("a"),  # pyright: ignore[reportGeneralTypeIssues]
        lambda: field("a") in [1, 2],
        lambda: [1 for _ in [0] if field("a") > 1],  # pyright: ignore[reportGeneralTypeIssues]
    ],
)
def test_an_expression_has_no_truth_value(attempt: Callable[[], object]) -> None:
    with pytest.raises(DatabaseUsageError, match="has no truth value"):
        attempt()


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a.0", "a b", "$a", "é", "a" * 65, "___", "a\0"])
def test_what_is_no_path_is_refused_at_once(path: str) -> None:
    with pytest.raises(QueryBuildError) as refused:
        field(path)

    assert refused.value.rule == "InvalidFieldPath"


@pytest.mark.parametrize("value", [object(), float, 2**60, {1: 2}, {"$a": 1}, "\ud800", [MISSING]], ids=range(7))
def test_what_is_no_value_is_refused_at_once(value: object) -> None:
    with pytest.raises(CamberError):
        _ = field("a") == value


def test_an_expression_prints_as_it_is_written() -> None:
    expression = ((field("age") + 1 >= 37) & ~(field("name") == "x")) | (-field("visits") != MISSING)

    assert repr(expression) == (
        "((((field('age') + 1.0) >= 37.0) & ~(field('name') == \"x\")) | (-field('visits') != MISSING))"
    )
