"""Rows as a table for people, or as JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import csv
import sys
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from struct import unpack
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from camber.cli.printing import json_text, number_text, visible

RowFormat = Literal["table", "json", "jsonl", "csv"]
Row = Mapping[str, object]

FormatOption = Annotated[
    RowFormat | None,
    Parameter(
        name="--format",
        help="How to print rows. Without it: a table on a terminal, else JSON lines.",
        show_default=False,
    ),
]

_SPECIAL_FLOATS: Final = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN", "-0.0": "-0"}
_CELL: Final = 60
"""Characters of a cell on a terminal, where a row should stay one line."""


def write_rows(rows: Iterable[Row], columns: Sequence[str] | None, format: RowFormat | None) -> int:
    """Print rows and return how many there were. `columns` None: those that the rows have, in order of appearance.

    JSON and CSV with known columns are written as rows arrive. A field that a row lacks is empty.
    """
    counted = _Counted(rows)
    match format or ("table" if sys.stdout.isatty() else "jsonl"):
        case "jsonl":
            for row in counted:
                print(json_text(row))
        case "json":
            _write_json(counted)
        case "csv":
            _write_csv(*_with_columns(counted, columns))
        case "table":
            _write_table(*_with_columns(counted, columns))
    return counted.count


class _Counted:
    """Rows that are counted as they pass."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


def _with_columns(rows: Iterable[Row], columns: Sequence[str] | None) -> tuple[Iterable[Row], Sequence[str]]:
    if columns is not None:
        return rows, columns
    kept = list(rows)
    return kept, list(dict.fromkeys(chain.from_iterable(kept)))


def _write_json(rows: Iterable[Row]) -> None:
    before = "["
    for row in rows:
        print(f"{before}\n  {json_text(row, indent=2).replace(chr(10), chr(10) + '  ')}", end="")
        before = ","
    print("[]" if before == "[" else "\n]")


def _write_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(columns)
    for row in rows:
        out.writerow([_plain(row[name]) if name in row else "" for name in columns])


def _write_table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(Text(visible(name)), no_wrap=True, overflow="ellipsis")
    for row in rows:
        cells = [
            visible(_plain(row[name])).replace("\n", "\\n").replace("\t", "\\t") if name in row else ""
            for name in columns
        ]
        table.add_row(*(Text(_shortened(cell) if on_terminal else cell) for cell in cells))
    if table.row_count:
        # Elsewhere than on a terminal nothing is cut off.
        Console(highlight=False, width=None if on_terminal else 1_000_000).print(table)


def _shortened(cell: str) -> str:
    return cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…"


def _plain(value: object) -> str:
    """A value in one cell: text as it is, all else as JSON; numbers and bytes that JSON lacks without their wrapping."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return number_text(value)
    match value:
        case {"$integer": str(number)}:
            return str(int.from_bytes(b64decode(number), "little", signed=True))
        case {"$float": str(number)}:
            found = repr(unpack("<d", b64decode(number))[0])
            return _SPECIAL_FLOATS.get(found, found)
        case {"$bytes": str(encoded)}:
            return encoded
        case _:
            return json_text(value)
