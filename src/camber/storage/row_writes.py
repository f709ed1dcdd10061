"""What a driver has to know of a commit's row writes before it makes statements of them: by table, one per row, and which keys change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from camber.storage.interface import RowWrite


def rows_by_table(writes: Iterable[RowWrite]) -> dict[int, Iterable[RowWrite]]:
    """The writes of each table, with what is done to one row taken together."""
    tables: defaultdict[int, dict[str, RowWrite]] = defaultdict(dict)
    for write in writes:
        rows = tables[write.table]
        earlier = rows.get(write.id)
        if earlier is None:
            rows[write.id] = write
        elif earlier.is_new and write.document is None:
            del rows[write.id]
        else:
            rows[write.id] = write._replace(is_new=earlier.is_new, old_keys=earlier.old_keys)
    return {table: rows.values() for table, rows in tables.items()}


def changed_positions(row: RowWrite) -> tuple[int, ...]:
    """The positions of the keys that the update changes; all of them where the old ones are not known."""
    if row.old_keys == row.keys:
        return ()
    if not row.old_keys:
        return tuple(range(len(row.keys)))
    return tuple(position for position, (old, new) in enumerate(zip(row.old_keys, row.keys, strict=True)) if old != new)
