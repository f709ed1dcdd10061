"""`camber serve --workers`: several processes that share the ports and act as one server."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from camber.server import address_of
from tests.cli.commands import PATIENCE, Serving, begin_with, camber, make_project, serving
from tests.postgres.cluster import Cluster

WHO = """

@query
def version(ctx: QueryCtx) -> str:
    \"\"\"Which code this is.\"\"\"
    return "1"


@action
async def who(ctx: ActionCtx, *, waits: bool = False) -> list[str]:
    \"\"\"The process that runs this, and its code; after a moment, or when there is a file `finish`.\"\"\"
    import asyncio
    import os
    import uuid
    from pathlib import Path

    if waits:
        Path(f"waiting.{os.getpid()}.{uuid.uuid4()}").touch()
        while not Path("finish").exists():
            await asyncio.sleep(0.02)
    else:
        await asyncio.sleep(0.3)
    return [str(os.getpid()), "1"]
"""

LINGERING = """

import atexit
import os
import time
from pathlib import Path


def linger():
    if Path("lingering").exists() and Path("lingering").read_text() == str(os.getpid()):
        Path("leaving").touch()
        time.sleep(600)


atexit.register(linger)
"""
"""The process that the file `lingering` names has closed everything and does not end."""

GATE = """

import os
import time
from pathlib import Path

if not Path("first").exists():
    Path("first").write_text(str(os.getpid()))
elif Path("first").read_text() != str(os.getpid()):
    Path("waiting").touch()
    while not Path("go").exists():
        time.sleep(0.02)
"""
"""All but the first process stop in the middle of their start until there is a file `go`."""

IMPATIENT = """
import sys

from camber.server import parent_process, serve_with_workers

sys.modules[serve_with_workers.__module__]._LAST_SECONDS = 5.0
"""
"""A parent that waits for a worker to close for 5 seconds instead of 20."""

SHORT_OF_THREADS = """
import asyncio

start, starts = asyncio.create_subprocess_exec, []


async def start_or_not(*command, **how):
    starts.append(command)
    if len(starts) == 3:
        raise RuntimeError("can't start new thread")
    return await start(*command, **how)


asyncio.create_subprocess_exec = start_or_not
"""
"""A system that has no thread for the third process, as asyncio needs one for each."""

STUBBORN = """

@mutation
def stubborn(ctx: MutationCtx) -> None:
    \"\"\"Go on and on, whatever happens.\"\"\"
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


@pytest.fixture
def library(project: Path) -> Path:
    """The project, with a function that tells which process it runs in."""
    append(project, "books.py", WHO)
    return project


@pytest.fixture
def running(library: Path, postgres_url: str) -> Iterator[Serving]:
    """A server of two workers on it."""
    with workers(library, postgres_url, 2) as running:
        yield running


@pytest.fixture(scope="module")
def shared_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a project that several tests share."""
    project = make_project(tmp_path_factory.mktemp("shared") / "library")
    append(project, "books.py", WHO)
    return project


@pytest.fixture(scope="module")
def shared_server(shared_library: Path, postgres: Cluster) -> Iterator[Serving]:
    """The server that goes with it."""
    url = postgres.new_database()
    with workers(shared_library, url, 2) as running:
        yield running
    postgres.drop_database(url)


@pytest.fixture
def shared(shared_server: Serving, shared_library: Path) -> Serving:
    """A server of two workers on the shared project, with the code as it was at first, for tests that leave it whole.

    It has the books of other tests, and has printed what it did for them: only what is behind `seen` is new.
    """
    shutil.rmtree(shared_library / "backend")
    make_project(shared_library)
    append(shared_library, "books.py", WHO)
    result = camber(shared_library, "reload")
    assert result.out.startswith("reloaded by 2 workers"), result
    shared_server.seen = len(shared_server.printed)
    return shared_server


@contextmanager
def workers(project: Path, url: str, count: int, *, begin: str = "", **settings: object) -> Iterator[Serving]:
    with starting(project, url, count, begin=begin, **settings) as running:
        wait_for(running, '"serving"')
        yield running


@contextmanager
def starting(project: Path, url: str, count: int, *, begin: str = "", **settings: object) -> Iterator[Serving]:
    """`begin` is Python that each process runs before anything else."""
    own = {f"CAMBER_{name.upper()}": str(value) for name, value in settings.items()}
    env = {"CAMBER_DEV": "1", "CAMBER_DATABASE_URL": url, "CAMBER_DATABASE_CONNECTIONS": "8", **own}
    if begin:
        env |= begin_with(project, begin)
    with serving(project, "serve", "--workers", str(count), env=env) as running:
        processes: set[int] = set()
        try:
            yield running
            processes = children(running)
        finally:
            running.stop()
            wait_until(lambda: not any(map(is_alive, processes)), "all workers have ended")


def append(project: Path, file: str, text: str) -> None:
    path = project / "backend" / file
    path.write_text(path.read_text() + text)


def change(project: Path, file: str, old: str, new: str) -> None:
    path = project / "backend" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def children(running: Serving) -> set[int]:
    """The processes of the workers."""
    pid = running.process.pid
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()


def hang_up_all(running: Serving) -> None:
    """As a service manager may that signals every process of a service."""
    for pid in [*children(running), running.process.pid]:
        os.kill(pid, signal.SIGHUP)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(what: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not what():
        assert time.monotonic() < deadline, name
        time.sleep(0.05)


def wait_for(running: Serving, text: str) -> None:
    """Wait until this is printed, longer than for one process: several start one after the other, on a machine that may be busy."""
    wait_until(lambda: text in running.printed[running.seen :] or running.process.poll() is not None, text)
    running.wait_for(text)


class Calls:
    """Calls on connections of their own, all at work at once."""

    def __init__(self, running: Serving, count: int, kind: str, path: str, **args: object) -> None:
        self.answers: list[Any] = [None] * count
        body = json.dumps({"path": path, "args": args})
        self._threads = [
            threading.Thread(target=self._call, args=(number, running.port, kind, body)) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def values(self) -> list[Any]:
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert all(isinstance(answer, dict) and answer.get("status") == "success" for answer in self.answers), (
            self.answers
        )
        return [answer["value"] for answer in self.answers]

    def _call(self, number: int, port: int, kind: str, body: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * PATIENCE)
        try:
            connection.request("POST", f"/api/{kind}", body)
            self.answers[number] = json.loads(connection.getresponse().read())
        except Exception as error:  # noqa: BLE001  it is looked at with the answers
            self.answers[number] = error
        finally:
            connection.close()


def who_answers(running: Serving) -> dict[int, str]:
    """The processes that answer, each with its version of the code."""
    found: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) != len(children(running)) and time.monotonic() < deadline:
        found |= {int(pid): version for pid, version in Calls(running, 60, "action", "books:who").values()}
    return found


def waiting_calls(running: Serving, library: Path, count: int) -> Calls:
    """Calls that are at work, all of them, until there is a file `finish`."""
    before = len(where_calls_wait(library))
    calls = Calls(running, count, "action", "books:who", waits=True)
    wait_until(lambda: len(where_calls_wait(library)) == before + count, "all calls are at work")
    return calls


def where_calls_wait(library: Path) -> list[int]:
    """Of each such call the process that it is in."""
    return [int(path.name.split(".")[1]) for path in library.glob("waiting.*")]


def wait_until_refused(running: Serving) -> None:
    """Until the server has taken in that it is to stop."""
    wait_until(lambda: is_refused(running.port), "nobody new is let in")


def is_refused(port: int) -> bool:
    """Whether nobody takes a connection there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionError:  # refused, or reset where it waited to be accepted
        return True
    return False


# What is refused.


@pytest.mark.parametrize("said", [["--workers", "2"], []], ids=["by flag", "by variable"])
def test_on_a_sqlite_file_they_are_refused_with_what_to_do(project: Path, said: list[str]) -> None:
    result = camber(project, "serve", *said, env={} if said else {"CAMBER_WORKERS": "2"})

    assert result.code == 2, result
    assert "workers (CAMBER_WORKERS) is 2, and the data is a SQLite file" in result.err
    assert "Set CAMBER_DATABASE_URL" in result.err
    assert not (project / ".camber").exists()


@pytest.mark.parametrize("count", ["0", "-1", "257"])
def test_a_number_that_makes_no_sense_is_refused(project: Path, count: str) -> None:
    result = camber(project, "serve", "--workers", count)

    assert result.code == 2, result
    assert f"workers (CAMBER_WORKERS) is {count}; allowed: a whole number from 1 to 256" in result.err


def test_one_worker_is_the_server_itself(project: Path) -> None:
    with serving(project, "serve", "--workers", "1") as running:
        running.wait_for("serving")
        address = address_of(project / ".camber")

        assert address is not None
        assert address.pid == running.process.pid
        assert not children(running)


def test_a_taken_port_is_refused_by_name_of_its_holder(project: Path, postgres_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {"CAMBER_DATABASE_URL": postgres_url}
        result = camber(project, "serve", "--workers", "2", "--port", port, "--site-port", "0", env=env)

    assert result.code == 2, result
    assert f"port {port} on 127.0.0.1 is taken by pid {os.getpid()} (" in result.err


# Serving.


def test_they_share_the_ports_and_the_data(shared: Serving, shared_library: Path) -> None:
    answering = who_answers(shared)
    [before] = Calls(shared, 1, "query", "books:titles").values()
    camber(shared_library, "run", "books:add", '{"title": "Dune"}')
    shown = Calls(shared, 30, "query", "books:titles").values()
    address = address_of(shared_library / ".camber")

    assert set(answering) == children(shared)
    assert len(answering) == 2
    assert shown == [sorted([*before, "Dune"])] * 30
    assert address is not None
    assert (address.pid, address.url) == (shared.process.pid, shared.url)


def test_told_to_stop_all_finish_what_runs(library: Path, postgres_url: str) -> None:
    with workers(library, postgres_url, 2, shutdown_seconds=600, running_actions=1000) as running:
        processes = children(running)
        calls = [waiting_calls(running, library, 30)]

        def all_have_some() -> bool:
            if set(where_calls_wait(library)) != processes:
                time.sleep(0.2)  # a call goes to whoever takes it first
                calls.append(waiting_calls(running, library, 5))
            return set(where_calls_wait(library)) == processes

        wait_until(all_have_some, "each process has calls")
        running.process.send_signal(signal.SIGTERM)
        wait_until_refused(running)
        time.sleep(0.5)
        (library / "finish").touch()
        answered = {int(pid) for each in calls for pid, _ in each.values()}

        assert running.process.wait(PATIENCE) == 0
    assert answered == processes
    assert not any(map(is_alive, processes))
    assert not (library / ".camber/server.json").exists()


def test_told_to_stop_together_with_their_parent_they_still_finish_what_runs(library: Path, postgres_url: str) -> None:
    """As service managers do, which signal every process of a service."""
    with workers(library, postgres_url, 2, shutdown_seconds=600) as running:
        calls = waiting_calls(running, library, 20)
        for pid in [running.process.pid, *children(running)]:
            os.kill(pid, signal.SIGTERM)
        wait_until_refused(running)
        time.sleep(0.5)
        (library / "finish").touch()

        assert len(calls.values()) == 20
        assert running.process.wait(PATIENCE) == 0


def test_told_twice_they_wait_for_nobody(library: Path, postgres_url: str) -> None:
    with workers(library, postgres_url, 2, shutdown_seconds=600) as running:
        calls = waiting_calls(running, library, 10)
        running.process.send_signal(signal.SIGINT)
        wait_until_refused(running)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE) == 0
        with pytest.raises(AssertionError):
            calls.values()


# When a process ends.


def test_a_worker_that_is_killed_is_replaced_while_the_others_serve(shared: Serving) -> None:
    before = children(shared)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(shared, "a worker ended and is started again")
    meanwhile = Calls(shared, 20, "action", "books:who").values()
    wait_for(shared, "a worker serves again")

    assert {int(pid) for pid, _ in meanwhile} <= children(shared)
    after = who_answers(shared)
    assert len(after) == 2
    assert victim not in after
    assert len(after.keys() & before) == 1


def test_a_worker_that_can_not_start_again_is_tried_after_ever_longer_pauses(running: Serving, library: Path) -> None:
    (library / "backend/broken.py").write_text("def\n")
    os.kill(min(children(running)), signal.SIGKILL)
    for _ in range(3):
        wait_for(running, "a worker ended and is started again")
    still = Calls(running, 10, "action", "books:who").values()
    (library / "backend/broken.py").unlink()
    wait_for(running, "a worker serves again")

    pauses = [json.loads(line)["after_seconds"] for line in running.printed.splitlines() if "started again" in line]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert len(still) == 10
    assert len(who_answers(running)) == 2


def test_a_worker_whose_functions_do_not_stop_is_replaced(library: Path, postgres_url: str) -> None:
    append(library, "books.py", STUBBORN)
    with workers(library, postgres_url, 2, mutation_seconds=0.1) as running:
        before = children(running)
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        for _ in range(3):  # on one connection, so all of them by the same worker
            connection.request("POST", "/api/mutation", json.dumps({"path": "books:stubborn", "args": {}}))
            assert connection.getresponse().read()
        connection.close()
        wait_for(running, "a worker ended and is started again")
        wait_for(running, "a worker serves again")
        after = who_answers(running)

        assert len(after) == 2
        assert len(after.keys() & before) == 1
        assert '"code": 1' in running.printed


def test_a_worker_that_closes_and_does_not_end_is_asked_for_nothing_and_killed(
    library: Path, postgres_url: str
) -> None:
    append(library, "books.py", LINGERING)
    with workers(library, postgres_url, 2, begin=IMPATIENT) as running:
        victim = min(children(running))
        (library / "lingering").write_text(str(victim))
        os.kill(victim, signal.SIGTERM)
        wait_until((library / "leaving").exists, "it has closed everything")
        change(library, "books.py", '"1"', '"2"')
        result = camber(library, "reload")
        was_in_time = "a worker that did not end is killed" not in running.printed
        wait_for(running, "a worker that did not end is killed")
        wait_for(running, "a worker serves again")
        after = who_answers(running)

    assert result.code == 0, result
    assert result.out == "reloaded:\n  file books.py changed\n" or not was_in_time
    assert list(after.values()) == ["2"] * 2
    assert victim not in after


def test_a_worker_is_tried_again_whatever_keeps_the_system_from_starting_it(library: Path, postgres_url: str) -> None:
    with workers(library, postgres_url, 2, begin=SHORT_OF_THREADS) as running:
        os.kill(min(children(running)), signal.SIGKILL)
        wait_for(running, "can't start new thread")
        wait_for(running, "a worker serves again")

        assert len(who_answers(running)) == 2


def test_without_their_parent_they_end(library: Path, postgres_url: str) -> None:
    with workers(library, postgres_url, 2, shutdown_seconds=600) as running:
        processes = children(running)
        calls = waiting_calls(running, library, 10)
        running.process.kill()
        running.process.wait()
        wait_until_refused(running)
        time.sleep(0.5)
        (library / "finish").touch()

        assert len(calls.values()) == 10  # what runs is finished even so
        wait_until(lambda: not any(map(is_alive, processes)), "the workers have ended")


# When they can't start.


def test_data_that_does_not_fit_ends_them_all_and_is_said_once(library: Path, postgres_url: str) -> None:
    with workers(library, postgres_url, 2):
        camber(library, "run", "books:add", '{"title": "Dune"}')
    change(library, "schema.py", "    title: str\n", "    title: int\n")
    with starting(library, postgres_url, 2) as refused:
        code = refused.process.wait(2 * PATIENCE)

    assert code == 1
    assert refused.printed.count("the stored data does not fit the schema: 1 misfit") == 1
    assert "a worker can't start" in refused.printed
    assert "serving" not in refused.printed
    assert not (library / ".camber/server.json").exists()


def test_code_that_does_not_load_ends_them_all_and_is_said_once(library: Path, postgres_url: str) -> None:
    (library / "backend/broken.py").write_text("import nothing_of_that_name\n")
    with starting(library, postgres_url, 2) as refused:
        code = refused.process.wait(2 * PATIENCE)

    assert code == 1
    assert refused.printed.count("backend/broken.py:1: ModuleNotFoundError") == 1


def test_told_to_stop_while_they_start_they_do(library: Path, postgres_url: str) -> None:
    append(library, "books.py", "\n\nimport time\n\ntime.sleep(600)\n")
    with starting(library, postgres_url, 2) as running:
        wait_until(lambda: children(running), "the first worker has begun")
        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(PATIENCE) == 0
    assert "serving" not in running.printed


# New code.


def test_all_take_the_new_code_at_one_command(shared: Serving, shared_library: Path) -> None:
    processes = children(shared)
    change(shared_library, "books.py", '"1"', '"2"')
    result = camber(shared_library, "reload")

    assert result.code == 0, result
    assert result.out.splitlines() == ["reloaded by 2 workers:", "  file books.py changed"]
    assert who_answers(shared) == dict.fromkeys(processes, "2")


def test_code_that_can_not_be_served_is_taken_by_none(shared: Serving, shared_library: Path) -> None:
    processes = children(shared)
    camber(shared_library, "run", "books:add", '{"title": "Dune"}')
    [titles] = Calls(shared, 1, "query", "books:titles").values()
    before = (shared_library / "backend/schema.py").read_text()
    change(shared_library, "books.py", '"1"', '"2"')
    change(shared_library, "schema.py", "    title: str\n", "    title: str\n    author: str\n")
    misfit = camber(shared_library, "reload")
    (shared_library / "backend/schema.py").write_text(before)
    append(shared_library, "settings.py", "\n\ndef broken(:\n")
    broken = camber(shared_library, "reload")

    assert (misfit.code, broken.code) == (1, 1)
    assert f": {len(titles)} misfit" in misfit.err
    assert "Nothing was changed." in misfit.err
    assert "backend/settings.py:22: invalid syntax" in broken.err
    assert who_answers(shared) == dict.fromkeys(processes, "1")


def test_a_hangup_signal_to_the_parent_does_the_same(shared: Serving, shared_library: Path) -> None:
    processes = children(shared)
    change(shared_library, "books.py", '"1"', '"2"')
    shared.process.send_signal(signal.SIGHUP)
    wait_for(shared, "the code was loaded anew")

    assert who_answers(shared) == dict.fromkeys(processes, "2")


def test_a_hangup_signal_to_all_processes_is_taken_once(shared: Serving, shared_library: Path) -> None:
    processes, begin = children(shared), shared.seen
    change(shared_library, "books.py", '"1"', '"2"')
    hang_up_all(shared)
    wait_for(shared, "the code was loaded anew")

    assert who_answers(shared) == dict.fromkeys(processes, "2")
    printed = shared.printed[begin:]
    assert printed.count("the code was loaded anew") == 1
    assert "ReloadRunning" not in printed


def test_one_that_has_loaded_its_code_before_a_reload_and_serves_after_it_takes_the_new_code_too(
    library: Path, postgres_url: str
) -> None:
    append(library, "settings.py", GATE)
    with starting(library, postgres_url, 2) as running:
        wait_until((library / "waiting").exists, "the second worker has loaded books.py")
        change(library, "books.py", '"1"', '"2"')
        key = camber(library, "admin-key", env={"CAMBER_DATABASE_URL": postgres_url}).out.strip()
        result = camber(library, "reload", "--url", running.url, env={"CAMBER_ADMIN_KEY": key})
        (library / "go").touch()
        wait_for(running, '"serving"')
        after = who_answers(running)

    assert (result.code, result.out) == (0, "reloaded:\n  file books.py changed\n")
    assert list(after.values()) == ["2"] * 2


def test_a_hangup_signal_to_all_processes_while_they_start_is_taken_when_they_serve(
    library: Path, postgres_url: str
) -> None:
    append(library, "settings.py", GATE)
    with starting(library, postgres_url, 2) as running:
        wait_until(lambda: children(running), "the first worker has begun")
        hang_up_all(running)
        wait_until((library / "waiting").exists, "the second worker has loaded books.py")
        change(library, "books.py", '"1"', '"2"')
        hang_up_all(running)
        (library / "go").touch()
        wait_for(running, '"serving"')
        wait_for(running, "the code was loaded anew")
        after = who_answers(running)

    assert list(after.values()) == ["2"] * 2
    assert running.printed.count("the code was loaded anew") == 1
    assert "the code before goes on" not in running.printed


def test_calls_that_are_made_while_all_take_the_new_code_notice_nothing(shared: Serving, shared_library: Path) -> None:
    processes = children(shared)
    stop, answers, failures = threading.Event(), list[Any](), list[BaseException]()

    def ask() -> None:
        while not stop.is_set() and not failures:
            try:
                answers.extend(Calls(shared, 4, "query", "books:version").values())
            except AssertionError as error:
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_until(lambda: failures or "1" in answers, "version 1 is seen")
        for version in range(1, 4):
            change(shared_library, "books.py", f'"{version}"', f'"{version + 1}"')
            assert camber(shared_library, "reload").code == 0
            new = str(version + 1)
            wait_until(lambda new=new: failures or new in answers, f"version {new} is seen")
    finally:
        stop.set()
        thread.join(2 * PATIENCE)

    assert failures == []
    assert set(answers) == {"1", "2", "3", "4"}
    assert children(shared) == processes
