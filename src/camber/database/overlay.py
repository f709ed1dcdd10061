"""Writes that are not committed yet, laid over a snapshot: what a group of mutations has written so far, one after another.

There is one overlay for a whole group. What a mutation or a sub-transaction wrote is taken back through the journal when it
fails, so a read looks at one place however deep the nesting is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from camber.database.ranges import KeyRange
from camber.database.reads import WHOLE_TABLE_BYTES, IndexName, Touched
from camber.storage import BY_ID, RowWrite

_KEY_BYTES = 25
"""The end of every full key: creation time and id."""


class StoredDocument(NamedTuple):
    """A document with everything a commit needs of it: its stored text, and its full keys in the order of the table's indexes."""

    table: int
    id: str
    creation_time: float
    text: str
    keys: tuple[bytes, ...]
    unique_keys: tuple[bytes | None, ...]


_Change = tuple[int, str, StoredDocument | None, StoredDocument | None, bool]
"""One journal entry: table and id, the document before and after (None: there was or is none), and whether it was written before."""


_Difference = tuple[StoredDocument | None, StoredDocument | None]
"""A document before and after."""


class Overlay:
    """The documents written since a snapshot, by table and id, and by index where an index was read."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[str, StoredDocument | None]] = {}
        self._before: dict[str, StoredDocument] = {}
        """The stored documents that are overlaid."""
        self._journal: list[_Change] = []
        self._hidden: dict[int, int] = {}
        self._sorted: dict[int, dict[int, list[tuple[bytes, str]]]] = {}
        self._holders: dict[int, list[dict[bytes | None, str]]] = {}
        """By table, for each unique index in order: who has which unique key."""

    # Reading

    def of_table(self, table: int) -> dict[str, StoredDocument | None] | None:
        """What was written to this table: by id, None for a delete; None if nothing was."""
        return self._tables.get(table)

    def hidden(self, table: int) -> int:
        """How many stored rows of this table are overlaid: a scan of the snapshot meets at most so many that don't count."""
        return self._hidden.get(table, 0)

    def taken(self, document: StoredDocument) -> tuple[int, str] | None:
        """The place of a unique key of the document that another written one has, and that one's id."""
        holders = self._holders.get(document.table)
        if holders is not None:
            for place, key in enumerate(document.unique_keys):
                if key in holders[place] and (holder := holders[place][key]) != document.id:
                    return place, holder
        return None

    def entries(self, table: int, position: int, keys: KeyRange) -> list[tuple[bytes, str]]:
        """Keys and ids of the written documents in this range, ascending.

        `position` says where the index's key stands in `StoredDocument.keys`; BY_ID is by id. An index is sorted when it is first read.
        """
        of_table = self._sorted.setdefault(table, {})
        listed = of_table.get(position)
        if listed is None:
            documents = self._tables.get(table, {}).values()
            listed = of_table[position] = sorted(
                (_key(document, position), document.id) for document in documents if document
            )
        start = bisect_left(listed, (keys.lower,))
        return listed[start:] if keys.upper is None else listed[start : bisect_left(listed, (keys.upper,))]

    # Writing

    def put(self, table: int, id: str, before: StoredDocument | None, after: StoredDocument | None) -> None:
        """Record a write; `before` is what a read under this id gave."""
        written = self._tables.get(table)
        if written is None:
            written = self._tables[table] = {}
        known = id in written
        if before is not None and not known:
            self._before[id] = before
            self._hidden[table] = self._hidden.get(table, 0) + 1
        self._journal.append((table, id, before, after, known))
        written[id] = after
        self._resort(table, before if known else None, after)

    def mark(self) -> int:
        """A point to which `rollback` can return."""
        return len(self._journal)

    def rollback(self, mark: int, *, surviving: int | None = None) -> None:
        """Take back what was written since the mark, except in the table whose writes survive."""
        left: list[_Change] = []
        while len(self._journal) > mark:
            change = self._journal.pop()
            if change[0] == surviving:
                left.append(change)
            else:
                self._take_back(change)
        self._journal += reversed(left)

    def wrote_since(self, mark: int) -> bool:
        """Whether anything was written since the mark."""
        return len(self._journal) > mark

    def _take_back(self, change: _Change) -> None:
        table, id, before, after, was_known = change
        written = self._tables[table]
        self._resort(table, after, before if was_known else None)
        if was_known:
            written[id] = before
            return
        if before is not None:
            self._hidden[table] -= 1
            del self._before[id]
        del written[id]
        if not written:
            del self._tables[table]

    def _resort(self, table: int, old: StoredDocument | None, new: StoredDocument | None) -> None:
        self._hand_over_keys(table, old, new)
        lists = self._sorted.get(table)
        if lists is None:
            return
        for position, listed in lists.items():
            if old is not None:
                del listed[bisect_left(listed, (_key(old, position), old.id))]
            if new is not None:
                insort(listed, (_key(new, position), new.id))

    def _hand_over_keys(self, table: int, old: StoredDocument | None, new: StoredDocument | None) -> None:
        if old is not None and old.unique_keys:
            for of_index, key in zip(self._holders[table], old.unique_keys, strict=True):
                if key is not None and of_index.get(key) == old.id:
                    del of_index[key]
        if new is not None and new.unique_keys:
            holders = self._holders.get(table)
            if holders is None:
                holders = self._holders[table] = [{} for _ in new.unique_keys]
            for of_index, key in zip(holders, new.unique_keys, strict=True):
                if key is not None:
                    of_index[key] = new.id

    # Committing

    def row_writes(self) -> list[RowWrite]:
        """What a commit of everything written so far does to the rows."""
        writes: list[RowWrite] = []
        for before, after in self._differences():
            if after is not None:
                row = RowWrite(
                    after.table,
                    after.id,
                    after.creation_time,
                    after.text,
                    after.keys,
                    after.unique_keys,
                    before is None,
                    before.keys if before else (),
                )
                writes.append(row)
            elif before is not None:
                writes.append(RowWrite(before.table, before.id, before.creation_time, None))
        return writes

    def touched(self, indexes: Mapping[int, Sequence[int]]) -> Touched:
        """The keys, old and new, of everything that ends other than it began. `indexes` has a table's index numbers in key order."""
        return _touched(self._differences(), indexes)

    def touched_between(self, marks: tuple[int, int], indexes: Mapping[int, Sequence[int]]) -> Touched:
        """The keys of everything that was written between two marks, also of what was written over again."""
        return _touched([change[2:4] for change in self._journal[slice(*marks)]], indexes)

    def only(self, parts: Iterable[tuple[int, int]]) -> Overlay:
        """An overlay with what was written between these pairs of marks alone. None of it may rest on what is left out."""
        other = Overlay()
        for part in parts:
            for table, id, before, after, _ in self._journal[slice(*part)]:
                other.put(table, id, before, after)
        return other

    def _differences(self) -> Iterator[_Difference]:
        before_all = self._before
        for written in self._tables.values():
            for id, after in written.items():
                before = before_all.get(id)
                if (before and before.text) != (after and after.text):
                    yield before, after


def _touched(changes: Iterable[_Difference], indexes: Mapping[int, Sequence[int]]) -> Touched:
    by_table: defaultdict[int, list[StoredDocument]] = defaultdict(list)
    for change in changes:
        for document in change:
            if document is not None:
                by_table[document.table].append(document)
    keys: dict[IndexName, Sequence[bytes]] = {}
    whole: list[int] = []
    for table, documents in by_table.items():
        # Each key is at least this long, so these would be more than a commit names.
        if len(documents) * len(indexes[table]) * _KEY_BYTES > WHOLE_TABLE_BYTES:
            whole.append(table)
            continue
        keys[table, BY_ID] = [id_key(document.id) for document in documents]
        columns = zip(*[document.keys for document in documents], strict=True)
        for number, column in zip(indexes[table], columns, strict=True):
            keys[table, number] = column
    return Touched(keys, whole)


def id_key(id: str) -> bytes:
    """The key of a document in the order by id."""
    return b"\x07" + id.encode() + b"\x00"


def _key(document: StoredDocument, position: int) -> bytes:
    return id_key(document.id) if position == BY_ID else document.keys[position]
