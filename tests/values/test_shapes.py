"""Annotations and TypedDict classes as validators."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, Optional, Required, TypedDict, TypeVar, Union

import pytest

from camber.errors import ValidatorDefinitionError
from camber.values import Int64, Validator, shape_validator, v
from tests.values.strategies import brief
from tests.values.tables import TABLES
from tests.vectors.reading import same

BackerId = Annotated[str, v.id("backers")]
Email = NewType("Email", str)
T = TypeVar("T")


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Person(TypedDict):
    """Someone."""

    name: str
    email: Email
    backer: NotRequired[BackerId]
    address: Address | None
    tags: list[str]
    scores: dict[str, float]


class Loose(TypedDict, total=False):
    a: str
    b: Required[str]


class Tight(Loose):
    c: str
    d: NotRequired[str]


class Listing(TypedDict, Generic[T]):
    page: list[T]
    isDone: bool


class Tree(TypedDict):
    children: list[Tree]


class Wrong(TypedDict):
    when: datetime.datetime


class Outer(TypedDict):
    inner: list[Wrong]


class Lost(TypedDict):
    there: Nowhere  # type: ignore[name-defined]  # noqa: F821


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("annotation", "validator"),
    [
        (str, v.string()),
        (float, v.number()),
        (int, v.number(whole=True)),
        (Int64, v.int64()),
        (bool, v.boolean()),
        (None, v.null()),
        (bytes, v.bytes()),
        (Any, v.any()),
        (object, v.any()),
        (list[str], v.array(v.string())),
        (list, v.array(v.any())),
        (dict[str, float], v.record(v.string(), v.number())),
        (dict[str, Any], v.record(v.string(), v.any())),
        (dict, v.record(v.string(), v.any())),
        (dict[BackerId, bool], v.record(v.id("backers"), v.boolean())),
        (Literal["a"], v.literal("a")),
        (Literal["a", True], v.union(v.literal("a"), v.literal(True))),
        (Literal["a", None], v.union(v.literal("a"), v.null())),
        (str | None, v.nullable(v.string())),
        (Optional[str], v.nullable(v.string())),  # noqa: UP045
        (Union[str, float, None], v.union(v.string(), v.number(), v.null())),  # noqa: UP007
        (str | list[str | None], v.union(v.string(), v.array(v.nullable(v.string())))),
        (int | float, v.number()),
        (Literal["a"] | Literal["b"] | None, v.union(v.literal("a"), v.literal("b"), v.null())),
        (BackerId, v.id("backers")),
        (Annotated[str, "a note"], v.string()),
        (Annotated[str, v.id("users"), v.id("backers")], v.id("backers")),
        (Annotated[list[str], v.array(v.id("users"))], v.array(v.id("users"))),
        (Annotated[dict[str, Any], v.object({"from": v.string()})], v.object({"from": v.string()})),
        (Email, v.string()),
        (v.string(), v.string()),
        (Address, v.object({"street": v.string(), "number": v.optional(v.number(whole=True))})),
        (Loose, v.object({"a": v.optional(v.string()), "b": v.string()})),
        (
            Tight,
            v.object({"a": v.optional(v.string()), "b": v.string(), "c": v.string(), "d": v.optional(v.string())}),
        ),
        (
            Listing[Address],
            v.object({"page": v.array(shape_validator(Address)), "isDone": v.boolean()}),
        ),
        (Listing[Listing[str]], v.object({"page": v.array(shape_validator(Listing[str])), "isDone": v.boolean()})),
    ],
    ids=brief,
)
def test_an_annotation_stands_for_a_validator(annotation: object, validator: Validator) -> None:
    assert shape_validator(annotation) == validator


def test_a_class_stands_for_an_object() -> None:
    assert shape_validator(Person).render() == (
        "v.object({address: v.union(v.object({number: v.optional(v.float64()), street: v.string()}), v.null()), "
        'backer: v.optional(v.id("backers")), '
        "email: v.string(), name: v.string(), scores: v.record(v.string(), v.float64()), tags: v.array(v.string())})"
    )


def test_an_int_in_a_shape_is_handed_over_as_int() -> None:
    validator = shape_validator(Person)
    address: Any = {"street": "x", "number": 5.0}
    person: Any = {"name": "", "email": "", "address": address, "tags": [], "scores": {"a": 5.0}}

    assert same(validator.hand_over(person), {**person, "address": {"street": "x", "number": 5}})


def test_a_literal_int_is_handed_over_as_int() -> None:
    validator = shape_validator(Literal[1, 2])

    assert same(validator.check(2, TABLES), 2.0)
    assert same(validator.hand_over(2.0), 2)
    assert validator.json == v.union(v.literal(1), v.literal(2)).json


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (tuple[str, str], r"tuple\[str, str\] can't be checked; write list\[T\]"),
        (set[str], r"write list\[T\]"),
        (Sequence[str], r"write list\[T\]"),
        (Mapping[str, str], r"write dict\[str, T\] or a TypedDict"),
        (datetime.datetime, "datetime can't be checked; write float, milliseconds since the epoch"),
        (complex, r"write list\[float\]"),
        (Colour, r"Colour is an Enum; write Literal\['red', 'blue'\]"),
        (Literal[b"x"], r"Literal\[b'x'\] can't be checked: write a str, int, bool or None in it"),
        (dict[int, str], r"Records can only have string keys.*write dict\[str, T\] or a TypedDict"),
        (dict[Literal["a"], str], "Records cannot have string literal keys"),
        (T, "~T is open; write the type"),
        (Listing, r"Listing.page: ~T is open"),
        ("Nowhere", "Nowhere is the name of a type that can't be found here"),
        (type("Thing", (), {}), "Thing can't be checked; write str, float"),
        (len, "can't be checked; write str"),
        (Wrong, r"Wrong.when: datetime can't be checked; write float"),
        (Outer, r"Wrong.when: datetime can't be checked"),
        (Tree, "Tree.children: Tree holds itself, and a validator can't; annotate the inner one as Any"),
        (Lost, "Lost: name 'Nowhere' is not defined; what an annotation names must be known in the module"),
    ],
    ids=brief,
)
def test_what_can_not_be_checked_is_refused_naming_what_to_write(annotation: object, problem: str) -> None:
    with pytest.raises(ValidatorDefinitionError, match=problem):
        shape_validator(annotation)
