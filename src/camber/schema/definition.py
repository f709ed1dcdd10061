"""A schema: an application's tables together, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

from camber.errors import SchemaDefinitionError
from camber.schema.tables import Index, Table, define_table
from camber.values import validator_from_json


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables by name. With `schema_validation` off, documents are not checked against their tables: only the indexes count."""

    tables: Mapping[str, Table[Any]]
    schema_validation: bool = True

    def to_json(self) -> dict[str, Any]:
        """Convex's export form (protocol 2.4), and beside it what is ours: `unique`, `writeWith`, `description`.

        That a number is whole (`int`) is not in it: on the wire and in the database it is a number.
        """
        return {
            "tables": [_table_json(table) for table in self.tables.values()],
            "schemaValidation": self.schema_validation,
        }

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Schema:
        """The schema of such a form. Raises SchemaDefinitionError or ValidatorDefinitionError for one that breaks a rule."""
        try:
            tables = [_table_from_json(table) for table in json["tables"]]
            return define_schema(*tables, schema_validation=json.get("schemaValidation", True))
        except (KeyError, TypeError, AttributeError) as error:
            raise SchemaDefinitionError(f"malformed JSON of a schema: {error!r}", rule="InvalidSchemaJson") from None


def define_schema(*tables: Table[Any], schema_validation: bool = True) -> Schema:
    """The schema of these tables. Raises SchemaDefinitionError where two have the same name; names in other case are others."""
    by_name: dict[str, Table[Any]] = {}
    for table in tables:
        _check_is_table(table)
        if table.name in by_name:
            raise SchemaDefinitionError(f'The schema has two tables "{table.name}".', rule="TableNamesNotUnique")
        by_name[table.name] = table
    return Schema(MappingProxyType(by_name), schema_validation)


def _check_is_table(table: object) -> None:
    if not isinstance(table, Table):
        raise SchemaDefinitionError(
            f"define_schema takes tables, as define_table makes them, not {type(table).__name__}", rule="NotATable"
        )


def _table_json(table: Table[Any]) -> dict[str, Any]:
    return {
        "tableName": table.name,
        "indexes": [_index_json(index) for index in table.indexes],
        "stagedDbIndexes": [],
        "searchIndexes": [],
        "stagedSearchIndexes": [],
        "vectorIndexes": [],
        "stagedVectorIndexes": [],
        "documentType": table.validator.json,
        "writeWith": table.write_with,
        "description": table.description,
    }


def _index_json(index: Index) -> dict[str, Any]:
    return {"indexDescriptor": index.name, "fields": list(index.fields), "unique": index.unique}


def _table_from_json(json: Mapping[str, Any]) -> Table[Any]:
    shape = validator_from_json(json["documentType"])
    table: Table[Any] = replace(
        define_table(json["tableName"], shape, write_with=json.get("writeWith")),
        description=json.get("description") or "",
    )
    for index in cast("list[Mapping[str, Any]]", json["indexes"]):
        table = table.index(index["indexDescriptor"], index["fields"], unique=index.get("unique", False))
    return table
