"""`ctx.db`: what a function reads and writes with, and the queries it builds (protocol 3.2 to 3.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, overload

from camber.database.catalog import DEPLOYMENT, IndexInfo, TableInfo, absent_table
from camber.database.expressions import Comparison, Expression
from camber.database.pagination import Cursors, Page, PageRequest, read_page
from camber.database.ranges import WHOLE_INDEX, Bound, KeyRange, equal_range, range_of
from camber.database.transaction import Transaction
from camber.errors import DatabaseUsageError, InvalidIdError, InvalidValueError, NotUniqueError, QueryBuildError
from camber.schema import Table
from camber.values import RawDocument, decode_id

D = TypeVar("D")

MAX_OPERATORS = 256


class RunState:
    """What the handles of one run share: the transaction, how cursors are sealed, and the journal of its one page."""

    __slots__ = ("cursors", "journal_in", "journal_out", "paginated", "transaction")

    def __init__(self, transaction: Transaction, cursors: Cursors, journal: str | None = None) -> None:
        self.transaction, self.cursors, self.journal_in = transaction, cursors, journal
        self.journal_out: str | None = None
        self.paginated = False


class Query(Generic[D]):
    """Documents of one table in the order of one index. Building a query reads nothing; the last word does."""

    __slots__ = ("_descending", "_filters", "_index", "_keys", "_state", "_table")

    def __init__(
        self,
        state: RunState,
        table: TableInfo,
        index: IndexInfo | None,
        keys: KeyRange = WHOLE_INDEX,
        descending: bool | None = None,
        filters: tuple[Expression, ...] = (),
    ) -> None:
        self._state, self._table, self._index, self._keys = state, table, index, keys
        self._descending, self._filters = descending, filters

    def with_index(self, name: str, /, *comparisons: Expression, **equal: object) -> Query[D]:
        """Read through this index: equalities by keyword or `field(...) == x`, then a range on the next field as comparisons.

        Raises QueryBuildError where the index, or the order of its fields, does not allow it.
        """
        table = self._table
        if self._index is not None:
            raise QueryBuildError(f"This query of {table.name} already reads through the index {self._index.name}.")
        if self._filters or self._descending is not None:
            raise QueryBuildError("Call with_index() first, before order() and filter().")
        index = table.index(name)
        if equal and not comparisons and tuple(equal) == index.fields[: len(equal)]:
            keys = equal_range(tuple(equal.values()))
        else:
            keys = range_of(table.name, table.number, name, index.fields, _bounds(comparisons, equal))
        return Query(self._state, table, index, keys)

    def full_table_scan(self) -> Query[D]:
        """Say on purpose that all documents are read, in the order of their creation."""
        return self.with_index("by_creation_time")

    def order(self, direction: str) -> Query[D]:
        """Read "asc" (the default) or "desc"; a query is ordered once."""
        if self._descending is not None:
            raise QueryBuildError("Queries may only specify order at most once")
        if direction not in ("asc", "desc"):
            raise QueryBuildError(f'order() takes "asc" or "desc", not {direction!r}')
        return Query(self._state, self._table, self._index, self._keys, direction == "desc", self._filters)

    def filter(self, expression: Expression) -> Query[D]:
        """Keep the documents for which the expression is true. They are read all the same: an index range is better."""
        if not isinstance(expression, Expression):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryBuildError('filter() takes an expression such as field("tier") == "Gold"')
        filters = (*self._filters, expression)
        if len(filters) > MAX_OPERATORS:
            raise QueryBuildError(f"A query can have at most {MAX_OPERATORS} operators")
        return Query(self._state, self._table, self._index, self._keys, self._descending, filters)

    def first(self) -> D | None:
        """The first document, or None."""
        found = self._read(1)
        return found[0] if found else None

    def unique(self) -> D | None:
        """The only document, or None. Raises NotUniqueError rather than pick one of several."""
        found = self._read(2)
        if len(found) > 1:
            ids = [str(cast("dict[str, Any]", document)["_id"]) for document in found]
            raise NotUniqueError(table=self._table.name, ids=ids)
        return found[0] if found else None

    def take(self, count: int) -> list[D]:
        """The first `count` documents."""
        if type(count) is not int or count < 0:
            raise DatabaseUsageError(f"take() wants a whole number from 0 on, not {count!r}")
        return self._read(count)

    def collect(self) -> list[D]:
        """All documents. More than the limits allow is an error: paginate where there may be many."""
        return self._read(None)

    def __iter__(self) -> Iterator[D]:
        """One document after another; what is not reached is not read."""
        table = self._table
        index = self._index or table.by_creation_time
        for _, document in self._state.transaction.scan(table, index, self._keys, descending=bool(self._descending)):
            if self._passes(document):
                yield _handed_over(table, document)

    def paginate(self, options: Mapping[str, Any]) -> Page[D]:
        """One page; `options` is what the client sent as `paginationOpts`. A function reads one page at the most."""
        state, table = self._state, self._table
        if state.paginated:
            raise DatabaseUsageError(
                "This query or mutation function ran multiple paginated queries. "
                "Convex only supports a single paginated query in each function."
            )
        request = PageRequest.of(dict(options))
        state.paginated = True
        index = self._index or table.by_creation_time
        page, journal = read_page(
            state.transaction,
            table,
            index,
            self._keys,
            request,
            descending=bool(self._descending),
            keep=self._passes if self._filters else None,
            cursors=state.cursors,
            fingerprint=self._fingerprint(table, index),
            journal=state.journal_in,
        )
        state.journal_out = journal
        page["page"] = [_handed_over(table, document) for document in page["page"]]
        return cast("Page[D]", page)

    def count(self) -> int:
        """How many documents the index range holds, counted in the database. Not for queries with a filter."""
        table = self._table
        if self._filters:
            raise QueryBuildError(
                "count() counts an index range; a query with filter() has to read its documents: len(query.collect())"
            )
        return self._state.transaction.count(table, self._index or table.by_creation_time, self._keys)

    def _read(self, limit: int | None) -> list[D]:
        table = self._table
        index = self._index or table.by_creation_time
        keep = self._passes if self._filters else None
        found = self._state.transaction.read(
            table, index, self._keys, descending=bool(self._descending), limit=limit, keep=keep
        )
        if table.hand_over is not None:
            return [_handed_over(table, document) for document in found]
        return cast("list[D]", found)

    def _passes(self, document: dict[str, Any]) -> bool:
        return all(expression.holds(document) for expression in self._filters)

    def _fingerprint(self, table: TableInfo, index: IndexInfo) -> bytes:
        described = repr((table.number, index.name, index.fields, self._keys, bool(self._descending), self._filters))
        return hashlib.sha256(described.encode()).digest()


class DatabaseReader:
    """`ctx.db` of a query: get, query, normalize_id; `system` for the engine's own tables."""

    __slots__ = ("_state", "_system")

    def __init__(self, state: RunState, *, system: bool = False) -> None:
        self._state, self._system = state, system

    @property
    def system(self) -> DatabaseReader:
        """The same for system tables, read only."""
        return DatabaseReader(self._state, system=True)

    @overload
    def get(self, id: str, /) -> RawDocument | None: ...
    @overload
    def get(self, table: Table[D], id: str, /) -> D | None: ...
    @overload
    def get(self, table: str, id: str, /) -> RawDocument | None: ...
    def get(self, table: Table[Any] | str, id: str | None = None, /) -> Any:
        """The document with this id, or None. With a table first, an id of another table is an error."""
        if id is None:
            info, id = self._info_of_id("get", table)
        else:
            info, id = self._info("get", table, id)
        if info is None:
            return None
        document = self._state.transaction.get(info, id)
        return None if document is None else _handed_over(info, document)

    @overload
    def query(self, table: Table[D], /) -> Query[D]: ...
    @overload
    def query(self, table: str, /) -> Query[RawDocument]: ...
    def query(self, table: Table[Any] | str, /) -> Query[Any]:
        """All documents of the table, in the order of their creation, until the query says otherwise."""
        name = _name_of(table)
        self._check_system(name)
        return Query(self._state, self._state.transaction.table(name) or absent_table(name), None)

    def normalize_id(self, table: Table[Any] | str, text: str, /) -> str | None:
        """The text if it is an id of this table, else None. Whether the document exists is another question."""
        name = _name_of(table)
        self._check_system(name)
        info = self._state.transaction.table(name)
        try:
            number, _ = decode_id(text)
        except (InvalidIdError, InvalidValueError):
            return None
        return text if info is not None and info.number == number else None

    def _check_system(self, name: str) -> None:
        if name.startswith("_") and not self._system:
            raise DatabaseUsageError("System tables can only be accessed with db.system.")
        if name == DEPLOYMENT:
            raise DatabaseUsageError(f"{name} holds the deployment's secrets, which no function can read.")
        if self._system and not name.startswith("_"):
            raise DatabaseUsageError("User tables cannot be accessed with db.system.")

    def _info_of_id(self, method: str, id: object) -> tuple[TableInfo | None, str]:
        text, number = _decoded(method, id)
        info = self._state.transaction.catalog.by_number.get(number)
        if info is not None:
            self._check_system(info.name)
        return info, text

    def _info(self, method: str, table: Table[Any] | str, id: object) -> tuple[TableInfo | None, str]:
        name = _name_of(table)
        self._check_system(name)
        text, number = _decoded(method, id)
        catalog = self._state.transaction.catalog
        info = catalog.by_name.get(name)
        if info is None or info.number != number:
            other = catalog.name_of(number)
            if other is None and info is None:
                return None, text
            raise DatabaseUsageError(
                f'Invalid argument `id` for `db.{method}`: expected to be an Id<"{name}">, got Id<"{other or "?"}"> instead.'
            )
        return info, text


class DatabaseWriter(DatabaseReader):
    """`ctx.db` of a mutation: reading, and insert, patch, replace, delete."""

    __slots__ = ()

    def insert(self, table: Table[Any] | str, value: Mapping[str, object], /) -> str:
        """Store a document; returns its id. Raises SchemaEnforcementError, UniqueIndexError, InvalidValueError."""
        name = _name_of(table)
        if name.startswith("_"):
            raise DatabaseUsageError("System tables (prefixed with `_`) are read-only.")
        _check_object("insert", value)
        transaction = self._state.transaction
        return transaction.insert(transaction.table_for_write(name), value)

    @overload
    def patch(self, id: str, value: Mapping[str, object], /) -> None: ...
    @overload
    def patch(self, table: Table[Any] | str, id: str, value: Mapping[str, object], /) -> None: ...
    def patch(self, *arguments: Any) -> None:
        """Merge fields into a document; a field that is UNSET is removed, nested objects are replaced as a whole."""
        info, id, value = self._target("patch", arguments)
        self._state.transaction.patch(info, id, value)

    @overload
    def replace(self, id: str, value: Mapping[str, object], /) -> None: ...
    @overload
    def replace(self, table: Table[Any] | str, id: str, value: Mapping[str, object], /) -> None: ...
    def replace(self, *arguments: Any) -> None:
        """Put this in the place of the whole document; `_id` and `_creationTime` stay."""
        info, id, value = self._target("replace", arguments)
        self._state.transaction.replace(info, id, value)

    @overload
    def delete(self, id: str, /) -> None: ...
    @overload
    def delete(self, table: Table[Any] | str, id: str, /) -> None: ...
    def delete(self, *arguments: Any) -> None:
        """Remove a document."""
        info, id = self._written("delete", arguments)
        self._state.transaction.delete(info, id)

    def _target(self, method: str, arguments: tuple[Any, ...]) -> tuple[TableInfo, str, Mapping[str, Any]]:
        if len(arguments) not in (2, 3):
            raise DatabaseUsageError(f"db.{method} takes an id and a value, with the table before them if you like")
        value = arguments[-1]
        _check_object(method, value)
        info, id = self._written(method, arguments[:-1])
        return info, id, value

    def _written(self, method: str, arguments: tuple[Any, ...]) -> tuple[TableInfo, str]:
        if len(arguments) not in (1, 2):
            raise DatabaseUsageError(f"db.{method} takes an id, with the table before it if you like")
        text, number = _decoded(method, arguments[-1])
        catalog = self._state.transaction.catalog
        info = catalog.by_number.get(number)
        if len(arguments) == 2:
            name = _name_of(arguments[0])
            if info is None or info.name != name:
                found = catalog.name_of(number) or "?"
                raise DatabaseUsageError(
                    f'Invalid argument `id` for `db.{method}`: expected to be an Id<"{name}">, got Id<"{found}"> instead.'
                )
        if info is None:
            raise DatabaseUsageError(f'Invalid argument `id` for `db.{method}`: Table for ID "{text}" not found')
        if info.is_system:
            raise DatabaseUsageError("System tables (prefixed with `_`) are read-only.")
        return info, text


def _handed_over(table: TableInfo, document: dict[str, Any]) -> Any:
    return document if table.hand_over is None else table.hand_over(document)


def _name_of(table: Table[Any] | str) -> str:
    if isinstance(table, Table):
        return table.name
    if isinstance(table, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return table
    raise DatabaseUsageError(f"A table is named by its value from define_table or by its name, not by {table!r}")


def _decoded(method: str, id: object) -> tuple[str, int]:
    if not isinstance(id, str):
        raise DatabaseUsageError(
            f"Invalid argument `id` for `db.{method}`, expected string but got '{type(id).__name__}': {id!r}"
        )
    try:
        return id, decode_id(id)[0]
    except InvalidIdError as error:
        raise DatabaseUsageError(f"Invalid argument `id` for `db.{method}`: {error}") from None


def _check_object(method: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise DatabaseUsageError(f"Invalid argument `value` for `db.{method}`: Value must be an Object")


def _bounds(comparisons: tuple[Expression, ...], equal: Mapping[str, object]) -> list[Bound]:
    bounds = [Bound(name, "==", value) for name, value in equal.items()]
    for comparison in comparisons:
        if not isinstance(comparison, Comparison):
            raise QueryBuildError(
                f'with_index() takes comparisons such as field("usedAt") >= since, not {comparison!r}'
            )
        bounds.append(Bound(*comparison.as_bound()))
    return bounds
