"""What Python code hands us, in its normal form or refused."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings

from camber.errors import InvalidValueError
from camber.values import MISSING, UNSET, Int64, nesting_of, normalize, normalize_document, prepare_document, size_of
from tests.values.strategies import any_values, brief
from tests.vectors.reading import same


class Celsius(float):
    pass


class Tier(enum.StrEnum):
    GOLD = "gold"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: float
    y: float


@given(value=any_values())
@settings(deadline=None)
def test_a_value_in_its_normal_form_stays_as_it_is(value: Any) -> None:
    assert same(normalize(value), value)


@pytest.mark.parametrize(
    ("given_value", "normal"),
    [
        (5, 5.0),
        (-(2**53), -(2.0**53)),
        (True, True),
        (Int64(5), Int64(5)),
        ((1, "a"), [1.0, "a"]),
        (Point(1.0, 2.0), [1.0, 2.0]),
        (Celsius(1.5), 1.5),
        (Tier.GOLD, "gold"),
        (Level.HIGH, 3.0),
        (OrderedDict(a=1), {"a": 1.0}),
        (MappingProxyType({"a": (1,)}), {"a": [1.0]}),
        ({"": None}, {"": None}),
    ],
)
def test_relatives_of_values_become_values(given_value: object, normal: object) -> None:
    assert same(normalize(given_value), normal)
    assert same(normalize({"a": [given_value]}), {"a": [normal]})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (2**53 + 1, "too large for a number.*Int64"),
        (-(2**53) - 1, "too large for a number"),
        (10**4_000, "a whole number of 13288 bits is too large"),
        ({1}, "set is not a supported Convex type; store a sorted list"),
        (object(), "object is not a supported Convex type"),
        (bytearray(b"x"), r"bytearray is not a supported Convex type; wrap it in bytes\(...\)"),
        (memoryview(b"x"), "memoryview is not a supported Convex type"),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "milliseconds since the epoch"),
        (decimal.Decimal(1), "store a float, or text"),
        (uuid.UUID(int=1), "store its text"),
        (len, "not a supported Convex type"),
        (MISSING, "MISSING is no Convex value; it belongs into index ranges and filters"),
        (UNSET, "UNSET is no Convex value; it belongs into the fields of a patch"),
        (complex(1, 2), "complex is not a supported Convex type"),
        ("a\ud800", "lone surrogate"),
        ({1: 2}, "Field names are text, not int"),
        ({None: 2}, "Field names are text, not NoneType"),
        ({Tier.GOLD: 1}, "Field names are plain str, not Tier"),
        ({"$a": 1}, r"Field name \$a starts with a '\$', which is reserved."),
        ({"a\n": 1}, r"has invalid character '\\n': Field names can only contain non-control ASCII characters"),
        ({"é": 1}, "has invalid character"),
        ({"a" * 1025: 1}, "too long"),
        ([0] * 8193, "Array length is too long"),
        ({f"f{at}": 0 for at in range(1025)}, "too many fields"),
    ],
    ids=brief,
)
def test_what_is_no_value_is_refused_with_its_path(value: object, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem):
        normalize(value)
    with pytest.raises(InvalidValueError, match=problem) as refused:
        normalize({"list": [0, {"inner": value}]})
    assert refused.value.path.startswith(".list[1].inner")
    assert refused.value.path in str(refused.value)


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def cyclic_dict() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [cyclic_list(), cyclic_dict(), deep(65), deep(10_000)], ids=["list", "dict", "65", "10000"]
)
def test_what_is_too_deep_or_endless_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError, match="nested 65 levels deep > maximum nesting 64"):
        normalize(value)
    with pytest.raises(InvalidValueError, match="too nested"):
        normalize_document({"a": value})


def test_64_levels_are_fine() -> None:
    assert normalize(deep(64)) == deep(64)
    assert nesting_of(normalize(deep(64))) == 64
    with pytest.raises(InvalidValueError, match="nested 4 levels deep > maximum nesting 3"):
        normalize(deep(4), max_nesting=3)


def test_containers_are_fresh() -> None:
    inner = [1.0]
    value = {"a": inner}
    normal: Any = normalize(value)

    inner.append(2.0)
    value["b"] = [3.0]

    assert normal == {"a": [1.0]}


def test_a_document_is_an_object_of_16_levels() -> None:
    assert normalize_document({"a": deep(15)}) == {"a": deep(15)}
    with pytest.raises(InvalidValueError, match="Document is too nested .nested 17 levels deep > maximum nesting 16"):
        normalize_document({"a": deep(16)})
    with pytest.raises(InvalidValueError, match="nested 31 levels deep > maximum nesting 16"):
        normalize_document({"a": deep(30)})


@pytest.mark.parametrize("value", [None, 5, "x", [{}], MISSING, b"x"])
def test_what_is_no_object_is_no_document(value: object) -> None:
    with pytest.raises(InvalidValueError, match="Value must be an Object"):
        normalize_document(value)


def test_names_with_an_underscore_are_the_systems() -> None:
    assert normalize_document({"_id": "x", "_creationTime": 1, "a": {"_b": 1}}) == {
        "_id": "x",
        "_creationTime": 1.0,
        "a": {"_b": 1.0},
    }
    with pytest.raises(InvalidValueError, match="Field '_secret' starts with an underscore, which is only allowed for"):
        normalize_document({"_secret": 1})


def test_a_document_has_1_mib_at_most_with_its_system_fields() -> None:
    around = size_of({"a": ""}) + 61
    largest = {"a": "x" * ((1 << 20) - around)}

    assert prepare_document(largest)[-1] == 1 << 20
    with pytest.raises(InvalidValueError, match=r"Value is too large \(1048577 bytes > maximum size 1 MiB\)"):
        normalize_document({"a": largest["a"] + "x"})


def test_sizes_are_convexs() -> None:
    assert size_of({"a": "é", "bc": [None, True, 1.0, Int64(1), b"xyz", "ab"]}) == 2 + (2 + 4) + (
        3 + 2 + 1 + 1 + 9 + 9 + 5 + 4
    )
    assert prepare_document({"a": 1})[-1] == size_of({"a": 1.0, "_id": "x" * 32, "_creationTime": 1.0})


def test_any_mapping_is_an_object() -> None:
    class Claims(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            return {"subject": "ann"}[name]

        def __iter__(self) -> Any:
            return iter(["subject"])

        def __len__(self) -> int:
            return 1

    assert normalize([Claims()]) == [{"subject": "ann"}]
