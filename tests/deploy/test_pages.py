"""What the pages on running a deployment say of it is so: queries, lines of the log, reasons, figures, tables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from camber import backend
from camber.auth import tokens
from camber.auth.signatures import MAX_KEYS
from camber.backend import Backend
from camber.database import committer, database, feed, follower, held_snapshots, requests, rolling
from camber.database.catalog import SYSTEM_TABLES
from camber.database.reads import WHOLE_TABLE_BYTES
from camber.functions import action_pool, environment, live, load_application, run_records
from camber.schema.tables import MAX_INDEXES
from camber.server import addresses, answers, clients, credentials, endpoints, function_logs, ports
from camber.settings import Settings
from camber.storage.postgres import statements, writing
from camber.storage.postgres.building import SCHEMA_LOCK
from camber.storage.postgres.storage import START_SECONDS
from camber.storage.postgres.writing import COMMIT_LOCK
from camber.storage.sqlite import connections as sqlite_connections
from camber.storage.sqlite import storage as sqlite_storage
from camber.storage.sqlite import writing as sqlite_writing
from camber.sync.worker import PING_SECONDS, SILENCE_SECONDS
from tests.docs.blocks import REPOSITORY, blocks_of
from tests.postgres.cluster import Cluster

DOCS = REPOSITORY / "docs"
MONITOR, GROWTH = DOCS / "how-to/monitor.md", DOCS / "reference/growth.md"
SOURCES = sorted((REPOSITORY / "src/camber").rglob("*.py"))
CROWDFUNDING = REPOSITORY / "apps/crowdfunding"

KIB, MIB = 1 << 10, 1 << 20
ONE, SEVERAL = "how-to/deploy-on-one-machine.md", "how-to/deploy-several-servers.md"
ON_POSTGRES, ROLL = "how-to/deploy-on-postgresql.md", "how-to/roll-out-a-new-version.md"
BEYOND = "explanation/beyond-one-machine.md"

FIGURES: list[tuple[str, str, tuple[float, ...]]] = [
    ("reference/growth.md", "those that mutations make by inserting stop at {}", (database.MAX_TABLES,)),
    ("reference/growth.md", "| an index | up to {} a table", (MAX_INDEXES,)),
    ("reference/growth.md", "up to {} KiB | {} |", (environment.MAX_VALUE_BYTES / KIB, environment.MAX_VARIABLES)),
    ("reference/growth.md", "with its result up to {} KiB", (requests.MAX_RESULT_BYTES / KIB,)),
    ("reference/growth.md", "those of {} hours", (requests.KEPT_MS / 3_600_000,)),
    ("reference/growth.md", "that every process runs each {} seconds", (backend.HOUSEKEEPING_SECONDS,)),
    ("reference/growth.md", "It deletes {} rows at most", (backend.CLEARED_AT_ONCE,)),
    ("reference/growth.md", "the others after {} seconds without a word", (rolling.GONE_SECONDS,)),
    ("reference/growth.md", "the index keys it touched, up to {} KiB", (WHOLE_TABLE_BYTES / KIB,)),
    ("reference/growth.md", "the process that commits, every {} seconds", (committer.COMMITS_KEPT_SECONDS / 6,)),
    ("reference/growth.md", "from {} pages on", (sqlite_storage.CHECKPOINT_PAGES,)),
    ("reference/growth.md", "cut back to {} MiB", (sqlite_connections._WAL_BYTES_KEPT / MIB,)),
    (
        "reference/growth.md",
        "{} and {} MiB | the oldest goes; a run that began before",
        (feed.REMEMBERED_COMMITS, feed.REMEMBERED_BYTES / MIB),
    ),
    (
        "reference/growth.md",
        "{} and {} MiB; {} KiB of one run's lines",
        (run_records.MOST_RECORDS, run_records.MOST_BYTES / MIB, run_records.RECORD_LINE_BYTES / KIB),
    ),
    (
        "reference/growth.md",
        "{}, of {} KiB at most, each with an answer of up to {} KiB",
        (endpoints._KNOWN_CALLS, endpoints._KNOWN_CALL_BYTES / KIB, endpoints._KEPT_ANSWER_BYTES / KIB),
    ),
    ("reference/growth.md", "verified tokens | {} |", (tokens.REMEMBERED,)),
    ("reference/growth.md", "addresses of anonymous callers | {} each", (credentials._REMEMBERED,)),
    (
        "reference/growth.md",
        "addresses of connections, origins, client versions | {}, {}, {} |",
        (addresses._REMEMBERED, answers._REMEMBERED_ORIGINS, clients._REMEMBERED),
    ),
    ("reference/growth.md", "keys of an identity provider | {}, in 256 KiB", (MAX_KEYS,)),
    ("reference/growth.md", "which ends after {} idle seconds", (action_pool._IDLE_SECONDS,)),
    ("reference/growth.md", "until the process takes them | {} |", (ports.BACKLOG,)),
    (
        "reference/growth.md",
        "{} ({} and `query_threads`), each with up to {} MiB of cached pages; {} MiB for the writer",
        (
            Settings().query_threads + held_snapshots.MAX_HELD + live.OPEN_TICKS * live.LANES + backend.SPARE_READERS,
            held_snapshots.MAX_HELD + live.OPEN_TICKS * live.LANES + backend.SPARE_READERS,
            sqlite_connections._READER_CACHE_KIB / KIB,
            sqlite_connections._WRITER_CACHE_KIB / KIB,
        ),
    ),
    ("reference/growth.md", "statements prepared on each of them | {} |", (statements.MOST_KEPT,)),
    (
        "reference/growth.md",
        "snapshots of `/api/query_ts` | {}, for {} seconds",
        (held_snapshots.MAX_HELD, held_snapshots.HELD_SECONDS),
    ),
    ("reference/growth.md", "readers of the log of functions who wait | {} |", (function_logs.MOST_WAITING,)),
    ("reference/growth.md", "threads that did not stop | {} |", (backend.MAX_ABANDONED_THREADS,)),
    (ONE, "which is {}, as far as", (2 * Settings().connections + 512,)),
    (ONE, "gives up after {} seconds", (START_SECONDS,)),
    (ON_POSTGRES, "for\n  {} seconds, [`CommitUnknown`]", (writing.SETTLE_SECONDS,)),
    (ON_POSTGRES, "`database_connections` ({}) for reading", (Settings().database_connections,)),
    (SEVERAL, "at least every {} seconds and drops a client", (PING_SECONDS,)),
    (SEVERAL, "has said nothing\n  for {}, so", (SILENCE_SECONDS,)),
    (ROLL, "when it has said nothing for {} seconds", (rolling.GONE_SECONDS,)),
    (ROLL, "their keys, {} at a time", (database.FILLED_AT_ONCE,)),
    ("how-to/monitor.md", "for {} seconds it could not read", (follower.TROUBLE_SECONDS,)),
    ("how-to/monitor.md", "after {} seconds one of those who wait ends it", (writing.LOCKED_SECONDS + 1,)),
    (
        "how-to/monitor.md",
        "database_connections` + 4 of them for each worker: {} + 4",
        (Settings().database_connections,),
    ),
    (BEYOND, "a group has as many mutations, up to {}, as", (committer.MAX_MEMBERS,)),
    (BEYOND, "writes wait for about {} seconds", (writing.LOCKED_SECONDS + 1,)),
    (BEYOND, "only if for {} seconds", (writing.SETTLE_SECONDS,)),
]


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The cells of the tables that begin with this heading cell."""
    tables = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    return [
        [cell.strip() for cell in re.split(r" \| ", line.strip("| "))]
        for table in tables
        for line in table.splitlines()
    ]


def constants(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def logged() -> Iterator[tuple[str, str]]:
    """Each text that is logged, and its level."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        named: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                named.setdefault(node.targets[0].id, set()).update(constants(node.value))
        for node in ast.walk(tree):
            match node:
                case ast.Call(ast.Attribute(ast.Name("_log"), level), [text, *_]):
                    found = named.get(text.id, set()) if isinstance(text, ast.Name) else constants(text)
                    for each in found:
                        yield each, "error" if level == "exception" else level


@pytest.mark.parametrize(("page", "text", "values"), FIGURES)
def test_a_figure_is_that_of_the_code(page: str, text: str, values: tuple[float, ...]) -> None:
    assert all(float(value).is_integer() for value in values)
    assert text.format(*(f"{int(value):,}" for value in values)) in (DOCS / page).read_text()


def test_the_largest_that_a_wal_becomes_before_readers_are_waited_for_is_said() -> None:
    pages = sqlite_writing._OVERGROWN * sqlite_storage.CHECKPOINT_PAGES

    assert round(sqlite_storage.CHECKPOINT_PAGES * 4 / 1024) == 16
    assert "about 16 MiB: from" in GROWTH.read_text()
    assert 60 < pages * 4 / 1024 <= 64
    assert "Under load without a pause 64 MiB" in GROWTH.read_text()


def test_all_tables_of_the_engine_are_said_to_grow_and_no_others() -> None:
    named = {row[0] for row in rows_of(GROWTH, "table")}

    assert {f"`{table.name}`" for table in SYSTEM_TABLES} == {name for name in named if name.startswith("`_")}


def test_every_bound_that_is_a_setting_has_its_default() -> None:
    written = re.findall(r"(\d[\d,]*)( MiB)? `(\w+)`", GROWTH.read_text())

    assert {name for _, _, name in written} >= {"cache_bytes", "queued_mutations", "connections"}
    for figure, unit, name in written:
        assert int(figure.replace(",", "")) == getattr(Settings(), name) // (MIB if unit else 1), name


def test_each_line_of_the_log_on_the_page_is_logged_at_that_level() -> None:
    lines = set(logged())
    rows = rows_of(MONITOR, "`event` begins")

    assert len(rows) > 20
    for event, level, meaning in rows:
        assert any(f"{text}".startswith(event.strip("`")) and level == found for text, found in lines), event
        assert meaning


def test_each_reason_not_to_be_ready_is_on_the_page() -> None:
    (method,) = [
        node
        for node in ast.walk(ast.parse((REPOSITORY / "src/camber/backend.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "ready"
    ]
    texts = [text.strip() for node in ast.walk(method) if isinstance(node, ast.Return) for text in constants(node)]
    reasons = [re.sub(r"^\d+ | ?…$", "", row[0].strip("`")) for row in rows_of(MONITOR, "`/readyz` says")]

    assert len(texts) > 3
    for text in texts:
        assert any(text.startswith(reason) or reason in text for reason in reasons), text
    assert "PostgreSQL can't be reached" in reasons
    assert "PostgreSQL can't be reached" in (REPOSITORY / "src/camber/database/follower.py").read_text()


def test_who_watches_can_ask_all_that_the_page_asks_and_finds_who_has_the_locks(tmp_path: Path) -> None:
    first, *others = [block.text for block in blocks_of(MONITOR) if block.language == "sql"]
    with Cluster() as cluster:
        cluster.sql("CREATE DATABASE camber TEMPLATE template0 ENCODING 'UTF8'")
        url = cluster.url("camber")
        application = load_application(CROWDFUNDING)
        settings = Settings(database_url=url)
        with closing(Backend.open(application, tmp_path / "data", settings=settings, create=True)):
            for statement in first.split(";\n")[:-1]:
                cluster.sql(statement, url=url)
            with psycopg.connect(url) as holder, psycopg.connect(url.replace("postgres@", "watcher@")) as watcher:
                for lock in (COMMIT_LOCK, SCHEMA_LOCK):
                    holder.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
                answers = [_dicts(watcher.execute(statement.encode())) for statement in others]

    locks, transactions, log, servers, tables, found, _, _ = answers
    assert [(row["lock"], row["granted"]) for row in locks] == [("commit", True), ("schema", True)]
    assert transactions == []
    assert log[0]["groups_in_a_minute"] > 0
    assert 0 <= log[0]["oldest"] < 60
    assert [row["schema"] for row in servers] == [1.0]
    assert {"users", "_servers", "commits"} <= {row["table"] for row in tables}
    assert max(row["connections"] for row in found if row["application_name"] == "camber") > 1


def _dicts(cursor: psycopg.Cursor[Any]) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
