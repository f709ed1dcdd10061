"""`camber reload` and SIGHUP: a running server takes new code without anybody noticing, or goes on with the code before and says why."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from camber import define_schema
from camber.backend import Backend
from camber.functions import application_of, load_application
from camber.server import Reloader, admin_key, create_app
from camber.settings import Settings
from camber.storage.postgres.building import SCHEMA_LOCK
from tests.cli.commands import CAMBER, PATIENCE, Serving, camber, server, serving
from tests.server.asking import Client
from tests.wire.raw_client import adding, raw_client
from tests.wire.running_server import clean_environment, free_ports

VERSION = '\n\n@query\ndef version(ctx: QueryCtx) -> str:\n    """Which code this is."""\n    return "1"\n'
SLOWLY = """

@action
async def version_later(ctx: ActionCtx, *, waits: bool = False) -> str:
    \"\"\"Which code this is; at once, or when there is a file `finish`.\"\"\"
    import asyncio
    from pathlib import Path

    if waits:
        Path("begun").touch()
        async with asyncio.timeout(300):
            while not Path("finish").exists():
                await asyncio.sleep(0.02)
    return "1"
"""

GATE = """

import time
from pathlib import Path

folder = Path(__file__).parents[1]
(folder / "loading").touch()
until = time.monotonic() + 300
while not (folder / "go").exists() and time.monotonic() < until:
    time.sleep(0.02)
"""
"""Loading this stops until there is a file `go`, for longer than anybody waits for the end of a server."""


@pytest.fixture
def library(project: Path) -> Path:
    """The project, with functions that say which version they are of."""
    append(project, "books.py", VERSION + SLOWLY)
    return project


@pytest.fixture
def running(library: Path) -> Iterator[Serving]:
    """A server of it."""
    with server(library) as running:
        yield running


def append(project: Path, file: str, text: str) -> None:
    path = project / "backend" / file
    path.write_text(path.read_text() + text)


def change(project: Path, file: str, old: str, new: str) -> None:
    path = project / "backend" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def wait_until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def change_version(project: Path, before: int, after: int) -> None:
    change(project, "books.py", f'return "{before}"', f'return "{after}"')


def post(running: Serving, path: str, body: object, *, key: str | None = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body), {} if key is None else {"Authorization": f"Convex {key}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def value(running: Serving, kind: str, path: str, **args: object) -> Any:
    status, answer = post(running, f"/api/{kind}", {"path": path, "args": args})
    assert (status, answer["status"]) == (200, "success"), answer
    return answer["value"]


# New code.


def test_the_new_code_is_served_and_what_is_different_is_told(running: Serving, library: Path) -> None:
    camber(library, "run", "books:add", '{"title": "Dune"}')
    change_version(library, 1, 2)
    change(library, "books.py", "def reader(", "def whoever_reads(")
    change(
        library,
        "schema.py",
        'index("by_title", ["title"])',
        'index("by_title", ["title"]).index("by_pages", ["pages"])',
    )
    (library / "backend/clock.py").write_text(
        "import time\n\nfrom camber import QueryCtx, query\n\n\n@query\ndef now(ctx: QueryCtx) -> float:\n    return time.time()\n"
    )

    before = value(running, "query", "books:version")
    result = camber(library, "reload")
    after = value(running, "query", "books:version")

    assert (before, after) == ("1", "2")
    assert result.code == 0, result
    assert result.out.splitlines() == [
        "reloaded:",
        "  file books.py changed",
        "  file clock.py is new",
        "  file schema.py changed",
        "  function books:reader is gone",
        "  function books:whoeverReads is new",
        "  function clock:now is new",
        "  index books.by_pages is new",
    ]
    assert "backend/clock.py:8" in result.err
    assert "uses time.time; use ctx.now" in result.err
    assert value(running, "query", "books:titles") == ["Dune"]
    assert camber(library, "reload").out == "reloaded: nothing has changed\n"


def test_live_queries_show_what_the_new_code_returns_on_the_same_connection(running: Serving, library: Path) -> None:
    camber(library, "run", "books:add", '{"title": "Dune"}')
    with raw_client(running.url) as client:
        client.connect()
        client.modify(adding(0, "books:titles"), adding(1, "books:version"))
        client.hear_value(0, ["Dune"])
        client.hear_value(1, "1")
        change_version(library, 1, 2)
        change(library, "books.py", '[book["title"] for', '[book["title"].upper() for')
        camber(library, "reload")
        client.hear_value(0, ["DUNE"])
        client.hear_value(1, "2")
        client.mutation(0, "books:add", title="Emma")
        client.hear_value(0, ["DUNE", "EMMA"])


def test_calls_that_are_made_meanwhile_notice_nothing(running: Serving, library: Path) -> None:
    stop, seen, added, failures = threading.Event(), (list[str](), list[str]()), [0, 0], list[object]()

    def ask(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        try:
            while not stop.is_set():
                for kind, path, args in (
                    ("query", "books:version", {}),
                    ("mutation", "books:add", {"title": f"{number}"}),
                ):
                    connection.request("POST", f"/api/{kind}", json.dumps({"path": path, "args": args}))
                    response = connection.getresponse()
                    answer = json.loads(response.read())
                    if response.status != 200 or answer["status"] != "success":
                        failures.append(answer)
                    elif kind == "query":
                        seen[number].append(answer["value"])
                    else:
                        added[number] += 1
        except Exception as error:  # noqa: BLE001  it is a failure like any other
            failures.append(error)
        finally:
            connection.close()

    def is_seen(version: int) -> bool:
        return bool(failures) or all(f"{version}" in versions for versions in seen)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: is_seen(1))
        for version in range(1, 6):
            change_version(library, version, version + 1)
            result = camber(library, "reload")
            assert result.code == 0, result
            wait_until(lambda version=version + 1: is_seen(version))
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)

    assert failures == []
    for versions in seen:
        assert versions == sorted(versions)  # nobody is sent back to code before
        assert set(versions) == {"1", "2", "3", "4", "5", "6"}
    titles = value(running, "query", "books:titles")
    assert [titles.count("0"), titles.count("1")] == added


def test_what_runs_ends_with_the_code_it_began_with(running: Serving, library: Path) -> None:
    connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    connection.request("POST", "/api/action", json.dumps({"path": "books:versionLater", "args": {"waits": True}}))
    wait_until((library / "begun").exists)
    change_version(library, 1, 2)
    camber(library, "reload")
    meanwhile = value(running, "action", "books:versionLater")
    (library / "finish").touch()
    began_before = json.loads(connection.getresponse().read())["value"]
    connection.close()

    assert (meanwhile, began_before) == ("2", "1")


def test_the_code_after_a_restart_is_that_of_the_last_reload(library: Path) -> None:
    with server(library) as running:
        change(library, "schema.py", "    pages: int\n", "    pages: int\n    author: NotRequired[str]\n")
        assert camber(library, "reload").out.splitlines()[1:] == [
            "  file schema.py changed",
            "  table books has another shape",
        ]
        assert running.stop() == 0
    with server(library):
        assert camber(library, "reload").out == "reloaded: nothing has changed\n"


# Code that can't be served.


def test_code_that_does_not_load_is_refused_with_every_problem_and_the_code_before_goes_on(
    running: Serving, library: Path
) -> None:
    change_version(library, 1, 2)
    append(library, "settings.py", "\n\ndef broken(:\n")
    (library / "backend/more.py").write_text("from nowhere import nothing\n")
    refused = camber(library, "reload")
    during = value(running, "query", "books:version")

    assert refused.code == 1, refused
    assert "the application does not load: 2 problems" in refused.err
    assert "  backend/settings.py:22: invalid syntax" in refused.err
    assert "  backend/more.py:1: ModuleNotFoundError: No module named 'nowhere'" in refused.err
    assert during == "1"
    assert value(running, "action", "books:versionLater") == "1"

    (library / "backend/more.py").unlink()
    change(library, "settings.py", "\n\ndef broken(:\n", "")
    assert camber(library, "reload").code == 0
    assert value(running, "query", "books:version") == "2"


def test_a_schema_that_the_data_does_not_fit_is_refused_with_every_misfit_and_the_code_before_goes_on(
    running: Serving, library: Path
) -> None:
    ids = [value(running, "mutation", "books:add", title=title) for title in ("Dune", "Emma")]
    change_version(library, 1, 2)
    change(library, "schema.py", "    title: str\n", "    title: str\n    author: str\n")
    refused = camber(library, "reload")

    assert refused.code == 1, refused
    assert "2 misfits. Nothing was changed." in refused.err
    assert all(f'Document with ID "{id}" in table "books"' in refused.err for id in ids)
    assert "`author`" in refused.err
    assert value(running, "query", "books:version") == "1"
    assert value(running, "mutation", "books:add", title="Persuasion")

    change(library, "schema.py", "    author: str\n", "    author: NotRequired[str]\n")
    assert camber(library, "reload").code == 0
    assert value(running, "query", "books:version") == "2"


def test_a_folder_that_is_gone_is_refused(running: Serving, library: Path) -> None:
    (library / "backend").rename(library / "away")
    refused = camber(library, "reload")

    assert refused.code == 1, refused
    assert "there is no such folder" in refused.err
    assert value(running, "query", "books:version") == "1"


# Who may, and when.


def test_only_the_operator_may(running: Serving, library: Path) -> None:
    change_version(library, 1, 2)
    refused = [post(running, "/api/camber/reload", {}, key=key) for key in (None, "camber|01" + "0" * 64)]

    assert [(status, body["code"]) for status, body in refused] == [(403, "BadDeployKey")] * 2
    assert value(running, "query", "books:version") == "1"


def test_of_two_at_once_the_second_is_told_that_one_is_on_its_way(running: Serving, library: Path) -> None:
    (library / "backend/heavy.py").write_text(GATE)
    key, first = admin_key(library / ".camber"), list[tuple[int, Any]]()
    thread = threading.Thread(target=lambda: first.append(post(running, "/api/camber/reload", {}, key=key)))
    thread.start()
    try:
        wait_until((library / "loading").exists)
        status, body = post(running, "/api/camber/reload", {}, key=key)
        told = camber(library, "reload")
    finally:
        (library / "go").touch()
        thread.join(PATIENCE)

    assert (status, body["code"]) == (409, "ReloadRunning")
    assert (told.code, told.out) == (1, ""), told
    assert "The code is being loaded anew already. Ask again when that is done." in told.err
    assert first == [(200, {"changes": ["file heavy.py is new"], "warnings": [], "workers": 1})]


def test_without_a_server_there_is_nothing_to_reload(with_data: Path) -> None:
    result = camber(with_data, "reload")

    assert result.code == 2, result
    assert "no server runs for" in result.err


def test_an_application_that_came_from_no_folder_can_not_be_loaded_anew(tmp_path: Path) -> None:
    application = application_of("values", define_schema(), {})
    backend = Backend.open(application, tmp_path / "data", settings=Settings(), create=True)
    key = admin_key(tmp_path / "data", create=True)
    with closing(backend), asyncio.Runner() as runner:
        client = Client(create_app(backend), runner, backend)
        refused = client.post("/api/camber/reload", {}, headers={"Authorization": f"Convex {key}"})

    assert (refused.status, refused.code) == (400, "NotReloadable")


# SIGHUP.


def test_a_hangup_signal_does_the_same_and_the_log_says_how_it_went(running: Serving, library: Path) -> None:
    change_version(library, 1, 2)
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("the code was loaded anew")
    assert value(running, "query", "books:version") == "2"

    change_version(library, 2, 3)
    append(library, "settings.py", "\n\ndef broken(:\n")
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("the code before goes on")
    assert value(running, "query", "books:version") == "2"

    events = [json.loads(line) for line in running.printed.splitlines()]
    done, refused = (next(event for event in events if event.get(name)) for name in ("changes", "problems"))
    assert done["changes"] == ["file books.py changed"]
    assert refused["problems"] == [f"{library}/backend/settings.py:22: invalid syntax"]


def test_a_hangup_signal_while_the_server_starts_is_taken_when_it_serves(library: Path) -> None:
    append(library, "settings.py", GATE)
    with serving(library, "serve", env={"CAMBER_DEV": "1"}) as running:
        wait_until((library / "loading").exists)
        change_version(library, 1, 2)  # books.py is loaded by now
        running.process.send_signal(signal.SIGHUP)
        (library / "go").touch()
        running.wait_for("the code was loaded anew")

        assert value(running, "query", "books:version") == "2"


@contextmanager
def in_a_terminal(project: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that was started in a terminal of its own, and the terminal's other end."""
    ours, theirs = pty.openpty()
    port, site_port = free_ports(2)
    # The shell makes the terminal its own, as one that is started in a window does.
    take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [CAMBER.with_name("python"), "-c", take, CAMBER, "serve", "--port", str(port), "--site-port", str(site_port)],
        cwd=project,
        env=clean_environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()


def read_until(terminal: int, text: bytes) -> None:
    printed, deadline = b"", time.monotonic() + PATIENCE
    while text not in printed:
        assert time.monotonic() < deadline, printed
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            printed += os.read(terminal, 65_536)
        except OSError:
            pytest.fail(f"it ended: {printed!r}")


def test_a_server_goes_with_the_terminal_it_was_started_in(library: Path) -> None:
    with in_a_terminal(library) as (process, terminal):
        read_until(terminal, b"serving")
        process.send_signal(signal.SIGHUP)
        read_until(terminal, b"the code was loaded anew")
        os.close(terminal)
        code = process.wait(PATIENCE)

    assert code == 0
    assert not (library / ".camber/server.json").exists()


# A server that is told to stop meanwhile.


def test_a_server_that_stops_does_not_wait_for_a_module_that_does_not_come_to_an_end(
    running: Serving, library: Path
) -> None:
    append(library, "settings.py", GATE)
    running.process.send_signal(signal.SIGHUP)
    wait_until((library / "loading").exists)

    assert running.stop() == 0
    assert "Traceback" not in running.printed


def test_a_server_that_stops_does_not_wait_for_another_one_that_makes_an_index(
    library: Path, postgres_url: str
) -> None:
    asking = "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
    with (
        server(library, env={"CAMBER_DATABASE_URL": postgres_url}) as running,
        psycopg.connect(postgres_url, autocommit=True) as other,
    ):
        other.execute("SELECT pg_advisory_lock(%s)", (SCHEMA_LOCK,))
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: other.execute(asking).fetchone() is not None)

        assert running.stop() == 0
    assert "Traceback" not in running.printed


@pytest.fixture
def modules_as_before() -> Iterator[None]:
    """Forgets what a test loads in this process."""
    with patch.dict(sys.modules), patch.object(sys, "meta_path", [*sys.meta_path]):
        yield


@pytest.mark.usefixtures("modules_as_before")
def test_what_is_loaded_when_the_data_is_closed_is_not_served(library: Path, tmp_path: Path) -> None:
    before = load_application(library / "backend")
    backend = Backend.open(before, tmp_path / "data", settings=Settings(), create=True)
    append(library, "settings.py", GATE)
    reloader = Reloader(backend)

    async def begin() -> None:
        reload = asyncio.create_task(reloader.reload())
        await asyncio.to_thread(wait_until, (library / "loading").exists)
        reload.cancel()

    asyncio.run(begin())
    is_at_work = reloader.abandon()
    backend.close()
    (library / "go").touch()
    wait_until(lambda: not reloader.abandon())

    assert is_at_work
    assert backend.application is before
