"""One run's view of the database: reads with their read set, and writes that stay in memory until the group commits.

A query has a transaction without an overlay and can't write. A mutation's transaction lies over its group's overlay; its
sub-transactions are marks in that overlay's journal.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import Any, Protocol

from camber.clock import Entropy
from camber.database.catalog import CREATION_TIME, RATE_LIMITS, Catalog, IndexInfo, TableInfo, absent_table
from camber.database.foresight import LookUp
from camber.database.limits import (
    Limits,
    Usage,
    too_many_bytes_read,
    too_many_bytes_written,
    too_many_documents_read,
    too_many_documents_written,
    too_many_ranges_read,
)
from camber.database.overlay import Overlay, StoredDocument, id_key
from camber.database.ranges import WHOLE_INDEX, KeyRange, equal_range
from camber.database.reads import Read
from camber.errors import (
    DatabaseUsageError,
    NonexistentDocumentError,
    UniqueIndexError,
)
from camber.storage import BY_ID, Row, Snapshot, Timestamp
from camber.values import (
    AFTER_KEY,
    NEW_ID_BYTES,
    UNSET,
    decode_document,
    decode_id,
    encode_document,
    encode_id,
    key_of,
    new_internal_id,
    normalize,
)

_log = logging.getLogger("camber.database")

_BATCH = 64
_FEW = 32
_MOST_KEPT = 1024
_MOST_EMPTY = 16
_MOST_MISSED = 8
_MANY_CHECKS = 16
_RANDOM_BYTES = 64 * NEW_ID_BYTES

"""Table, index, bounds, direction and limit of a look-up on a snapshot."""


class TableMissing(Exception):
    """A write needs a table that does not exist yet; the committer creates it and runs the mutation again."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class CreationTimes:
    """Creation times of one server: each is larger than all before it, also when the clock stands still or goes back."""

    def __init__(self, last_ms: float = 0.0) -> None:
        self.last_ms = last_ms

    def next(self, now_ms: float) -> float:
        """`now_ms`, or the next double after the last one given."""
        self.last_ms = max(now_ms, math.nextafter(self.last_ms, math.inf))
        return self.last_ms

    def end_ns(self) -> int:
        """Nanoseconds that are above all of them, also once they have been turned into milliseconds and rounded."""
        return int(self.last_ms * (1 + 2**-50) * 1e6)


class Kept:
    """What the members of a group have found out about their snapshot, which is the same for all of them."""

    __slots__ = ("_checks", "_highest", "documents", "missed", "rows")

    def __init__(self) -> None:
        self.rows: dict[LookUp, Sequence[Row]] = {}
        self.documents: dict[tuple[int, str], tuple[float, str]] = {}
        """By id, creation time and text: what is looked up by an index is often changed next, which looks for the id."""
        self.missed: list[LookUp] = []
        """Look-ups that were not known: the first few of the member that runs."""
        self._checks: dict[int, int] = {}
        self._highest: dict[int, Sequence[bytes]] = {}

    def keep(self, found: Mapping[LookUp, Sequence[Row]]) -> None:
        """Keep what these look-ups give, which is little."""
        if len(self.rows) < _MOST_KEPT:
            self.rows.update(found)
            for look_up, rows in found.items():
                for row in rows:
                    self.documents[look_up[0], row.id] = row.creation_time, row.document

    def are_behind_all(self, snapshot: Snapshot, table: int, keys: Sequence[bytes | None]) -> bool:
        """Whether these unique keys sort behind all that rows of the table have, so that surely nobody has them.

        Found out once many rows are added to the table: they often come in the order of a key.
        """
        highest = self._highest.get(table)
        if highest is None:
            self._checks[table] = checks = self._checks.get(table, 0) + 1
            if checks < _MANY_CHECKS:
                return False
            highest = self._highest[table] = snapshot.highest_keys(table)
        for key, top in zip(keys, highest, strict=True):  # noqa: SIM110  a generator takes longer than the comparisons
            if key is not None and key <= top:
                return False
        return True


class Attempt(Protocol):
    """Something that counts although its transaction is rolled back: an attempt under a rate limit."""

    def count(self, transaction: Transaction) -> object:
        """Count it, and note it in `transaction.attempts`."""
        ...


class Transaction:
    """Reads and, over an overlay, writes. Every method raises what `refuse` was given, once it was."""

    __slots__ = (
        "_creation_times",
        "_empty",
        "_entropy",
        "_random",
        "_random_used",
        "_refusal",
        "attempts",
        "catalog",
        "kept",
        "limits",
        "missing_table",
        "now_ms",
        "overlay",
        "reads",
        "snapshot",
        "usage",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        catalog: Catalog,
        *,
        limits: Limits,
        now_ms: float,
        overlay: Overlay | None = None,
        creation_times: CreationTimes | None = None,
        entropy: Entropy | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.snapshot, self.catalog, self.limits, self.now_ms, self.overlay = snapshot, catalog, limits, now_ms, overlay
        self.usage = Usage()
        self.kept = kept
        self.reads: list[Read] = []
        self.attempts: list[Attempt] = []
        self.missing_table: str | None = None
        """A table that has to be created before this can be run."""
        self._creation_times, self._entropy = creation_times, entropy
        self._random, self._random_used = b"", 0
        self._refusal: Exception | None = None
        self._empty: list[tuple[int, int, bytes, bytes | None]] = []
        """Ranges in which look-ups found no stored document: table, index, bounds."""

    @property
    def timestamp(self) -> Timestamp:
        """Of the snapshot below."""
        return self.snapshot.timestamp

    def refuse(self, error: Exception) -> None:
        """From now on every call raises this: the run is over, or was given up. Safe from another thread."""
        self._refusal = error

    # Reading

    def get(self, table: TableInfo, id: str) -> dict[str, Any] | None:
        """The document as a fresh dict, or None."""
        self._check_open()
        self._note_id(table, id)
        found = self._find(table.number, id)
        if found is None:
            return None
        self._count_read(found[1])
        return _document(id, *found)

    def read(
        self,
        table: TableInfo,
        index: IndexInfo,
        keys: KeyRange,
        *,
        descending: bool = False,
        limit: int | None = None,
        keep: Callable[[dict[str, Any]], bool] | None = None,
    ) -> list[dict[str, Any]]:
        """The first `limit` documents of a range that `keep` lets through (all without a limit), as fresh dicts."""
        if limit is not None and (keep is None or limit == 0):
            few = self._read_few(table, index, keys, descending, limit)
            if few is not None:
                return few
        found = self.scan(table, index, keys, descending=descending, at_most=None if keep else limit, steady=False)
        documents: list[dict[str, Any]] = []
        for _, document in found:
            if keep is None or keep(document):
                documents.append(document)
                if len(documents) == limit:
                    break
        found.close()
        return documents

    def scan(
        self,
        table: TableInfo,
        index: IndexInfo,
        keys: KeyRange,
        *,
        descending: bool = False,
        at_most: int | None = None,
        steady: bool = True,
    ) -> Generator[tuple[bytes, dict[str, Any]], None, None]:
        """Keys and documents of a range, in its order, one at a time; `at_most` rows of it will be wanted.

        What was read is the part of the range up to the last row that was taken, or all of it if the rows came to an end.
        `steady` says that the caller may write while it reads: it sees the documents as they were when the scan began.
        """
        self._check_open()
        place = self._note_range(Read(table.number, index.number, *keys))
        last: bytes | None = None
        ended = False
        try:
            for row in self._rows(table, index, keys, descending=descending, limit=at_most, steady=steady):
                self._check_open()
                last = row.key or id_key(row.id)
                self._count_read(row.document)
                yield last, _document(row.id, row.creation_time, row.document)
            ended = True
        finally:
            if last is not None and not ended:
                self._narrow(place, last, descending)

    def count(self, table: TableInfo, index: IndexInfo, keys: KeyRange = WHOLE_INDEX) -> int:
        """How many documents the range holds: one range and no documents of the limits."""
        self._check_open()
        self._note_range(Read(table.number, index.number, *keys))
        self.usage.waiting_since = perf_counter()
        count = self.snapshot.count(table.number, index.number, keys.lower, keys.upper)
        if self.overlay is not None and (written := self.overlay.of_table(table.number)):
            count += len(self.overlay.entries(table.number, index.position, keys))
            count -= sum(self._was_in_range(table, index, id, keys) for id in written)
        self.usage.waited()
        return count

    # Writing

    def insert(self, table: TableInfo, value: Mapping[str, Any]) -> str:
        """Store a new document and return its id."""
        overlay = self._writable()
        if "_id" in value or CREATION_TIME in value:
            raise DatabaseUsageError(
                f"A new document in table {table.name} can't choose its `_id` or `_creationTime`; leave both out of the value."
            )
        fields, text, size = table.definition.prepare(value, self.catalog)
        if table.also:
            table.check_also(fields, self.catalog)
        id, internal, creation_time = self._new(table)
        keys, unique_keys = table.keys_of(fields, creation_time, internal, self.limits.max_key)
        after = StoredDocument(table.number, id, creation_time, text, keys, unique_keys)
        if unique_keys:
            self._check_unique(overlay, table, after)
        self._count_write(size)
        overlay.put(table.number, id, None, after)
        return id

    def replace(self, table: TableInfo, id: str, value: Mapping[str, Any], *, action: str = "Replace") -> None:
        """Put another document in the place of the one with this id."""
        overlay = self._writable()
        found = self._found_for_write(table, id, action)
        self._write_over(overlay, table, id, found, value)

    def patch(self, table: TableInfo, id: str, value: Mapping[str, Any]) -> None:
        """Merge these fields into the document; a field that is UNSET is removed."""
        overlay = self._writable()
        found = self._found_for_write(table, id, "Update")
        merged: dict[str, Any] = decode_document(found[1])
        for name, new in value.items():
            if new is UNSET:
                normalize({name: None})  # what is to be removed must be the name of a field
                merged.pop(name, None)
            else:
                merged[name] = new
        self._write_over(overlay, table, id, found, merged)

    def delete(self, table: TableInfo, id: str) -> None:
        """Remove the document with this id."""
        overlay = self._writable()
        creation_time, text = self._found_for_write(table, id, "Delete")
        self._count_write(len(text.encode()))
        before = self._stored(table, id, creation_time, decode_document(text), text)
        overlay.put(table.number, id, before, None)

    # Sub-transactions

    def mark(self) -> int:
        """Where a sub-transaction begins."""
        return 0 if self.overlay is None else self.overlay.mark()

    def rollback(self, mark: int) -> None:
        """Take back what was written since the mark. What was read stays read, and attempts under a rate limit stay counted."""
        if self.overlay is not None:
            self.overlay.rollback(mark, surviving=RATE_LIMITS)

    # Without counting against the limits, for what the engine itself keeps in system tables

    def find_one(self, table: TableInfo, index: IndexInfo, values: Sequence[object]) -> dict[str, Any] | None:
        """The first document with these values in the first fields of an index."""
        self._check_open()
        keys = equal_range(values)
        self.reads.append(Read(table.number, index.number, *keys))
        rows = self._few(table, index, keys, descending=False, limit=1)
        if rows is None:
            rows = list(self._rows(table, index, keys, descending=False, limit=1, steady=False))
        return _document(rows[0].id, rows[0].creation_time, rows[0].document) if rows else None

    def keep(self, table: TableInfo, current: dict[str, Any] | None, fields: dict[str, Any]) -> None:
        """Write a document of a system table: over the current one, or as a new one."""
        overlay = self._writable()
        if current is None:
            id, _, creation_time = self._new(table)
            before = None
        else:
            id, creation_time = current["_id"], current[CREATION_TIME]
            before = self._kept(table, current)
        overlay.put(table.number, id, before, self._stored(table, id, creation_time, fields, encode_document(fields)))

    def first_below(self, table: TableInfo, index: IndexInfo, end: float, at_most: int) -> list[dict[str, Any]]:
        """Documents whose first indexed field is a number below `end`, smallest first."""
        keys = KeyRange(key_of(-math.inf), key_of(end))
        self.reads.append(Read(table.number, index.number, *keys))
        rows = self._rows(table, index, keys, descending=False, limit=at_most, steady=False)
        return [_document(row.id, row.creation_time, row.document) for row in islice(rows, at_most)]

    def drop(self, table: TableInfo, current: dict[str, Any]) -> None:
        """Delete a document of a system table."""
        self._writable().put(table.number, current["_id"], self._kept(table, current), None)

    # Tables

    def table(self, name: str) -> TableInfo | None:
        """The table of this name, if there is one."""
        found = self.catalog.by_name.get(name)
        if found is None:
            # Read like any other look-up that finds nothing: the result is stale once the table is created.
            tables = self.catalog.by_name["_tables"]
            self.reads.append(Read(tables.number, tables.index("by_name").number, *equal_range((name,))))
        return found

    def table_for_write(self, name: str) -> TableInfo:
        """The table of this name; one that is missing is created on its first insert, as in Convex."""
        self._writable()
        found = self.catalog.by_name.get(name)
        if found is None:
            absent_table(name)  # refuses what can be no name
            self.missing_table = name
            raise TableMissing(name)
        return found

    # The steps of the above

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _writable(self) -> Overlay:
        self._check_open()
        if self.overlay is None:
            raise DatabaseUsageError("A query can't write. Declare the function with @mutation.")
        return self.overlay

    def _new(self, table: TableInfo) -> tuple[str, bytes, float]:
        """A new document's id, its 16 internal bytes and its creation time."""
        assert self._creation_times is not None, "only a transaction with an overlay writes"
        assert self._entropy is not None
        end = self._random_used + NEW_ID_BYTES
        if end > len(self._random):
            # The first two ids of a transaction ask for their own bytes; where there are more, there are often many.
            some = min(len(self._random) + NEW_ID_BYTES, _RANDOM_BYTES)
            self._random, end = self._entropy.random_bytes(some), NEW_ID_BYTES
        random, self._random_used = self._random[end - NEW_ID_BYTES : end], end
        internal = new_internal_id(self.now_ms, random)
        return encode_id(table.number, internal), internal, self._creation_times.next(self.now_ms)

    def _find(self, table: int, id: str) -> tuple[float, str] | None:
        if self.overlay is not None and (written := self.overlay.of_table(table)) and id in written:
            document = written[id]
            return None if document is None else (document.creation_time, document.text)
        if self.kept is not None and (known := self.kept.documents.get((table, id))) is not None:
            return known
        self.usage.waiting_since = perf_counter()
        row = self.snapshot.get(table, id)
        self.usage.waited()
        return None if row is None else (row.creation_time, row.document)

    def _found_for_write(self, table: TableInfo, id: str, action: str) -> tuple[float, str]:
        self._note_id(table, id)
        found = self._find(table.number, id)
        if found is None:
            raise NonexistentDocumentError(action=action, id=id)
        return found

    def _write_over(
        self, overlay: Overlay, table: TableInfo, id: str, found: tuple[float, str], value: Mapping[str, Any]
    ) -> None:
        creation_time, old_text = found
        fields, text, size = table.definition.prepare(_without_system_fields(id, creation_time, value), self.catalog)
        if text == old_text:
            return
        if table.also:
            table.check_also(fields, self.catalog)
        after = self._stored(table, id, creation_time, fields, text)
        before = self._stored(table, id, creation_time, decode_document(old_text), old_text)
        if after.unique_keys != before.unique_keys:
            self._check_unique(overlay, table, after)
        self._count_write(size)
        overlay.put(table.number, id, before, after)

    def _stored(
        self, table: TableInfo, id: str, creation_time: float, fields: Mapping[str, Any], text: str
    ) -> StoredDocument:
        keys, unique_keys = table.keys_of(fields, creation_time, decode_id(id)[1], self.limits.max_key)
        return StoredDocument(table.number, id, creation_time, text, keys, unique_keys)

    def _kept(self, table: TableInfo, current: dict[str, Any]) -> StoredDocument:
        """A document of a system table as it is stored."""
        id, creation_time = current["_id"], current[CREATION_TIME]
        fields = _without_system_fields(id, creation_time, current)
        return self._stored(table, id, creation_time, fields, encode_document(fields))

    def _check_unique(self, overlay: Overlay, table: TableInfo, document: StoredDocument) -> None:
        """Refuse a document whose unique key another one has.

        A key that nobody has is not noted as read: should another server give it to a row meanwhile, the commit itself fails.
        """
        keys = document.unique_keys
        if table.in_making:
            keys = tuple(None if place in table.in_making else key for place, key in enumerate(keys))
        taken = overlay.taken(document)
        if taken is None:
            if self._empty:
                keys = [
                    None if key is None or self._is_free(table, place, key) else key for place, key in enumerate(keys)
                ]
            if not any(keys):
                return
            self.usage.waiting_since = perf_counter()
            # Not while an index is being made, by which nothing can be found yet.
            if (
                self.kept is not None
                and not table.in_making
                and self.kept.are_behind_all(self.snapshot, table.number, keys)
            ):
                self.usage.waited()
                return
            holders = self.snapshot.holders(table.number, keys)
            self.usage.waited()
            if not holders:
                return
            written = overlay.of_table(table.number) or {}
            taken = next((held for held in holders if held[1] != document.id and held[1] not in written), None)
            if taken is None:
                return
        place, holder = taken
        index, key = table.unique_indexes[place], document.unique_keys[place]
        assert key is not None
        self._note_range(Read(table.number, index.number, key, key + AFTER_KEY, key))
        # For the log alone: to a client the other document would be an oracle.
        _log.info("%s.%s: document %s has the key already", table.name, index.name, holder)
        raise UniqueIndexError(table=table.name, index=index.name)

    def _is_free(self, table: TableInfo, place: int, key: bytes) -> bool:
        """Whether a look-up of this transaction has shown that no stored document has this unique key."""
        number, end = table.unique_indexes[place].number, key + AFTER_KEY
        for of_table, index, lower, upper in self._empty:
            if of_table == table.number and index == number and lower <= key and (upper is None or end <= upper):
                return True
        return False

    def _rows(
        self, table: TableInfo, index: IndexInfo, keys: KeyRange, *, descending: bool, limit: int | None, steady: bool
    ) -> Iterator[Row]:
        """Rows of a range: the snapshot's, merged with what the overlay has."""
        written = None if self.overlay is None else self.overlay.of_table(table.number)
        if not written or self.overlay is None:
            return self._stored_rows(table, index, keys, descending=descending, limit=limit)
        entries = self.overlay.entries(table.number, index.position, keys)
        # Rows that are written to while a steady scan goes on must not vanish from it: it looks at the ids written until now.
        hidden: Collection[str] = frozenset(written) if steady else written
        more = None if limit is None else limit + self.overlay.hidden(table.number)
        stored = self._stored_rows(table, index, keys, descending=descending, limit=more)
        visible = (row for row in stored if row.id not in hidden)
        if not entries:
            return visible
        if descending:
            entries.reverse()
        return _merged(visible, [_row(key, written[id]) for key, id in entries], descending=descending)

    def _read_few(
        self, table: TableInfo, index: IndexInfo, keys: KeyRange, descending: bool, limit: int
    ) -> list[dict[str, Any]] | None:
        """What `read` gives where that is a handful of documents: no generators, which cost more than the look-up.

        None where there are more, which are to be read in steps, because all of them together may be large.
        """
        self._check_open()
        most = min(limit, _FEW)
        rows = self._few(table, index, keys, descending, most)
        if rows is None or len(rows) == most < limit:
            return None
        place = self._note_range(Read(table.number, index.number, *keys))
        documents: list[dict[str, Any]] = []
        for row in rows:
            self._count_read(row.document)
            documents.append(_document(row.id, row.creation_time, row.document))
        if rows and len(rows) == limit:
            self._narrow(place, rows[-1].key or id_key(rows[-1].id), descending)
        return documents

    def _few(
        self, table: TableInfo, index: IndexInfo, keys: KeyRange, descending: bool, limit: int
    ) -> Sequence[Row] | None:
        """The first `limit` rows of a range, the overlay's among them; None where the overlay hides too many stored ones."""
        overlay, number = self.overlay, table.number
        written = None if overlay is None else overlay.of_table(number)
        if not written or overlay is None:
            return self._few_stored(number, index.number, keys, descending, limit)
        if (hidden := overlay.hidden(number)) > _FEW:
            return None
        stored = self._few_stored(number, index.number, keys, descending, limit + hidden)
        visible = [row for row in stored if row.id not in written]
        entries = overlay.entries(number, index.position, keys)
        if entries:
            own = [_row(key, written[id]) for key, id in (reversed(entries) if descending else entries)]
            visible = sorted(visible + own[:limit], key=_key_of_row, reverse=descending)
        return visible[:limit]

    def _few_stored(self, table: int, index: int, keys: KeyRange, descending: bool, limit: int) -> Sequence[Row]:
        """Rows of the snapshot. In a group the same look-ups come again and again (who is asking, is it taken): they are kept."""
        lower, upper, _ = keys
        asked = (table, index, lower, upper, descending, limit)
        kept = self.kept
        if kept is not None and (known := kept.rows.get(asked)) is not None:
            if not known:
                self._note_empty(table, index, lower, upper)
            return known
        self.usage.waiting_since = perf_counter()
        rows = self.snapshot.first(table, index, lower, upper, descending=descending, limit=limit)
        self.usage.waited()
        if kept is not None:
            if len(kept.missed) < _MOST_MISSED:
                kept.missed.append(asked)
            if len(rows) <= 2:
                kept.keep({asked: rows})
        if not rows:
            self._note_empty(table, index, lower, upper)
        return rows

    def _note_empty(self, table: int, index: int, lower: bytes, upper: bytes | None) -> None:
        if self.overlay is not None and len(self._empty) < _MOST_EMPTY:
            self._empty.append((table, index, lower, upper))

    def _stored_rows(
        self, table: TableInfo, index: IndexInfo, keys: KeyRange, *, descending: bool, limit: int | None
    ) -> Iterator[Row]:
        self.usage.waiting_since = perf_counter()
        rows = self.snapshot.scan(
            table.number, index.number, keys.lower, keys.upper, descending=descending, limit=limit
        )
        while True:
            batch = list(islice(rows, _BATCH))
            self.usage.waited()
            yield from batch
            if len(batch) < _BATCH:
                return
            self.usage.waiting_since = perf_counter()

    def _was_in_range(self, table: TableInfo, index: IndexInfo, id: str, keys: KeyRange) -> bool:
        """Whether the snapshot, without the overlay, has this document in the range."""
        row = self.snapshot.get(table.number, id)
        if row is None:
            return False
        if index.number == BY_ID:
            key = id_key(id)
        else:
            stored = self._stored(table, id, row.creation_time, decode_document(row.document), row.document)
            key = stored.keys[index.position]
        return key >= keys.lower and (keys.upper is None or key < keys.upper)

    def _note_id(self, table: TableInfo, id: str) -> None:
        key = id_key(id)
        self._note_range(Read(table.number, BY_ID, key, key + AFTER_KEY, key))

    def _note_range(self, read: Read) -> int:
        reads, limits, usage = self.reads, self.limits, self.usage
        usage.ranges_read += 1
        if usage.ranges_read > limits.ranges_read:
            raise too_many_ranges_read(limits)
        reads.append(read)
        return len(reads) - 1

    def _narrow(self, place: int, last: bytes, descending: bool) -> None:
        """Of the range noted at this place only the part up to this full key was looked at."""
        table, index, lower, upper, prefix = self.reads[place]
        # No key begins with another, so the next one after `last` is not below `last` and a NUL.
        span = (last, upper) if descending else (lower, last + b"\x00")
        self.reads[place] = Read(table, index, *span, prefix)

    def _count_read(self, text: str) -> None:
        limits, usage = self.limits, self.usage
        usage.documents_read += 1
        usage.bytes_read += len(text) if text.isascii() else len(text.encode())
        if usage.documents_read > limits.documents_read:
            raise too_many_documents_read(limits)
        if usage.bytes_read > limits.bytes_read:
            raise too_many_bytes_read(limits)

    def _count_write(self, size: int) -> None:
        limits, usage = self.limits, self.usage
        usage.documents_written += 1
        usage.bytes_written += size
        if usage.documents_written > limits.documents_written:
            raise too_many_documents_written(limits)
        if usage.bytes_written > limits.bytes_written:
            raise too_many_bytes_written(limits)


def _document(id: str, creation_time: float, text: str) -> dict[str, Any]:
    document: dict[str, Any] = decode_document(text)
    document["_id"] = id
    document[CREATION_TIME] = creation_time
    return document


def _without_system_fields(id: str, creation_time: float, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value without `_id` and `_creationTime`, which may be given if they are what they were."""
    if "_id" not in value and CREATION_TIME not in value:
        return value
    fields = dict(value)
    if fields.pop("_id", id) != id:
        raise DatabaseUsageError(f"Provided document ID {id} doesn't match '_id' field {value['_id']!r}")
    given = fields.pop(CREATION_TIME, creation_time)
    if normalize(given) != creation_time:
        raise DatabaseUsageError(
            f"Provided creation time {creation_time} doesn't match '_creationTime' field {given!r}"
        )
    return fields


def _key_of_row(row: Row) -> bytes:
    return row.key or id_key(row.id)


def _row(key: bytes, document: StoredDocument | None) -> Row:
    assert document is not None
    return Row(document.id, document.creation_time, document.text, key)


def _merged(stored: Iterator[Row], written: list[Row], *, descending: bool) -> Iterator[Row]:
    """Two sequences of rows in index order as one; keys never repeat."""
    before: Callable[[bytes, bytes], bool] = (lambda a, b: a > b) if descending else (lambda a, b: a < b)
    waiting = iter(written)
    mine = next(waiting, None)
    for row in stored:
        key = row.key or id_key(row.id)
        while mine is not None and before(mine.key, key):
            yield mine
            mine = next(waiting, None)
        yield row
    if mine is not None:
        yield mine
        yield from waiting
