"""The unmodified `npx convex logs` against a real server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from uuid import uuid4

import pytest

from tests.wire.convex_project import ConvexProject
from tests.wire.running_server import REPOSITORY, RunningServer, running_server

PATIENCE = 30.0
MOMENT = 2.0
"""More than the command needs from saying that it watches to its first request."""


@pytest.fixture
def project(tmp_path: Path, server: RunningServer) -> ConvexProject:
    return ConvexProject(tmp_path, server)


def test_what_ended_before_is_printed_with_history(project: ConvexProject) -> None:
    mark = uuid4().hex
    call(project, "echo:logged", {"text": mark})
    call(project, "echo:fromMutation", {"value": mark})
    call(project, "failures:plainly", {})

    with project.running("logs", "--history", "3", "--success") as process:
        lines = watching(process)
        logged, ran, mutated, failed = (lines.get(timeout=PATIENCE) for _ in range(4))

    assert logged.endswith(f"[CONVEX Q(echo:logged)] [INFO] '{mark}'")
    assert "[CONVEX Q(echo:logged)] Function executed in " in ran
    assert "[CONVEX M(echo:fromMutation)] Function executed in " in mutated
    assert failed.endswith("[CONVEX Q(failures:plainly)] Uncaught ValueError: the cupboard is bare")


def test_a_line_is_printed_when_it_is_logged_and_only_once(project: ConvexProject) -> None:
    mark = uuid4().hex
    call(project, "echo:logged", {"text": f"{mark} before"})
    with project.running("logs", "--jsonl") as process:
        lines = watching(process)
        time.sleep(MOMENT)
        call(project, "echo:logged", {"text": f"{mark} meanwhile"})
        run = json.loads(lines.get(timeout=PATIENCE))
        with pytest.raises(Empty):
            lines.get(timeout=MOMENT)

    assert (run["kind"], run["udfType"], run["identifier"]) == ("Completion", "Query", "echo:logged")
    assert run["logLines"][0]["messages"] == [f"'{mark} meanwhile'"]


def test_the_first_line_on_a_new_server_is_printed_too(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    with running_server(REPOSITORY / "tests/wire/app", tmp_path / "data") as server:
        project = ConvexProject(folder, server)
        with project.running("logs") as process:
            lines = watching(process)
            time.sleep(MOMENT)
            call(project, "echo:logged", {"text": "the first"})

            assert lines.get(timeout=PATIENCE).endswith("[CONVEX Q(echo:logged)] [INFO] 'the first'")


def watching(process: subprocess.Popen[str]) -> Queue[str]:
    """The lines that `npx convex logs` prints, as they come, once it has begun to watch."""
    lines: Queue[str] = Queue()

    def read() -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
        except ValueError:  # the test is over, and the pipe closed
            pass

    threading.Thread(target=read, daemon=True).start()
    while "Watching logs" not in lines.get(timeout=PATIENCE):
        pass
    return lines


def call(project: ConvexProject, path: str, args: object) -> None:
    project.convex("run", path, json.dumps(args))
