"""The unmodified `npx convex logs` against a real server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, Queue
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.wire.convex_project import ConvexProject
from tests.wire.loose_wire import loose_wire
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

PATIENCE = 60.0
MOMENT = 2.0
"""More than a line usually needs to be printed."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command is called."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_what_ended_before_is_printed_with_history(server: RunningServer, folder: Path) -> None:
    mark = uuid4().hex
    call(server, "echo:logged", {"text": mark})
    call(server, "echo:fromMutation", {"value": mark})
    call(server, "failures:plainly", {})

    with watching(server, folder, "--history", "3", "--success") as lines:
        logged, ran, mutated, failed = (lines.get(timeout=PATIENCE) for _ in range(4))

    assert logged.endswith(f"[CONVEX Q(echo:logged)] [INFO] '{mark}'")
    assert "[CONVEX Q(echo:logged)] Function executed in " in ran
    assert "[CONVEX M(echo:fromMutation)] Function executed in " in mutated
    assert failed.endswith("[CONVEX Q(failures:plainly)] Uncaught ValueError: the cupboard is bare")


def test_a_line_is_printed_when_it_is_logged_and_only_once(server: RunningServer, folder: Path) -> None:
    mark = uuid4().hex
    call(server, "echo:logged", {"text": f"{mark} before"})
    with watching(server, folder, "--jsonl") as lines:
        call(server, "echo:logged", {"text": f"{mark} meanwhile"})
        run = json.loads(lines.get(timeout=PATIENCE))
        with pytest.raises(Empty):
            lines.get(timeout=MOMENT)

    assert (run["kind"], run["udfType"], run["identifier"]) == ("Completion", "Query", "echo:logged")
    assert run["logLines"][0]["messages"] == [f"'{mark} meanwhile'"]


def test_the_first_line_on_a_new_server_is_printed_too(tmp_path: Path, folder: Path) -> None:
    with (
        running_server(REPOSITORY / "tests/wire/app", tmp_path / "data") as server,
        watching(server, folder) as lines,
    ):
        call(server, "echo:logged", {"text": "the first"})

        assert lines.get(timeout=PATIENCE).endswith("[CONVEX Q(echo:logged)] [INFO] 'the first'")


@contextmanager
def watching(server: RunningServer, folder: Path, *words: str) -> Iterator[Queue[str]]:
    """The lines that `npx convex logs` prints, as they come, once it has asked for what comes next."""
    lines: Queue[str] = Queue()

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
        except ValueError:  # the test is over, and the pipe closed
            pass

    with loose_wire(server.port) as wire:
        project = ConvexProject(folder, replace(server, port=urlsplit(wire.url).port))
        with project.running("logs", *words) as process:
            threading.Thread(target=read, args=(process,), daemon=True).start()
            while "Watching logs" not in lines.get(timeout=PATIENCE):
                pass
            deadline = time.monotonic() + PATIENCE
            while wire.said.count(b"GET /api/stream_function_logs?") < 2:  # with the first it asks where the end is
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield lines


def call(server: RunningServer, path: str, args: object) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    headers = {"Authorization": f"Convex {server.admin_key}"}
    connection.request("POST", "/api/function", json.dumps({"path": path, "args": args}), headers)
    assert connection.getresponse().status == 200
    connection.close()
