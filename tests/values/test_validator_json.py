"""A validator read from its JSON judges as the one that was written, and nonsense is no validator."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camber.errors import InvalidValueError, ValidationError, ValidatorDefinitionError
from camber.values import Int64, Validator, exact_json, shape_validator, v, validator_from_json
from tests.values.strategies import any_floats, any_texts, any_values, brief, int64s
from tests.values.tables import TABLES, id_in
from tests.vectors.reading import cases, same

RECORDED = [case["validator"] for case in cases("validators.json") if "validator" in case]


# --- What hypothesis draws

_IDENTIFIERS = st.sampled_from(["a", "b", "aa", "_id", "value", "type", "fieldType", "x" * 64])


def simple_validators() -> st.SearchStrategy[Validator]:
    plain = [v.null, v.number, v.int64, v.boolean, v.string, v.bytes, v.any, lambda: v.id("users")]
    literals = (st.booleans() | int64s() | any_floats() | any_texts()).map(v.literal)
    return st.sampled_from(plain).map(lambda make: make()) | literals


def whole_validators() -> st.SearchStrategy[Validator]:
    return st.sampled_from([v.number(whole=True), shape_validator(Literal[1])])


def record_keys() -> st.SearchStrategy[Validator]:
    return st.sampled_from([v.string(), v.id("users"), v.union(v.string(), v.id("backers"))])


def around(inner: st.SearchStrategy[Validator]) -> st.SearchStrategy[Validator]:
    fields = st.dictionaries(_IDENTIFIERS, inner | inner.map(v.optional), max_size=3)
    return (
        inner.map(v.array)
        | fields.map(v.object)
        | st.builds(v.record, record_keys(), inner)
        | st.lists(inner, max_size=3).map(lambda members: v.union(*members))
    )


def validators() -> st.SearchStrategy[Validator]:
    """Those that the export form describes in full."""
    return st.recursive(simple_validators(), around, max_leaves=8)


def exact_validators() -> st.SearchStrategy[Validator]:
    return st.recursive(simple_validators() | whole_validators(), around, max_leaves=8)


def values_for(validator: Validator) -> st.SearchStrategy[Any]:
    """Values that fit mostly, and some that fit nowhere."""
    form = validator.json
    fitting: st.SearchStrategy[Any] = any_values()
    match form["type"]:
        case "literal":
            fitting = st.just(validator.value)  # pyright: ignore[reportAttributeAccessIssue]
        case "id":
            fitting = st.just(id_in("users"))
        case "number":
            fitting = st.sampled_from([1.0, -5.0, 2.0**53, 0.5])
        case "array":
            fitting = st.lists(values_for(next(iter(validator.children))), max_size=2)
        case "object":
            fields: Any = validator.fields  # pyright: ignore[reportAttributeAccessIssue]
            fitting = st.fixed_dictionaries({name: values_for(one) for name, one in fields.items()})
        case "record":
            fitting = st.dictionaries(
                st.sampled_from([id_in("users"), "key"]), values_for(tuple(validator.children)[1])
            )
        case "union" if validator.children:
            fitting = st.one_of([values_for(member) for member in validator.children])
        case _:
            pass
    return fitting | any_values()


def judged(validator: Validator, value: object) -> tuple[str, Any]:
    """What the validator makes of a value: its normal form and what a handler receives, or the refusal in full."""
    try:
        checked = validator.check(value, TABLES)
    except (ValidationError, InvalidValueError) as refusal:
        return "refused", (type(refusal), str(refusal), refusal.path)
    return "accepted", [checked, repr(validator.hand_over(checked))]


def assert_judge_alike(one: Validator, other: Validator, value: object) -> None:
    (verdict, result), (other_verdict, other_result) = judged(one, value), judged(other, value)
    assert verdict == other_verdict
    if verdict == "refused":
        assert result == other_result
    else:
        assert same(result, other_result)


# --- Claims


@given(data=st.data(), validator=validators())
@settings(deadline=None)
def test_a_validator_read_from_its_export_form_judges_the_same(data: st.DataObject, validator: Validator) -> None:
    read = validator_from_json(json.loads(json.dumps(validator.json)))

    assert read.json == validator.json
    assert read.render() == validator.render()
    assert_judge_alike(read, validator, data.draw(values_for(validator)))


@given(data=st.data(), validator=exact_validators())
@settings(deadline=None)
def test_a_validator_read_from_its_exact_json_judges_and_hands_over_the_same(
    data: st.DataObject, validator: Validator
) -> None:
    read = validator_from_json(json.loads(json.dumps(exact_json(validator))))

    assert exact_json(read) == exact_json(validator)
    assert_judge_alike(read, validator, data.draw(values_for(validator)))


@given(validator=validators())
@settings(deadline=None)
def test_where_no_whole_number_is_asked_for_both_forms_are_one(validator: Validator) -> None:
    assert exact_json(validator) == validator.json


@pytest.mark.parametrize("recorded", RECORDED, ids=brief)
def test_every_recorded_validator_comes_out_as_it_went_in(recorded: dict[str, Any]) -> None:
    try:
        read = validator_from_json(recorded)
    except ValidatorDefinitionError:
        # Which of them are none is held by the vectors' own test; here it matters that nothing else is raised.
        return
    assert read.json == recorded
    assert exact_json(read) == recorded


class Order(TypedDict):
    count: int
    price: float
    kind: Literal[1, 2]
    counts: dict[str, list[int | None]]


def test_only_the_exact_json_says_where_whole_numbers_are() -> None:
    order = shape_validator(Order)
    fits = {"count": 5, "price": 0.5, "kind": 1, "counts": {"a": [1, None]}}
    half = {**fits, "counts": {"a": [0.5]}}

    lenient, exact = validator_from_json(order.json), validator_from_json(exact_json(order))

    assert judged(lenient, half)[0] == "accepted"
    assert judged(exact, half) == judged(order, half)
    assert judged(exact, half)[0] == "refused"
    assert repr(exact.hand_over(exact.check(fits, TABLES))) == repr(
        {"count": 5, "counts": {"a": [1, None]}, "kind": 1, "price": 0.5}
    )


def test_an_optional_validator_on_its_own_has_the_json_of_what_it_is_about() -> None:
    assert validator_from_json(v.optional(v.string()).json) == v.string()


def test_the_deepest_validator_there_can_be_is_read() -> None:
    deepest: Validator = v.string()
    for _ in range(64):
        deepest = v.object({"a": v.optional(v.nullable(deepest))})

    assert validator_from_json(deepest.json) == deepest


def nested(levels: int, around: Any) -> dict[str, Any]:
    form: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        form = around(form)
    return form


@pytest.mark.parametrize(
    "around",
    [
        lambda form: {"type": "array", "value": form},
        lambda form: {"type": "union", "value": [form]},
        lambda form: {"type": "object", "value": {"a": {"fieldType": form, "optional": False}}},
        lambda form: {
            "type": "record",
            "keys": {"type": "string"},
            "values": {"fieldType": form, "optional": False},
        },
        lambda form: {"type": "record", "keys": form, "values": {"fieldType": {"type": "any"}, "optional": False}},
    ],
    ids=["array", "union", "object", "record", "keys"],
)
@pytest.mark.parametrize("levels", [200, 100_000])
def test_endless_nesting_is_refused(around: Any, levels: int) -> None:
    with pytest.raises(ValidatorDefinitionError, match="nested more than 200 levels deep"):
        validator_from_json(nested(levels, around))


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (None, "a validator's JSON is an object, not NoneType"),
        ("string", "a validator's JSON is an object, not str"),
        ({"type": "String"}, "there is no validator of type 'String'"),
        ({"type": "array"}, "'value' is missing"),
        ({"type": "id"}, "'tableName' is missing"),
        ({"type": "id", "tableName": 5}, "takes a table's name"),
        ({"type": "id", "tableName": "no table"}, "invalid character"),
        ({"type": "record", "keys": {"type": "string"}}, "'values' is missing"),
        ({"type": "object", "value": {"a": {"type": "string"}}}, "'fieldType' is missing"),
        ({"type": "object", "value": {"a": {"fieldType": {"type": "string"}}}}, "'optional' is missing"),
        (
            {"type": "object", "value": {"a": {"fieldType": {"type": "string"}, "optional": "no"}}},
            "`optional` is true or false, not str",
        ),
        ({"type": "object", "value": {"$a": {"fieldType": {"type": "string"}, "optional": False}}}, "first character"),
        ({"type": "number", "whole": 1}, "`whole` is true or false, not int"),
        ({"type": "literal", "value": None}, "v.literal takes"),
        ({"type": "literal", "value": [1]}, "v.literal takes"),
        ({"type": "literal", "value": {"$integer": "AA=="}}, "malformed JSON of a validator of type 'literal'"),
        ({"type": "union", "value": "abc"}, "a validator's JSON is an object, not str"),
        ({"type": "union", "value": [["string"]]}, "a validator's JSON is an object, not list"),
        ({"type": "array", "value": {"type": "union"}}, "of type 'union': 'value' is missing"),
    ],
    ids=brief,
)
def test_nonsense_is_no_validator(form: object, problem: str) -> None:
    with pytest.raises(ValidatorDefinitionError, match=problem):
        validator_from_json(form)


@given(
    form=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "value", "keys", "values", "fieldType", "optional", "whole"]), inner
            )
            | st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["array", "object", "record", "union", "literal", "id", "number"]),
                    "value": inner,
                    "tableName": inner,
                }
            )
        ),
        max_leaves=10,
    )
)
@settings(deadline=None)
def test_any_json_is_a_validator_or_refused_as_none(form: Any) -> None:
    try:
        read = validator_from_json(form)
    except ValidatorDefinitionError:
        return
    assert exact_json(validator_from_json(exact_json(read))) == exact_json(read)


def test_the_reading_of_int64_literals_is_exact() -> None:
    validator = v.literal(Int64(2**63 - 1))

    assert validator_from_json(json.loads(json.dumps(validator.json))) == validator
