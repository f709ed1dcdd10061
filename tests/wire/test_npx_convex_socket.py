"""The commands of the unmodified `npx convex` that ask over the WebSocket, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from uuid import uuid4

import pytest

from tests.wire.raw_client import raw_client
from tests.wire.running_server import REPOSITORY, RunningServer, clean_environment

SECONDS = 60.0
# What `npx convex` starts, without the second that npx itself takes.
CONVEX = [shutil.which("node") or "node", str(REPOSITORY / "node_modules/convex/bin/main.js")]

Result = subprocess.CompletedProcess[str]


class Project:
    """A folder as the command line wants it, and the deployment that it works on."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": {"convex": "*"}}))
        (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
        # With CI set the command line reports nothing to anybody.
        environment = clean_environment() | {"CI": "1", "npm_config_offline": "true"}
        deployment = {"CONVEX_SELF_HOSTED_URL": server.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key}
        self.folder, self.environment = folder, environment | deployment

    def convex(self, *arguments: str) -> Result:
        """Run `npx convex` with these arguments to its end."""
        return subprocess.run(
            [*CONVEX, *arguments],
            cwd=self.folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def together(self, *commands: tuple[str, ...]) -> list[Result]:
        """Several commands that don't disturb each other, side by side."""
        with ThreadPoolExecutor(len(commands)) as threads:
            return list(threads.map(lambda command: self.convex(*command), commands))

    @contextmanager
    def watching(self, *arguments: str) -> Iterator[Queue[str]]:
        """`npx convex run --watch` until the block is left; gives the lines that it prints."""
        lines: Queue[str] = Queue()
        # In a group of its own, so that the interruption reaches its children too.
        process = subprocess.Popen(
            [*CONVEX, "run", "--watch", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

        def read() -> None:
            assert process.stdout
            with process.stdout as printed:
                for line in printed:
                    lines.put(line.strip())

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield lines
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reader.join(10)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, sync_server: RunningServer) -> Project:
    return Project(tmp_path_factory.mktemp("project"), sync_server)


def wait_for_line(lines: Queue[str], wanted: str) -> None:
    """Wait until this line is printed."""
    seen: list[str] = []
    deadline = time.monotonic() + SECONDS
    while wanted not in seen:
        try:
            seen.append(lines.get(timeout=max(0.0, deadline - time.monotonic())))
        except Empty:
            raise AssertionError(f"waited for {wanted!r}; printed: {seen}") from None


def test_run_watch_prints_every_new_value(project: Project, sync_server: RunningServer) -> None:
    name = uuid4().hex[:12]
    with project.watching("counters:get", json.dumps({"name": name})) as lines, raw_client(sync_server.url) as writer:
        writer.connect()
        wait_for_line(lines, "0")
        for request_id, total in enumerate((10, 20, 30)):
            writer.mutation(request_id, "counters:add", name=name, by=10)
            wait_for_line(lines, str(total))


def test_environment_variables_are_set_listed_watched_and_removed(project: Project) -> None:
    name = f"GREETING_{uuid4().hex[:8]}"
    with project.watching("callers:variable", json.dumps({"name": name})) as lines:
        added = project.convex("env", "set", name, "hello")
        wait_for_line(lines, '"hello"')
        listed, got = project.together(("env", "list"), ("env", "get", name))
        removed = project.convex("env", "remove", name)
        wait_for_line(lines, "null")
    missing = project.convex("env", "get", name)

    assert [result.returncode for result in (added, listed, got, removed)] == [0] * 4
    assert f"{name}=hello" in listed.stdout.splitlines()
    assert got.stdout.strip() == "hello"
    assert f'Environment variable "{name}" not found' in missing.stderr


def test_a_wrong_name_is_answered_with_the_functions_there_are(project: Project) -> None:
    result = project.convex("run", "counters:nothing")

    assert result.returncode == 1
    assert "Could not find function for 'counters:nothing'" in result.stderr
    assert "Available functions:" in result.stderr
    assert {"• counters:get", "• counters:addInAction", "• callers:secret"} <= set(result.stderr.splitlines())


def test_data_shows_tables_and_their_documents(project: Project, sync_server: RunningServer) -> None:
    name = uuid4().hex[:12]
    with raw_client(sync_server.url) as writer:
        writer.connect()
        writer.mutation(0, "lists:change", listName=name, add=[1, 2, 3], remove=[], text="shown")
        assert writer.hear_response()["success"]

    tables, newest, oldest, missing = project.together(
        ("data",),
        ("data", "items", "--limit", "2"),
        ("data", "items", "--order", "asc", "--limit", "1000", "--format", "jsonArray"),
        ("data", "nothing"),
    )

    assert tables.stdout.split() == ["counters", "items", "kept"]
    assert [line.split("|")[3].strip() for line in newest.stdout.splitlines() if name in line] == ["3", "2"]
    mine = [document for document in json.loads(oldest.stdout) if document["listName"] == name]
    assert [document["seq"] for document in mine] == [1, 2, 3]
    assert missing.returncode == 1
    assert 'There is no table "nothing"' in missing.stderr


def test_function_spec_and_network_test(project: Project, sync_server: RunningServer) -> None:
    printed, tested = project.together(("function-spec",), ("network-test",))

    spec = json.loads(printed.stdout)
    assert spec["url"] == sync_server.url
    functions = {function["identifier"]: function for function in spec["functions"]}
    assert functions["counters.js:get"]["functionType"] == "Query"
    assert functions["counters.js:addInAction"]["functionType"] == "Action"
    assert functions["callers.js:secret"]["visibility"] == {"kind": "internal"}
    name = {"fieldType": {"type": "string"}, "optional": False}
    assert functions["counters.js:get"]["args"] == {"type": "object", "value": {"name": name}}
    assert tested.returncode == 0
    assert "WebSocket connection established" in tested.stderr + tested.stdout
