"""Validators: what they take, what they make of it, and what they say otherwise (protocol 2)."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given, settings

from camber.errors import InvalidValueError, ValidationError, ValidatorDefinitionError
from camber.values import MISSING, Int64, Validator, new_id, normalize, v, validator_from_json
from tests.values.strategies import any_values, brief
from tests.values.tables import TABLES, id_in
from tests.vectors.reading import same


class Tier(enum.StrEnum):
    GOLD = "gold"


class Celsius(float):
    pass


def refusal(validator: Validator, value: object, path: str = "") -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        validator.check(value, TABLES, path)
    return refused.value


# --- Normal forms


@pytest.mark.parametrize(
    ("validator", "value", "normal"),
    [
        (v.number(), 5, 5.0),
        (v.number(), Celsius(1.5), 1.5),
        (v.number(whole=True), 5, 5.0),
        (v.number(whole=True), -(2.0**53), -(2.0**53)),
        (v.int64(), 5, Int64(5)),
        (v.int64(), 2**63 - 1, Int64(2**63 - 1)),
        (v.string(), Tier.GOLD, "gold"),
        (v.string(), "é😀\0", "é😀\0"),
        (v.boolean(), True, True),
        (v.bytes(), b"x", b"x"),
        (v.null(), None, None),
        (v.any(), (1, Int64(2)), [1.0, Int64(2)]),
        (v.literal(1), 1, 1.0),
        (v.literal(Int64(1)), 1, Int64(1)),
        (v.literal("gold"), Tier.GOLD, "gold"),
        (v.array(v.int64()), (1, 2), [Int64(1), Int64(2)]),
        (v.object({"a": v.int64(), "b": v.optional(v.number())}), {"b": 1, "a": 1}, {"a": Int64(1), "b": 1.0}),
        (v.record(v.string(), v.int64()), {"x y": 1}, {"x y": Int64(1)}),
        (v.union(v.string(), v.int64()), 1, Int64(1)),
        (v.union(v.int64(), v.number()), 1, 1.0),
        (v.union(v.int64(), v.number()), Int64(1), Int64(1)),
        (v.union(v.literal("gold"), v.null()), Tier.GOLD, "gold"),
        (v.union(v.array(v.string()), v.array(v.number())), [1], [1.0]),
    ],
    ids=brief,
)
def test_a_plain_int_becomes_what_the_validator_says(validator: Validator, value: object, normal: object) -> None:
    assert same(validator.check(value, TABLES), normal)


@given(value=any_values())
@settings(deadline=None)
def test_any_takes_everything_and_leaves_it_as_it_is(value: Any) -> None:
    assert same(v.any().check(value, TABLES), value)
    assert same(v.object({"a": v.any()}).check({"a": value}, TABLES), {"a": value})


def test_containers_are_fresh() -> None:
    value = {"list": [1.0], "record": {"a": [1.0]}, "any": [1.0]}
    validator = v.object(
        {"list": v.array(v.number()), "record": v.record(v.string(), v.array(v.number())), "any": v.any()}
    )
    checked: Any = validator.check(value, TABLES)

    value["list"].append(2.0)  # pyright: ignore[reportAttributeAccessIssue]
    value["any"].append(2.0)  # pyright: ignore[reportAttributeAccessIssue]

    assert checked == {"list": [1.0], "record": {"a": [1.0]}, "any": [1.0]}


# --- Refusals, in Convex's words


def test_a_missing_field() -> None:
    assert str(refusal(v.object({"body": v.string()}), {})) == (
        "Object is missing the required field `body`. Consider wrapping the field validator in `v.optional(...)` if this is "
        "expected.\n\nObject: {}\nValidator: v.object({body: v.string()})"
    )


def test_an_extra_field() -> None:
    error = refusal(v.array(v.object({"a": v.number()})), [{"a": 1, "z": "x", "b": 2}])

    assert str(error) == (
        "Object contains extra field `b` that is not in the validator.\n"
        'Path: [0]\nObject: {a: 1.0, b: 2.0, z: "x"}\nValidator: v.object({a: v.float64()})'
    )
    assert (error.kind, error.path) == ("ExtraField", "[0]")


def test_no_match() -> None:
    error = refusal(v.object({"a": v.record(v.string(), v.array(v.string()))}), {"a": {"k": ["x", 5]}})

    assert str(error) == ("Value does not match validator.\nPath: .a.values()[1]\nValue: 5.0\nValidator: v.string()")
    assert (error.kind, error.path) == ("NoMatch", ".a.values()[1]")


def test_no_match_at_the_top_leaves_an_empty_line() -> None:
    assert str(refusal(v.int64(), "x")) == 'Value does not match validator.\n\nValue: "x"\nValidator: v.int64()'


def test_another_literal() -> None:
    assert str(refusal(v.literal("a"), "b")) == '`"b"` does not match literal validator `v.literal("a")`.'
    assert str(refusal(v.object({"x": v.literal(1)}), {"x": Int64(1)})) == (
        "`1` does not match literal validator `v.literal(1.0)`.Path: .x"
    )


def test_the_id_of_another_table() -> None:
    backer, file = id_in("backers"), id_in("_storage")

    assert str(refusal(v.array(v.id("users")), [backer])) == (
        f'Found ID "{backer}" from table `backers`, which does not match the table name in validator `v.id("users")`.Path: [0]'
    )
    assert str(refusal(v.id("users"), file)) == (
        f'Found ID "{file}" from a system table, which does not match the table name in validator `v.id("users")`.'
    )


@pytest.mark.parametrize("text", ["", "nope", new_id(12345, 0.0, bytes(10)), id_in("users").upper(), "x" * 100_000])
def test_text_that_is_no_id_of_any_table(text: str) -> None:
    assert refusal(v.id("users"), text).kind == "NoMatch"


def test_an_id_of_its_table_fits_system_tables_too() -> None:
    assert v.id("users").check(id_in("users"), TABLES) == id_in("users")
    assert v.id("_storage").check(id_in("_storage"), TABLES) == id_in("_storage")


def test_the_given_path_is_put_before() -> None:
    error = refusal(v.object({"a": v.string()}), {"a": 1}, ".args")

    assert error.path == ".args.a"
    assert "\nPath: .args.a\n" in str(error)


def test_the_first_wrong_field_by_name_is_reported_before_extra_ones() -> None:
    validator = v.object({"b": v.string(), "a": v.string(), "c": v.string()})

    assert refusal(validator, {"c": 1, "b": 1, "z": 1, "a": "x"}).path == ".b"
    assert "required field `a`" in str(refusal(validator, {"c": 1, "z": 1}))
    assert "extra field `y`" in str(refusal(validator, {"a": "", "b": "", "c": "", "z": 1, "y": 1}))


def test_a_union_names_the_whole_union() -> None:
    validator = v.object({"u": v.union(v.object({"a": v.string()}), v.array(v.number()))})
    error = refusal(validator, {"u": {"a": 1}})

    assert (error.kind, error.path) == ("NoMatch", ".u")
    assert str(error).endswith("Value: {a: 1.0}\nValidator: v.union(v.object({a: v.string()}), v.array(v.float64()))")


def test_a_union_of_one_is_that_one() -> None:
    error = refusal(v.union(v.object({"a": v.string()})), {"a": 1})

    assert error.path == ".a"
    assert str(error).endswith("Validator: v.string()")


@pytest.mark.parametrize(
    ("validator", "value"),
    [
        (v.number(), Int64(5)),
        (v.number(), True),
        (v.number(), "5"),
        (v.number(), None),
        (v.int64(), 5.0),
        (v.int64(), False),
        (v.boolean(), 1),
        (v.boolean(), 0.0),
        (v.string(), b"x"),
        (v.bytes(), "x"),
        (v.null(), False),
        (v.literal(1), True),
        (v.literal(True), 1),
        (v.literal(0), -0.0),
        (v.literal(Int64(1)), 1.0),
        (v.array(v.any()), {}),
        (v.array(v.any()), "text"),
        (v.object({}), []),
        (v.record(v.string(), v.any()), []),
        (v.union(), None),
        (v.union(v.string(), v.null()), 5),
        (v.number(whole=True), 5.5),
        (v.number(whole=True), 2.0**53 + 2),
        (v.number(whole=True), float("nan")),
        (v.number(whole=True), float("inf")),
        (v.optional(v.string()), None),
    ],
    ids=brief,
)
def test_kinds_are_not_mixed_up(validator: Validator, value: object) -> None:
    assert refusal(validator, value).path == ""


def test_a_number_that_is_not_whole_is_told_so() -> None:
    error = refusal(v.number(whole=True), 5.5)

    assert str(error).endswith("Value: 5.5\nValidator: v.float64() with a whole number within ±2^53")


def test_an_optional_field_may_be_missing_but_not_null() -> None:
    validator = v.object({"a": v.optional(v.string())})

    assert validator.check({}, TABLES) == {}
    assert refusal(validator, {"a": None}).path == ".a"


def test_a_literal_may_be_a_special_float() -> None:
    assert same(v.literal(-0.0).check(-0.0, TABLES), -0.0)
    assert same(v.literal(float("nan")).check(float("nan"), TABLES), float("nan"))


# --- Bad input


@pytest.mark.parametrize(
    ("validator", "value", "path", "problem"),
    [
        (v.object({"a": v.any()}), {"a": [{"b": {1}}]}, ".a[0].b", "set is not a supported"),
        (v.object({"a": v.string()}), {"a": [{"b": {1}}]}, ".a[0].b", "set is not a supported"),
        (v.object({"a": v.string()}), {"a": MISSING}, ".a", "MISSING is no Convex value"),
        (v.object({"a": v.number()}), {"a": 2**53 + 1}, ".a", "too large for a number"),
        (v.array(v.int64()), [0, 2**63], "[1]", "does not fit into a 64-bit signed integer"),
        (v.object({"a": v.string()}), {"a": "x\ud800"}, ".a", "lone surrogate"),
        (v.string(), ["x\ud800"], "[0]", "lone surrogate"),
        (v.object({"a": v.string()}), {"a": "x", 1: 2}, ".1", "Field names are text"),
        (v.record(v.string(), v.any()), {1: 2}, ".keys()", "Field names are text"),
        (v.record(v.string(), v.any()), {"$a": 2}, ".keys()", "starts with a"),
        (v.record(v.string(), v.any()), {"é": 2}, ".keys()", "has invalid character"),
        (v.record(v.string(), v.any()), {f"f{at}": 0 for at in range(1025)}, "", "too many fields"),
        (v.array(v.any()), [0] * 8193, "", "Array length is too long"),
        (v.literal("a"), {1}, "", "set is not a supported"),
        (v.union(v.string(), v.null()), object(), "", "object is not a supported"),
        (v.union(v.string(), v.null()), 10**4_000, "", "a whole number of 13288 bits"),
    ],
    ids=brief,
)
def test_what_is_no_convex_value_is_named_as_such(validator: Validator, value: Any, path: str, problem: str) -> None:
    with pytest.raises(InvalidValueError, match=problem) as refused:
        validator.check(value, TABLES)
    assert refused.value.path == path


def endless() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "validator", [v.any(), v.string(), v.array(v.any()), v.array(v.string()), v.union(v.string(), v.any())], ids=brief
)
@pytest.mark.parametrize("value", [endless(), deep(65), deep(10_000)], ids=["endless", "65", "10000"])
def test_what_is_too_deep_is_refused(validator: Validator, value: object) -> None:
    with pytest.raises((InvalidValueError, ValidationError)):
        validator.check(value, TABLES)


def test_the_levels_around_any_count() -> None:
    validator = v.array(v.array(v.any()))

    assert validator.check(deep(64), TABLES) == deep(64)
    with pytest.raises(InvalidValueError, match="nested 65 levels"):
        validator.check(deep(65), TABLES)


def test_a_message_stays_small_when_the_value_is_not() -> None:
    assert len(str(refusal(v.array(v.string()), {"a": "x" * 5_000_000}))) < 10_000


# --- Handing over


@pytest.mark.parametrize(
    ("validator", "value", "handed"),
    [
        (v.number(whole=True), 5.0, 5),
        (v.array(v.number(whole=True)), [5.0, -0.0], [5, 0]),
        (v.object({"a": v.number(whole=True), "b": v.number()}), {"a": 5.0, "b": 5.0}, {"a": 5, "b": 5.0}),
        (v.object({"a": v.optional(v.number(whole=True))}), {}, {}),
        (v.record(v.string(), v.number(whole=True)), {"x": 5.0}, {"x": 5}),
        (v.nullable(v.number(whole=True)), 5.0, 5),
        (v.nullable(v.number(whole=True)), None, None),
        (v.union(v.array(v.string()), v.array(v.number(whole=True))), [5.0], [5]),
        (
            v.union(v.object({"id": v.id("users"), "n": v.number(whole=True)}), v.null()),
            {"id": "any", "n": 5.0},
            {"id": "any", "n": 5},
        ),
        # A document from before the schema was as it is now.
        (v.object({"a": v.number(whole=True)}), {"a": 5.5}, {"a": 5.5}),
        (v.object({"a": v.number(whole=True)}), {"a": "text", "other": 1.0}, {"a": "text", "other": 1.0}),
    ],
    ids=brief,
)
def test_whole_numbers_are_handed_over_as_int(validator: Validator, value: Any, handed: Any) -> None:
    before = repr(value)

    assert same(validator.hand_over(value), handed)
    assert not validator.hands_over_as_is
    assert repr(value) == before


def test_without_whole_numbers_the_same_object_is_handed_over() -> None:
    validator = v.object({"a": v.array(v.union(v.number(), v.string())), "b": v.any()})
    value: Any = {"a": [1.0], "b": 5.0}

    assert validator.hands_over_as_is
    assert validator.hand_over(value) is value


# --- Definition, JSON, rendering

EVERY_KIND: list[tuple[Validator, dict[str, Any], str]] = [
    (v.null(), {"type": "null"}, "v.null()"),
    (v.number(), {"type": "number"}, "v.float64()"),
    (v.number(whole=True), {"type": "number"}, "v.float64()"),
    (v.int64(), {"type": "bigint"}, "v.int64()"),
    (v.boolean(), {"type": "boolean"}, "v.boolean()"),
    (v.string(), {"type": "string"}, "v.string()"),
    (v.bytes(), {"type": "bytes"}, "v.bytes()"),
    (v.any(), {"type": "any"}, "v.any()"),
    (v.id("users"), {"type": "id", "tableName": "users"}, 'v.id("users")'),
    (v.literal("a"), {"type": "literal", "value": "a"}, 'v.literal("a")'),
    (v.literal(1), {"type": "literal", "value": 1.0}, "v.literal(1.0)"),
    (v.literal(True), {"type": "literal", "value": True}, "v.literal(true)"),
    (v.literal(Int64(1)), {"type": "literal", "value": {"$integer": "AQAAAAAAAAA="}}, "v.literal(<bigint>)"),
    (v.array(v.string()), {"type": "array", "value": {"type": "string"}}, "v.array(v.string())"),
    (
        v.object({"b": v.optional(v.number()), "a": v.string()}),
        {
            "type": "object",
            "value": {
                "b": {"fieldType": {"type": "number"}, "optional": True},
                "a": {"fieldType": {"type": "string"}, "optional": False},
            },
        },
        "v.object({a: v.string(), b: v.optional(v.float64())})",
    ),
    (v.object({}), {"type": "object", "value": {}}, "v.object({})"),
    (
        v.record(v.string(), v.number()),
        {"type": "record", "keys": {"type": "string"}, "values": {"fieldType": {"type": "number"}, "optional": False}},
        "v.record(v.string(), v.float64())",
    ),
    (
        v.nullable(v.string()),
        {"type": "union", "value": [{"type": "string"}, {"type": "null"}]},
        "v.union(v.string(), v.null())",
    ),
    (v.union(), {"type": "union", "value": []}, "v.union()"),
]


@pytest.mark.parametrize(("validator", "json", "rendered"), EVERY_KIND, ids=brief)
def test_each_kind_has_its_json_and_its_rendering(validator: Validator, json: dict[str, Any], rendered: str) -> None:
    assert validator.json == json
    assert validator.render() == rendered
    assert validator_from_json(json).json == json
    assert validator_from_json(json).render() == rendered


def test_validators_that_say_the_same_are_equal() -> None:
    assert v.object({"a": v.string()}) == v.object({"a": v.string()})
    assert v.object({"a": v.string()}) != v.object({"a": v.optional(v.string())})
    assert v.number() != v.number(whole=True)
    assert len({v.array(v.string()), v.array(v.string()), v.object({}), v.object({})}) == 2


def test_objects_are_taken_apart_and_extended() -> None:
    user = v.object({"name": v.string(), "age": v.number()})

    assert user.omit("age") == v.object({"name": v.string()})
    assert user.pick("age") == v.object({"age": v.number()})
    assert user.partial() == v.object({"name": v.optional(v.string()), "age": v.optional(v.number())})
    assert user.extend({"age": v.int64(), "x": v.null()}) == v.object(
        {"name": v.string(), "age": v.int64(), "x": v.null()}
    )
    with pytest.raises(ValidatorDefinitionError, match=r"no field 'nme' in this object \(its fields: name, age\)"):
        user.pick("nme")


def test_validators_do_not_change() -> None:
    fields = {"a": v.string()}
    validator = v.object(fields)
    fields["b"] = v.string()

    assert list(validator.fields) == ["a"]
    with pytest.raises(AttributeError):
        validator.is_optional = True  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        validator.fields["b"] = v.string()  # pyright: ignore[reportIndexIssue]


wrong: Any = v


def array_of_arrays(levels: int) -> Validator:
    validator: Validator = v.string()
    for _ in range(levels):
        validator = v.array(validator)
    return validator


@pytest.mark.parametrize(
    ("define", "problem"),
    [
        (lambda: wrong.literal(None), "v.literal takes a str, number, Int64 or bool, not NoneType"),
        (lambda: wrong.literal(b"x"), "v.literal takes"),
        (lambda: wrong.literal([1]), "v.literal takes"),
        (lambda: wrong.literal(2**53 + 1), "too large for a number"),
        (lambda: wrong.id("no table"), "Identifier no table has invalid character ' '"),
        (lambda: wrong.id(""), "Identifier cannot be empty"),
        (lambda: wrong.id(wrong.string()), "v.id takes a table's name"),
        (lambda: wrong.array(str), r"v.array takes a validator, like v.string\(\), not the type str"),
        (lambda: wrong.array(wrong.optional(wrong.string())), "elements of v.array can't be optional"),
        (lambda: wrong.union(wrong.string(), None), "v.union takes a validator"),
        (lambda: wrong.union(wrong.optional(wrong.string())), "members of v.union can't be optional"),
        (lambda: wrong.object([]), "v.object takes a mapping of validators, not list"),
        (lambda: wrong.object({"a": "string"}), "field 'a' takes a validator"),
        (lambda: wrong.object({1: wrong.string()}), "field names are str"),
        (
            lambda: wrong.object({"1a": wrong.string()}),
            "Invalid first character '1' in 1a: Identifiers must start with an alphabetic",
        ),
        (
            lambda: wrong.object({"a-b": wrong.string()}),
            "Identifier a-b has invalid character '-': Identifiers can only contain",
        ),
        (lambda: wrong.object({"a\n": wrong.string()}), "has invalid character"),
        (lambda: wrong.object({"é": wrong.string()}), "Invalid first character"),
        (lambda: wrong.object({"a" * 65: wrong.string()}), r"Identifier is too long \(65 > maximum 64\)"),
        (lambda: wrong.object({"___": wrong.string()}), "Identifier ___ cannot have exclusively underscores"),
        (lambda: wrong.record(wrong.literal("a"), wrong.string()), "Records cannot have string literal keys"),
        (
            lambda: wrong.record(wrong.union(wrong.string(), wrong.literal("a")), wrong.string()),
            "Records cannot have string literal keys",
        ),
        (lambda: wrong.record(wrong.number(), wrong.string()), "Records can only have string keys"),
        (lambda: wrong.record(wrong.any(), wrong.string()), "Records can only have string keys"),
        (lambda: wrong.record(wrong.string(), wrong.optional(wrong.string())), "Records cannot have optional values"),
        (lambda: wrong.optional("x"), "v.optional takes a validator"),
        (lambda: array_of_arrays(65), "nested more than 64 levels"),
        (lambda: validator_from_json({"type": "date"}), "no validator of type 'date'"),
        (lambda: validator_from_json({}), "no validator of type None"),
        (lambda: validator_from_json([]), "a validator's JSON is an object"),
        (lambda: validator_from_json({"type": "array"}), "malformed JSON of a validator of type 'array'"),
        (lambda: validator_from_json({"type": "object", "value": []}), "malformed JSON"),
        (lambda: validator_from_json({"type": "object", "value": {"a": {"optional": True}}}), "malformed JSON"),
        (lambda: validator_from_json({"type": "union", "value": 5}), "malformed JSON"),
        (lambda: validator_from_json({"type": "literal", "value": {"$integer": "x"}}), "malformed JSON"),
        (lambda: validator_from_json({"type": []}), "no validator of type"),
    ],
    ids=brief,
)
def test_a_validator_that_can_not_be_is_refused(define: Any, problem: str) -> None:
    with pytest.raises(ValidatorDefinitionError, match=problem):
        define()


def test_types_of_long_ago_are_read_as_any() -> None:
    assert validator_from_json({"type": "map"}) == v.any()
    assert validator_from_json({"type": "set"}) == v.any()


@given(value=any_values())
@settings(deadline=None)
def test_a_checked_value_is_in_its_normal_form(value: Any) -> None:
    loose = v.union(v.array(v.any()), v.record(v.string(), v.any()), v.number(), v.string(), v.any())

    assert same(loose.check(value, TABLES), normalize(value))
