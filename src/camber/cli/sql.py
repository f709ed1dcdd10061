"""`camber sql`: run a statement that reads."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from camber.cli.printing import counted, note, say
from camber.cli.rows import FormatOption, Row, write_rows
from camber.cli.targets import Rows, Target, ask
from camber.cli.where import NOWHERE, Where, open_target
from camber.errors import ConfigurationError


def sql(
    statement: Annotated[
        str | None,
        Parameter(
            help="One SQL statement; - reads it from stdin. Without it: what can be selected from.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    /,
    *,
    format: FormatOption = None,
    limit: Annotated[int, Parameter(help="How many rows at most.")] = 1_000,
    where: Where = NOWHERE,
) -> None:
    """Run one SQL statement that reads.

    It sees the latest state. Each table is there under its own name, with its
    fields as typed columns, _id and _creationTime.

    For example:

        camber sql 'SELECT tier, count(*) FROM crowdfunding_backers GROUP BY tier'
        camber sql --format csv - < report.sql
    """
    if limit < 1:
        raise ConfigurationError(f"--limit is how many rows to show at most, not {limit}")
    if statement is not None and re.fullmatch(r"-\S+", statement):
        raise ConfigurationError(f"there is no option {statement}; see: camber sql --help")
    text = sys.stdin.read() if statement == "-" else statement
    with open_target(where) as target:
        if text is None:
            _show_views(target)
            return
        found = target.sql(text, limit=limit)
    write_rows(_named(found), _unique(found.columns), format)
    if found.more:
        note(f"the first {counted(limit, 'row')}; there are more: --limit shows them")


def _show_views(target: Target) -> None:
    tables: list[dict[str, Any]] = ask(target, "_system/camber/tables:describe")
    for table in tables:
        say(f"{table['name']} ({', '.join(['_id', '_creationTime', *table['columns']])})")


def _named(found: Rows) -> list[Row]:
    columns = _unique(found.columns)
    return [dict(zip(columns, row, strict=True)) for row in found.rows]


def _unique(columns: list[str]) -> list[str]:
    """The names, with a number behind those that were there before: a join may have two columns `name`."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
