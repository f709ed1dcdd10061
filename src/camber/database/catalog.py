"""Which tables and indexes there are, under their numbers, and how documents of each become rows and keys.

The catalog is a value: a schema change makes a new one. System tables have fixed numbers and shapes, named here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camber.database.reads import Touched
from camber.errors import (
    DatabaseUsageError,
    InvalidValueError,
    QueryBuildError,
    SchemaDefinitionError,
    SchemaEnforcementError,
    ValidationError,
)
from camber.schema import Index, Table, define_table
from camber.storage import BY_CREATION_TIME, BY_ID, ColumnKind, IndexLayout, TableLayout
from camber.values import MISSING, TableNames, Validator, float_key, key_of, parts_reader, v

FIRST_USER_TABLE = 10_001
ABSENT_TABLE = 2**32 - 1
_MOST_COLUMNS = 1_500
"""Of a view: PostgreSQL has room for 1,600 and SQLite for 2,000. A union of objects can name more fields."""
RATE_LIMITS = 518
"""The table of attempts under rate limits: what is written there stays when a mutation is rolled back."""
CREATION_TIME = "_creationTime"
DEPLOYMENT = "_deployment"
"""The table of what the deployment keeps for itself, its secrets among it."""


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """One index of one table. `position` is where its key stands in a document's keys; `fields` end with `_creationTime`."""

    number: int
    name: str
    fields: tuple[str, ...]
    unique: bool
    position: int


class TableInfo:
    """One table as the engine uses it."""

    def __init__(
        self,
        number: int,
        definition: Table[Any],
        index_numbers: Mapping[str, int],
        *,
        also: Sequence[Validator] = (),
        in_making: Collection[int] = (),
    ) -> None:
        self.number, self.definition, self.name = number, definition, definition.name
        self.also = tuple(also)
        """What documents must fit besides, because servers with another version of the schema are at work."""
        self.is_system = definition.name.startswith("_")
        by_creation_time = IndexInfo(BY_CREATION_TIME, "by_creation_time", (CREATION_TIME,), unique=False, position=0)
        by_id = IndexInfo(BY_ID, "by_id", ("_id",), unique=False, position=BY_ID)
        own = [
            IndexInfo(index_numbers[index.name], index.name, (*index.fields, CREATION_TIME), index.unique, position)
            for position, index in enumerate(definition.indexes, 1)
        ]
        self.by_creation_time, self.by_id = by_creation_time, by_id
        self.indexes: dict[str, IndexInfo] = {index.name: index for index in (by_creation_time, *own, by_id)}
        self.own_indexes = tuple(own)
        self.unique_indexes = tuple(index for index in own if index.unique)
        self.in_making = frozenset(
            place for place, index in enumerate(self.unique_indexes) if index.number in in_making
        )
        """Places of unique indexes in which not all documents are yet: PostgreSQL watches over them once they are built."""
        self.index_numbers = (BY_CREATION_TIME, *(index.number for index in own))
        self.layout = TableLayout(
            number,
            definition.name,
            tuple(IndexLayout(index.number, index.name, index.unique) for index in own),
            tuple(_columns(definition.validator)),
        )
        # Fields are often part of several indexes, and making a part costs more than putting parts together.
        names = list(dict.fromkeys(field for index in definition.indexes for field in index.fields))
        self._parts = parts_reader(names)
        places = [tuple(map(names.index, index.fields)) for index in definition.indexes]
        unique = [of_index for index, of_index in zip(own, places, strict=True) if index.unique]
        self._keys, self._unique_keys = _keys_maker(len(names), places), _unique_keys_maker(len(names), unique)
        hands_over_as_is = definition.validator.hands_over_as_is
        self.hand_over: Callable[[Any], Any] | None = None if hands_over_as_is else definition.hand_over

    def keys_of(
        self, fields: Mapping[str, Any], creation_time: float, internal_id: bytes, max_key: int
    ) -> tuple[tuple[bytes, ...], tuple[bytes | None, ...]]:
        """The full keys of a document in all indexes, and its unique keys (None where a field is missing).

        Raises InvalidValueError naming table, index, field and size where a key is above `max_key` bytes.
        """
        parts = self._parts(fields)
        keys = self._keys(float_key(creation_time) + internal_id, *parts)
        if max(map(len, keys)) > max_key:
            raise self._key_too_long(keys, fields, max_key)
        return keys, self._unique_keys(*parts)

    def check_also(self, fields: Mapping[str, Any], tables: TableNames) -> None:
        """Raises SchemaEnforcementError where a document does not fit another version of the schema that is served."""
        for validator in self.also:
            try:
                validator.check(fields, tables)
            except ValidationError as error:
                raise SchemaEnforcementError(
                    f'Failed to write a document to table "{self.name}" because it does not match the schema of another version'
                    f" of the application, which other servers still serve: {error}",
                    path=error.path,
                    kind=error.kind,
                ) from None

    def index(self, name: str) -> IndexInfo:
        """The index of this name; QueryBuildError if there is none."""
        found = self.indexes.get(name)
        if found is None:
            raise QueryBuildError(f"Index {self.name}.{name} not found.", rule="IndexNotFoundError")
        return found

    def _key_too_long(self, keys: Sequence[bytes], fields: Mapping[str, Any], max_key: int) -> InvalidValueError:
        index, key = max(zip(self.own_indexes, keys[1:], strict=True), key=lambda found: len(found[1]))
        longest = max(index.fields[:-1], key=lambda field: len(parts_reader([field])(fields)[0]))
        return InvalidValueError(
            f'The key of a document in index "{self.name}.{index.name}" is too long ({len(key)} bytes > maximum {max_key}); '
            f'its longest field is "{longest}". Index a shorter field, for example a hash of this one.',
            path=f".{longest}",
        )


class Catalog:
    """All tables by name and by number; also the table names that validators of ids ask for."""

    def __init__(self, tables: Iterable[TableInfo]) -> None:
        self.by_number = {table.number: table for table in tables}
        self.by_name = {table.name: table for table in self.by_number.values()}
        self.index_numbers = {number: table.index_numbers for number, table in self.by_number.items()}

    def number_of(self, name: str) -> int | None:
        """The number of the table with this name."""
        table = self.by_name.get(name)
        return None if table is None else table.number

    def name_of(self, number: int) -> str | None:
        """The name of the table with this number."""
        table = self.by_number.get(number)
        return None if table is None else table.name

    def layouts(self) -> list[TableLayout]:
        """What the storage driver must know."""
        return [table.layout for table in self.by_number.values()]

    def with_tables(self, tables: Iterable[TableInfo]) -> Catalog:
        """A later catalog with these tables added or put in the place of those with the same number."""
        changed = {table.number: table for table in tables}
        return Catalog({**self.by_number, **changed}.values())

    def next_table_number(self) -> int:
        """The lowest number above all that user tables have."""
        return max([FIRST_USER_TABLE - 1, *self.by_number]) + 1


def absent_table(name: str) -> TableInfo:
    """A table that nothing was ever inserted into: without rows, and without indexes of its own.

    Raises DatabaseUsageError for a name that no table can have.
    """
    try:
        return TableInfo(ABSENT_TABLE, define_table(name, v.any()), {})
    except SchemaDefinitionError as error:
        raise DatabaseUsageError(str(error)) from None


_MISSING_PART = key_of(MISSING)


def _keys_maker(count: int, indexes: Iterable[Sequence[int]]) -> Callable[..., tuple[bytes, ...]]:
    """A function from the tail of all keys and so many parts to the full keys; of each index the places of its parts are given.

    It is one expression made for the table, like `lambda tail, p0, p1: (tail, p0 + p1 + tail, p1 + tail,)`: every row that is
    written needs its keys, and a loop over indexes and parts takes three times as long.
    """
    keys = ["tail", *[" + ".join([*(f"p{place}" for place in places), "tail"]) for places in indexes]]
    return _maker(count, keys, "tail")


def _unique_keys_maker(count: int, indexes: Iterable[Sequence[int]]) -> Callable[..., tuple[bytes | None, ...]]:
    """The same for unique keys, which have no tail: None where one of the parts is that of a missing field."""
    keys: list[str] = []
    for places in indexes:
        parts = [f"p{place}" for place in places]
        keys.append(f"None if {' or '.join(f'{part} == missing' for part in parts)} else {' + '.join(parts)}")
    return _maker(count, keys)


def _maker(count: int, items: Sequence[str], *before: str) -> Callable[..., Any]:
    # Nothing that an application wrote is in this text: it is made of our own words and of numbers.
    parameters = ", ".join([*before, *(f"p{place}" for place in range(count))])
    return eval(f"lambda {parameters}: ({''.join(f'{item}, ' for item in items)})", {"missing": _MISSING_PART})  # noqa: S307


_COLUMN_KINDS: dict[str, ColumnKind] = {
    "number": "real",
    "bigint": "integer",
    "boolean": "boolean",
    "string": "text",
    "id": "text",
    "bytes": "bytes",
}


def _columns(validator: Validator) -> list[tuple[str, ColumnKind]]:
    """The typed columns of a table's view: the fields its shape names, of all members where it is a union."""
    kinds: dict[str, ColumnKind] = {}
    exported = validator.json
    members = exported["value"] if exported["type"] == "union" else [exported]
    for member in members:
        if member["type"] != "object":
            continue
        for field, described in member["value"].items():
            kind = _column_kind(described["fieldType"])
            kinds[field] = kind if kinds.get(field, kind) == kind else "any"
    return sorted(kinds.items())[:_MOST_COLUMNS]


def _column_kind(exported: Mapping[str, Any]) -> ColumnKind:
    kind: str = exported["type"]
    if kind == "union":
        members: set[ColumnKind] = {_column_kind(member) for member in exported["value"] if member["type"] != "null"}
        return members.pop() if len(members) == 1 else "any"
    if kind == "literal":
        return "text" if isinstance(exported["value"], str) else "any"
    return _COLUMN_KINDS.get(kind) or "any"


def _system_table(number: int, name: str, fields: Mapping[str, Validator], *indexes: Index) -> TableInfo:
    definition: Table[Any] = Table(name, v.object(fields), indexes)
    return TableInfo(number, definition, {index.name: place for place, index in enumerate(indexes, 1)})


SYSTEM_TABLES: tuple[TableInfo, ...] = (
    _system_table(513, "_tables", {"number": v.number(), "name": v.string()}, Index("by_name", ("name",), unique=True)),
    _system_table(
        514,
        "_indexes",
        {
            "table": v.number(),
            "number": v.number(),
            "name": v.string(),
            "fields": v.array(v.string()),
            "unique": v.boolean(),
            "inMaking": v.optional(v.boolean()),
        },
    ),
    _system_table(
        515,
        "_schemas",
        {
            "schema": v.string(),
            "version": v.number(),
            "tables": v.optional(v.string()),
            "joining": v.optional(v.boolean()),
        },
    ),
    _system_table(516, DEPLOYMENT, {"key": v.string(), "value": v.any()}, Index("by_key", ("key",), unique=True)),
    _system_table(
        517,
        "_environment_variables",
        {"name": v.string(), "value": v.string()},
        Index("by_name", ("name",), unique=True),
    ),
    _system_table(
        RATE_LIMITS,
        "_rate_limits",
        {"rule": v.string(), "key": v.string(), "used": v.number(), "since": v.number(), "expires": v.number()},
        Index("by_rule_key", ("rule", "key"), unique=True),
        Index("by_expires", ("expires",)),
    ),
    _system_table(
        519,
        "_session_requests",
        {
            "session": v.string(),
            "request": v.number(),
            "digest": v.bytes(),
            "result": v.optional(v.bytes()),
            "logLines": v.array(v.string()),
        },
        Index("by_session_request", ("session", "request"), unique=True),
    ),
    _system_table(
        520,
        "_servers",
        {"server": v.string(), "schema": v.number(), "seen": v.number()},
        Index("by_server", ("server",), unique=True),
    ),
)
"""The engine's own tables. A new one takes the next number; numbers are never given twice."""

SYSTEM_CATALOG = Catalog(SYSTEM_TABLES)

_CATALOG_TABLES = frozenset(SYSTEM_CATALOG.by_name[name].number for name in ("_tables", "_indexes", "_schemas"))


def touches_catalog(touched: Touched) -> bool:
    """Whether a commit touched the tables in which all tables are described: then there is another catalog after it."""
    return touched.concerns(_CATALOG_TABLES)
