"""The commands of the unmodified `npx convex` that can't work here: each asks once, and says what to use instead."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.wire.convex_project import ConvexProject
from tests.wire.loose_wire import LooseWire, loose_wire
from tests.wire.running_server import RunningServer

PUSHING = ("takes no pushed code", "`camber dev`", "`camber serve`", "`anyApi`")


@pytest.fixture
def wire(server: RunningServer) -> Iterator[LooseWire]:
    with loose_wire(server.port) as wire:
        yield wire


@pytest.fixture
def project(tmp_path: Path, server: RunningServer, wire: LooseWire) -> ConvexProject:
    (tmp_path / "notes.jsonl").write_text('{"title": "a", "value": 1}\n')
    with zipfile.ZipFile(tmp_path / "snapshot.zip", "w") as snapshot:
        snapshot.writestr("notes/documents.jsonl", '{"title": "a", "value": 1}\n')
    return ConvexProject(tmp_path, replace(server, port=urlsplit(wire.url).port))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("dev",), PUSHING),
        (("dev", "--once"), PUSHING),
        (("init",), PUSHING),
        (("deploy", "--yes"), PUSHING),
        (("codegen",), PUSHING),
        (("run", "--push", "notes:byTitle", '{"title": "a"}'), PUSHING),
        (("run", "--inline-query", "return 1"), ("--inline-query", "`camber sql`", "`camber data`")),
        (("export", "--path", "out.zip"), ("`camber data TABLE --format jsonl`",)),
        (("import", "--table", "notes", "notes.jsonl"), ("`camber run` with a mutation that inserts",)),
        (("import", "--replace", "--yes", "snapshot.zip"), ("`camber run` with a mutation that inserts",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_command_that_cannot_work_says_what_to_use_instead(
    project: ConvexProject, wire: LooseWire, words: tuple[str, ...], advice: tuple[str, ...]
) -> None:
    result = project.convex(*words)
    asked = re.findall(rb"([A-Z]+ /\S*) HTTP/1.1\r\n", bytes(wire.said))

    assert result.returncode == 1, result
    assert result.stderr.count("NotOfferedYet") == 1, result.stderr
    for words_to_find in advice:
        assert words_to_find in result.stderr
    assert "Retrying" not in result.stderr
    assert "Unexpected Error" not in result.stderr
    # What it takes for a passing trouble it tries again, for half a minute.
    assert len(asked) == len(set(asked)) > 0, asked
    assert not (project.folder / "out.zip").exists()
