"""ordering.json: the total order, as `compare` says it and as index keys carry it."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

import pytest

from camber.values import compare, field_of, key_of, parts_reader
from tests.vectors.reading import cases, each, value_of

CASES = cases("ordering.json")


def of_kind(kind: str) -> list[Any]:
    return each([case for case in CASES if case["kind"] == kind])


def order_of(keys: list[Any]) -> list[int]:
    return sorted(range(len(keys)), key=lambda position: keys[position])


@pytest.mark.parametrize("case", of_kind("compare"))
def test_two_values_compare_as_recorded(case: dict[str, Any]) -> None:
    a, b = value_of(case["a"]), value_of(case["b"])

    assert compare(a, b) == case["expected"]
    assert compare(b, a) == -case["expected"]
    assert (key_of(a) > key_of(b)) - (key_of(a) < key_of(b)) == case["expected"]


@pytest.mark.parametrize("case", of_kind("sort"))
def test_values_sort_as_recorded(case: dict[str, Any]) -> None:
    values = [value_of(value) for value in case["values"]]

    assert order_of(list(map(cmp_to_key(compare), values))) == case["order"]
    assert order_of(list(map(key_of, values))) == case["order"]


@pytest.mark.parametrize("case", of_kind("index"))
def test_rows_are_indexed_as_recorded(case: dict[str, Any]) -> None:
    rows = [value_of(row) for row in case["rows"]]
    read = parts_reader(case["fields"])

    assert order_of([b"".join(read(row)) for row in rows]) == case["order"]
    assert all(read(row) == [key_of(field_of(row, path)) for path in case["fields"]] for row in rows)
