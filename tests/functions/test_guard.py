"""Queries and mutations can't reach the outside world; actions can."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from camber import ActionCtx, MutationCtx, QueryCtx
from camber.errors import ForbiddenIOError
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import PATIENCE, deployed


def open_socket() -> None:
    socket.socket().close()


def look_up() -> None:
    socket.getaddrinfo("localhost", 80)


def look_up_by_name() -> None:
    socket.gethostbyname("localhost")


def connect() -> None:
    KEPT_SOCKET.connect(("127.0.0.1", 9))


def fetch() -> None:
    urllib.request.urlopen("http://127.0.0.1:9/")


def start_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def start_shell() -> None:
    os.system("true")


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def replace_process() -> None:
    os.execv(sys.executable, [sys.executable, "-c", ""])


def spawn() -> None:
    os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})


KEPT_SOCKET: Any = None

REACHES: dict[str, tuple[Callable[[], None], str]] = {
    "socket": (open_socket, "open a socket"),
    "address": (look_up, "look up a network address"),
    "name": (look_up_by_name, "look up a network address"),
    "connect": (connect, "connect to the network"),
    "subprocess": (start_process, "start a process"),
    "system": (start_shell, "start a process"),
    "fork": (fork, "start a process"),
    "exec": (replace_process, "start a process"),
    "spawn": (spawn, "start a process"),
}


def ask(ctx: QueryCtx, *, what: str) -> None:
    REACHES[what][0]()


def do(ctx: MutationCtx, *, what: str) -> None:
    REACHES[what][0]()


def do_inside(ctx: MutationCtx, *, what: str) -> None:
    ctx.run_mutation("world:do", {"what": what})


async def act(ctx: ActionCtx, *, what: str) -> None:
    REACHES[what][0]()


WORLD = {"world:ask": ask, "world:do": do, "world:doInside": do_inside, "world:act": act}


@pytest.fixture(autouse=True)
def _a_socket() -> Any:
    """One that was opened before, where that is allowed."""
    global KEPT_SOCKET
    with socket.socket() as KEPT_SOCKET:
        yield


@pytest.fixture(scope="module")
def world() -> Iterator[Backend]:
    with deployed(WORLD) as backend:
        yield backend


@pytest.mark.parametrize("what", REACHES)
@pytest.mark.parametrize(("path", "kind"), [("ask", "query"), ("do", "mutation"), ("doInside", "mutation")])
def test_a_query_or_mutation_that_reaches_out_is_told_to_be_an_action(
    world: Backend, path: str, kind: str, what: str
) -> None:
    with pytest.raises(ForbiddenIOError) as raised:
        world.run(f"world:{path}", {"what": what})

    assert str(raised.value).startswith(f"A {kind} can't {REACHES[what][1]}: ")
    assert "Do this in an action (@action, `async def`)" in str(raised.value)


@pytest.mark.parametrize("what", ["socket", "address", "subprocess", "system"])
def test_an_action_may(world: Backend, what: str) -> None:
    world.run("world:act", {"what": what})


def test_libraries_that_use_the_network_are_stopped_too(serve: Serve) -> None:
    def get(ctx: QueryCtx) -> None:
        fetch()

    with pytest.raises(Exception, match="A query can't look up a network address|A query can't open a socket"):
        serve({"world:get": get}).run("world:get")


def test_what_reached_out_wrote_nothing(serve: Serve) -> None:
    def write(ctx: MutationCtx) -> None:
        ctx.db.insert("notes", {"text": "before"})
        open_socket()

    def count(ctx: QueryCtx) -> int:
        return ctx.db.query("notes").count()

    backend = serve({"world:write": write, "world:count": count})
    with pytest.raises(ForbiddenIOError):
        backend.run("world:write")
    assert backend.run("world:count") == 0


def test_the_thread_is_free_again_after_the_function(serve: Serve) -> None:
    backend = serve(WORLD)
    opened: list[object] = []

    def look(_: object) -> None:
        open_socket()
        opened.append(threading.current_thread())

    backend.engine.observe(look)  # told on the thread that ran the function
    for path in ("world:ask", "world:do"):
        with pytest.raises(ForbiddenIOError):
            backend.run(path, {"what": "socket"})
    assert len(opened) == 2


def test_other_threads_are_not_held_back(serve: Serve) -> None:
    reached, waiting = threading.Event(), threading.Event()

    def wait(ctx: MutationCtx) -> bool:
        waiting.set()
        return reached.wait(PATIENCE)

    backend = serve({"world:wait": wait})

    def reach() -> None:
        waiting.wait(PATIENCE)
        open_socket()
        reached.set()

    thread = threading.Thread(target=reach)
    thread.start()
    assert backend.run("world:wait")
    thread.join()
