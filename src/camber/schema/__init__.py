"""Tables and indexes made of validators, and the schema they form."""

from camber.schema.definition import Schema, define_schema
from camber.schema.tables import Document, Index, Table, define_table

__all__ = ["Document", "Index", "Schema", "Table", "define_schema", "define_table"]
