"""Schemas: their tables together, and their JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from camber.errors import SchemaDefinitionError, ValidatorDefinitionError
from camber.schema import Schema, define_schema, define_table
from camber.values import Int64, v


def some_schema() -> Schema:
    return define_schema(
        define_table("users", {"email": v.string(), "level": v.optional(v.int64()), "kind": v.literal(Int64(1))})
        .index("by_email", ["email"], unique=True)
        .index("by_level_email", ["level", "email"]),
        define_table("anything", v.any(), write_with="anything:set"),
        schema_validation=False,
    )


def test_tables_are_found_by_name() -> None:
    schema = some_schema()

    assert list(schema.tables) == ["users", "anything"]
    assert schema.tables["users"].name == "users"
    assert not schema.schema_validation
    assert define_schema().schema_validation


def test_the_export_form_is_convexs_with_ours_beside_it() -> None:
    table = define_table("users", {"email": v.string()}).index("by_email", ["email"], unique=True)

    assert define_schema(table).to_json() == {
        "tables": [
            {
                "tableName": "users",
                "indexes": [{"indexDescriptor": "by_email", "fields": ["email"], "unique": True}],
                "stagedDbIndexes": [],
                "searchIndexes": [],
                "stagedSearchIndexes": [],
                "vectorIndexes": [],
                "stagedVectorIndexes": [],
                "documentType": {
                    "type": "object",
                    "value": {"email": {"fieldType": {"type": "string"}, "optional": False}},
                },
                "writeWith": None,
                "description": "",
            }
        ],
        "schemaValidation": True,
    }


def test_a_schema_is_read_back_from_its_json() -> None:
    schema = some_schema()

    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_names_that_differ_in_case_are_different() -> None:
    schema = define_schema(define_table("users", {"a": v.null(), "A": v.null()}), define_table("Users", v.any()))

    assert list(schema.tables) == ["users", "Users"]


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(SchemaDefinitionError, match='The schema has two tables "users"'):
        define_schema(define_table("users", v.any()), define_table("users", {"a": v.null()}))


@pytest.mark.parametrize("thing", [None, "users", v.object({}), {"users": v.any()}])
def test_a_schema_is_made_of_tables(thing: Any) -> None:
    with pytest.raises(SchemaDefinitionError, match="define_schema takes tables"):
        define_schema(thing)


@pytest.mark.parametrize("form", [{}, {"tables": [{}]}, {"tables": 5}, {"tables": [{"tableName": "t"}]}])
def test_json_that_is_no_schema_is_refused(form: Any) -> None:
    with pytest.raises((SchemaDefinitionError, ValidatorDefinitionError)):
        Schema.from_json(form)
