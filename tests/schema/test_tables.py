"""Tables: their shapes, their indexes, and documents made ready for them."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber.errors import InvalidValueError, SchemaDefinitionError, SchemaEnforcementError, ValidatorDefinitionError
from camber.schema import Document, Index, Table, define_table
from camber.values import Int64, encode_document, normalize, size_of, v
from tests.values.strategies import brief
from tests.values.tables import TABLES, id_in
from tests.vectors.reading import same


class Users(Document):
    """People who use it.

    More about them.
    """

    email: str
    age: NotRequired[int]
    backer: NotRequired[Annotated[str, v.id("backers")]]


class Plain(TypedDict):
    a: str


USERS = define_table("users", Users).index("by_email", ["email"], unique=True)


# --- Shapes


def test_a_class_becomes_the_validator_without_the_system_fields() -> None:
    assert USERS.validator == v.object(
        {"email": v.string(), "age": v.optional(v.number(whole=True)), "backer": v.optional(v.id("backers"))}
    )
    assert USERS.description == "People who use it.\n\nMore about them."


def test_a_class_needs_no_docstring_and_no_base() -> None:
    plain = define_table("plain", Plain, write_with="plain:set")

    assert plain.validator == v.object({"a": v.string()})
    assert (plain.description, plain.write_with) == ("", "plain:set")


def test_a_shape_may_be_validators() -> None:
    fields = {"key": v.string(), "from": v.string()}

    assert define_table("t", fields).validator == define_table("t", v.object(fields)).validator == v.object(fields)
    assert define_table("t", v.any()).validator == v.any()
    assert define_table("t", v.union(v.object({"a": v.null()}), v.object({}))).validator == v.union(
        v.object({"a": v.null()}), v.object({})
    )


def test_system_fields_that_a_shape_names_are_implied() -> None:
    named = define_table("t", {"_id": v.id("t"), "_creationTime": v.number(), "a": v.string()})

    assert named.validator == v.object({"a": v.string()})


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (v.string(), "v.string()"),
        (v.array(v.object({})), "v.array(v.object({}))"),
        (v.union(v.object({}), v.null()), "v.null()"),
        (v.record(v.string(), v.string()), "v.record(v.string(), v.string())"),
        (v.optional(v.object({})), "v.optional(v.object({}))"),
    ],
    ids=brief,
)
def test_the_top_of_a_table_is_an_object(shape: Any, found: str) -> None:
    with pytest.raises(SchemaDefinitionError) as refused:
        define_table("t", shape)
    assert str(refused.value) == (
        "The document validator in a schema must be an object, a union of objects, or `v.any()`. Found " + found + "."
    )


@pytest.mark.parametrize("shape", [None, 5, "users", str, [v.string()], object()])
def test_a_shape_is_a_class_or_validators(shape: Any) -> None:
    with pytest.raises(ValidatorDefinitionError, match='table "t": its shape is a TypedDict class or a mapping'):
        define_table("t", shape)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"_secret": v.string()}, "Field '_secret' starts with an underscore"),
        ({"_id": v.id("other")}, 'no document can have _id as v.id("other"); leave it out or write v.id("t").'),
        ({"_creationTime": v.int64()}, "no document can have _creationTime as v.int64"),
    ],
    ids=brief,
)
def test_fields_that_no_document_can_have_are_refused(fields: Any, problem: str) -> None:
    with pytest.raises(SchemaDefinitionError) as refused:
        define_table("t", fields)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "Identifier cannot be empty"),
        ("1st", "Invalid first character '1' in 1st"),
        ("a-b", "invalid character '-'"),
        ("a b", "invalid character ' '"),
        ("tâble", "invalid character 'â'"),
        ("a" * 65, "Identifier is too long"),
        ("__", "exclusively underscores"),
        ("_users", "reserved for system tables"),
        (5, "a table's name is a str"),
    ],
)
def test_a_table_is_named_by_an_identifier(name: Any, problem: str) -> None:
    with pytest.raises(SchemaDefinitionError) as refused:
        define_table(name, Plain)
    assert problem in str(refused.value)


def test_a_name_may_have_64_letters() -> None:
    assert define_table("a" * 64, Plain).name == "a" * 64


# --- Indexes


def test_indexes_are_added_to_a_new_table() -> None:
    more = USERS.index("by_backer", ("backer", "age"))

    assert USERS.indexes == (Index("by_email", ("email",), unique=True),)
    assert more.indexes == (*USERS.indexes, Index("by_backer", ("backer", "age")))


def sixteen_fields() -> Table[Any]:
    return define_table("t", {f"f{at}": v.any() for at in range(20)})


@pytest.mark.parametrize(
    ("name", "fields", "rule", "text"),
    [
        ("i", [], "EmptyIndex", 'In table "t" index "i" must have at least one field.'),
        ("i", [f"f{at}" for at in range(17)], "IndexTooManyFields", "Indexes may have up to 16 fields."),
        (
            "i",
            ["f1", "f1"],
            "FieldsNotUniqueWithinIndex",
            "Duplicate field f1. Index fields must be unique within an index.",
        ),
        (
            "i",
            ["_id"],
            "IndexFieldsContainId",
            "`_id` is not a valid index field. To load documents by ID, use `db.get(id)`.",
        ),
        (
            "i",
            ["f1", "_creationTime"],
            "IndexFieldsContainCreationTime",
            (
                "`_creationTime` is automatically added to the end of each index. It should not be added explicitly in the index "
                "definition. See https://docs.convex.dev/using/indexes for more details."
            ),
        ),
        ("i", ["_x"], "IndexFieldNameReserved", "Reserved fields (starting with `_`) are not allowed in indexes."),
        *[
            (
                name,
                ["f1"],
                "IndexNameReserved",
                (
                    f'In table "t" cannot name an index "{name}" because the name is reserved. '
                    'Indexes may not start with an underscore or be named "by_id" or "by_creation_time".'
                ),
            )
            for name in ("by_id", "by_creation_time", "_mine")
        ],
        ("taken", ["f1"], "IndexNamesNotUnique", 'Table "t" has two or more definitions of index "taken".'),
        (
            "other",
            ["f0"],
            "IndexNotUnique",
            'In table "t" index "taken" and index "other" have the same fields. Indexes must be unique within a table.',
        ),
    ],
    ids=brief,
)
def test_the_rules_of_indexes(name: str, fields: list[str], rule: str, text: str) -> None:
    table = sixteen_fields().index("taken", ["f0"])

    with pytest.raises(SchemaDefinitionError) as refused:
        table.index(name, fields)
    assert (refused.value.rule, str(refused.value)) == (rule, text)


def test_a_table_has_64_indexes_at_most() -> None:
    table = define_table("t", {f"f{at}": v.any() for at in range(65)})
    for at in range(64):
        table = table.index(f"by_{at}", [f"f{at}"])

    with pytest.raises(SchemaDefinitionError, match='Table "t" cannot have more than 64 indexes.'):
        table.index("by_64", ["f64"])


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("i", ["emial"], 'index "i" is on the field "emial", which its documents don\'t have. Did you mean "email"?'),
        ("i", ["address.town"], 'Did you mean "address"?'),
        ("i", ["email.x"], "don't have"),
        ("i", ["zzz"], "It has: address, any, email, list, record."),
        ("i", ["a..b"], "Identifier cannot be empty"),
        ("i", ["a-b"], "invalid character"),
        ("by-email", ["email"], 'cannot name an index "by-email": Identifier by-email has invalid character'),
        ("i", "email", 'the fields of index "i" are a list of names'),
        ("i", {"email"}, "are a list of names"),
    ],
    ids=brief,
)
def test_an_index_on_what_is_not_there_is_refused(name: str, fields: Any, problem: str) -> None:
    table = define_table(
        "t",
        {
            "email": v.string(),
            "address": v.optional(v.union(v.object({"street": v.string()}), v.null())),
            "any": v.any(),
            "record": v.record(v.string(), v.number()),
            "list": v.array(v.object({"x": v.string()})),
        },
    )
    with pytest.raises(SchemaDefinitionError) as refused:
        table.index(name, fields)
    assert problem in str(refused.value)

    for path in ("email", "address", "address.street", "any.x.y", "record.x", "list"):
        assert table.index("good", [path]).indexes


def test_an_index_may_be_on_a_field_of_one_member_of_a_union() -> None:
    table = define_table("t", v.union(v.object({"a": v.string()}), v.object({"b": v.string()})))

    assert table.index("i", ["b", "a"]).indexes
    assert define_table("t", v.any()).index("i", ["whatever.it.is"]).indexes


# --- Documents made ready


def test_a_document_is_checked_normalized_and_measured() -> None:
    document, text, size = USERS.prepare({"email": "ann@example.com", "age": 5, "backer": id_in("backers")}, TABLES)

    assert same(document, {"email": "ann@example.com", "age": 5.0, "backer": id_in("backers")})
    assert text == encode_document(document)
    assert size == 2 + (5 + 1 + 15 + 2) + (3 + 1 + 9) + (6 + 1 + 32 + 2) + 61


@given(st.dictionaries(st.sampled_from(["a", "b2", "c3c"]), st.text() | st.floats()))
def test_a_document_of_texts_is_measured_like_any_other(document: dict[str, Any]) -> None:
    assert define_table("t", v.any()).prepare(document, TABLES)[2] == size_of(normalize(document)) + 61


@pytest.mark.parametrize("shape", [v.any(), v.object({"a": v.array(v.int64())}), v.union(v.object({"a": v.any()}))])
def test_a_ready_document_shares_nothing_with_what_was_given(shape: Any) -> None:
    value = {"a": [Int64(1)]}
    document: Any = define_table("t", shape).prepare(value, TABLES)[0]

    value["a"].append(Int64(2))

    assert document == {"a": [Int64(1)]}


def test_a_document_that_does_not_fit_is_refused_in_convexs_words() -> None:
    with pytest.raises(SchemaEnforcementError) as refused:
        USERS.prepare({"email": 5}, TABLES)

    assert str(refused.value) == (
        'Failed to insert or update a document in table "users" because it does not match the schema: '
        "Value does not match validator.\nPath: .email\nValue: 5.0\nValidator: v.string()"
    )
    assert (refused.value.kind, refused.value.path) == ("NoMatch", ".email")


@pytest.mark.parametrize(
    "shape",
    [v.object({"a": v.optional(v.any())}), v.any(), v.union(v.object({"a": v.optional(v.any())}), v.object({}))],
    ids=brief,
)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"_id": "x"}, "Field '_id' is given by the database"),
        ({"_creationTime": 5}, "Field '_creationTime' is given by the database"),
        (
            {"_secret": 5},
            "Field '_secret' starts with an underscore, which is only allowed for system fields like '_id'",
        ),
        (
            {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]},
            "Document is too nested (nested 17 levels deep > maximum nesting 16)",
        ),
        ({"a": "x" * (1 << 20)}, "maximum size 1 MiB"),
        ({"a": {1}}, "set is not a supported Convex type"),
        ({"a": {"$b": 1}}, "starts with a '$', which is reserved"),
        ({1: 1}, "Field names are text"),
    ],
    ids=brief,
)
def test_what_can_be_no_document_is_refused(shape: Any, value: Any, problem: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        define_table("t", shape).prepare(value, TABLES)
    assert problem in str(refused.value)


@pytest.mark.parametrize("value", [None, 5, [], "x"])
def test_a_document_is_an_object(value: object) -> None:
    with pytest.raises(InvalidValueError, match="Value must be an Object"):
        define_table("t", v.any()).prepare(value, TABLES)
    with pytest.raises(SchemaEnforcementError, match="Value does not match validator"):
        USERS.prepare(value, TABLES)


def test_a_validator_deeper_than_a_document_is_caught_by_the_document() -> None:
    shape = v.string()
    value: Any = "x"
    for _ in range(16):
        shape, value = v.array(shape), [value]

    with pytest.raises(InvalidValueError, match="nested 17 levels deep > maximum nesting 16"):
        define_table("t", {"a": shape}).prepare({"a": value}, TABLES)


def test_whole_numbers_are_handed_over_as_int() -> None:
    stored: Any = {"_id": "x", "_creationTime": 5.0, "email": "", "age": 5.0}
    in_union: Any = define_table("t", v.union(v.object({"n": v.number(whole=True)}), v.object({"m": v.string()})))

    assert same(USERS.hand_over(stored), {**stored, "age": 5})
    assert same(in_union.hand_over({"_id": "x", "_creationTime": 5.0, "n": 5.0})["n"], 5)
    assert not USERS.hands_over_as_is
    assert define_table("plain", Plain).hands_over_as_is
