"""A server whose way to PostgreSQL swallows everything, without an end or a reset: whoever needs nothing from there is not held up.

Where one connection falls silent, nobody notices; where all do, calls are refused in time, and go on once the way works again. How
the event loop fares is seen from outside, by asking /healthz all the while.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from camber.backend import Backend, Content, Timestamp
from camber.database import follower
from camber.functions import application_of
from camber.functions.views import View
from camber.identity import ANONYMOUS
from camber.server import create_app
from camber.settings import Settings
from camber.storage.postgres import connections, log
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Connection, Proxy
from tests.server.asking import Reply, ask, call

PATIENCE = 30.0
CONNECT_SECONDS = 6
LONGEST_SECONDS = 5.5
"""How long /healthz may take on a busy machine; what would hold up the loop takes CONNECT_SECONDS at least, or for ever."""
ROUND_SECONDS = 0.1
"""What a look for the answer counts at most: where it took longer, this process was not let run."""

NOTES = define_table("notes", {"text": v.string()})


@query
def count(ctx: QueryCtx, *, key: float = 0) -> int:
    return ctx.db.query(NOTES).count()


@mutation
def add(ctx: MutationCtx) -> None:
    ctx.db.insert(NOTES, {"text": "a"})


class Watcher:
    """Somebody who watches how many notes there are, a `Holder`; comes back with a new view where the old one is of no use."""

    def __init__(self, backend: Backend, args: bytes) -> None:
        self._backend, self._args = backend, args
        self.seen: list[float] = []
        self._watch()

    def _watch(self) -> None:
        self._view: View = self._backend.view(self, ANONYMOUS)
        self._view.add(1, "notes:count", self._args, None)
        self._view.owe()
        self._view.advance()

    def may_move(self) -> bool:
        return True

    def moved(self, timestamp: int, changes: Sequence[tuple[int, Content]]) -> None:
        self.seen += [json.loads(content.value or b"null") for _, content in changes]

    def failed(self, error: Exception) -> None:
        asyncio.get_running_loop().call_later(0.1, self._watch)


class Server:
    """A server in this process, on an event loop of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        application = application_of("silence", define_schema(NOTES), {"notes:count": count, "notes:add": add})
        settings = Settings(dev=True, database_url=url, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
        self.backend = Backend.open(application, folder, settings=settings, create=True)
        self.app = create_app(self.backend)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.longest = 0.0
        """The longest that /healthz has taken."""
        self._failures: list[str] = []
        """What else was wrong with its answers."""
        self._ended = threading.Event()
        self.get("/healthz").result(PATIENCE)

    def start(self, work: Awaitable[Any]) -> Future[Any]:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def get(self, path: str) -> Future[Reply]:
        return self.start(ask(self.app, "GET", path))

    def post(self, kind: str, path: str, **args: object) -> Future[Reply]:
        return self.start(ask(self.app, "POST", f"/api/{kind}", parts=[json.dumps(call(path, args)).encode()]))

    def count(self, key: float = 0) -> float:
        """How many notes there are; each key is a query of its own."""
        return self.post("query", "notes:count", key=key).result(PATIENCE).json["value"]

    def count_at(self, at: Timestamp) -> Future[Any]:
        return self.start(self.backend.run("notes:count", b"{}", ANONYMOUS, kind="query", request_id="r", at=at))

    def add(self) -> None:
        assert self.post("mutation", "notes:add").result(PATIENCE).json["status"] == "success"

    def watcher(self, **args: object) -> Watcher:
        async def watch() -> Watcher:
            return Watcher(self.backend, json.dumps(args).encode())

        return self.start(watch()).result(PATIENCE)

    @contextmanager
    def goes_on(self) -> Iterator[None]:
        """While the block lasts, the event loop serves others."""
        self._ended.clear()
        self.longest, self._failures = 0.0, []
        asking = threading.Thread(target=self._ask_for_health)
        asking.start()
        try:
            yield
        finally:
            self._ended.set()
            asking.join()
        assert not self._failures, self._failures[:5]
        assert self.longest < LONGEST_SECONDS, f"/healthz took {self.longest:.1f} s"

    def _ask_for_health(self) -> None:
        while not self._ended.wait(0.02):
            asked, took = self.get("/healthz"), 0.0
            while not asked.done() and took < LONGEST_SECONDS:
                began = time.monotonic()
                wait([asked], 0.02)
                took += min(time.monotonic() - began, ROUND_SECONDS)
            self.longest = max(self.longest, took)
            if not asked.done():  # `longest` tells of it
                return
            try:
                reply = asked.result()
                if reply.status != 200:
                    self._failures.append(f"{reply.status} {reply.body!r}")
            except Exception as error:  # noqa: BLE001
                self._failures.append(repr(error))

    def close(self) -> None:
        self.backend.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def server(proxy: Proxy, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Its way to PostgreSQL is by the proxy; once it runs it gives up sooner than a real one, and calls that trouble later."""
    server = Server(f"{proxy.url(postgres_url)}?connect_timeout={CONNECT_SECONDS}", tmp_path / "data")
    try:
        server.add()
        monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.5)
        monkeypatch.setattr(log, "_LOOK_SECONDS", 0.5)
        monkeypatch.setattr(follower, "TROUBLE_SECONDS", PATIENCE)
        yield server
    finally:
        proxy.resume()
        server.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def falls_silent(connection: Connection) -> None:
    connection.stall()


def test_the_idle_snapshot_of_a_query_thread_ends_in_silence(server: Server, proxy: Proxy) -> None:
    silent = proxy.before("ROLLBACK", falls_silent)
    assert server.count() == 1
    with server.goes_on():
        silent.wait(PATIENCE)
        for key in range(1, 20):
            assert server.count(key) == 1
            assert server.count() == 1  # out of the cache


def test_a_tick_ends_in_silence(server: Server, proxy: Proxy) -> None:
    watcher = server.watcher()
    wait_until(lambda: watcher.seen == [1])
    time.sleep(0.3)  # until nobody has a snapshot any more: the next that ends is the tick's
    silent = proxy.before("ROLLBACK", falls_silent)
    with server.goes_on():
        server.add()
        silent.wait(PATIENCE)
        server.add()
        wait_until(lambda: watcher.seen[-1] == 3)


def test_a_tick_begins_in_silence(server: Server, proxy: Proxy) -> None:
    watcher = server.watcher()
    wait_until(lambda: watcher.seen == [1])
    time.sleep(0.3)
    silent = proxy.before("READ ONLY;", falls_silent)
    with server.goes_on():
        server.add()
        silent.wait(PATIENCE)
        wait_until(lambda: watcher.seen[-1] == 2)


def test_a_snapshot_that_is_to_be_held_is_opened_in_silence(server: Server, proxy: Proxy) -> None:
    silent = proxy.before("READ ONLY;", falls_silent)
    with server.goes_on():
        held = server.start(server.backend.hold_snapshot())
        silent.wait(PATIENCE)
        assert "is not kept any more" in str(server.count_at(Timestamp(1)).exception(PATIENCE))
        assert held.result(PATIENCE) > 0


def test_a_look_at_the_log_gets_no_answer(server: Server, proxy: Proxy) -> None:
    """Whoever waits for it is answered by the next one."""
    silent = proxy.before("FROM commits WHERE timestamp >= ", falls_silent)
    with server.goes_on():
        silent.wait(PATIENCE)
        assert server.count(1) == 1
        server.add()


@pytest.mark.parametrize("moment", ["a query's snapshot is idle", "a tick ends", "a snapshot is to be held"])
def test_everything_is_swallowed_for_a_while(
    server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    watcher = server.watcher()
    wait_until(lambda: watcher.seen[-1:] == [1])
    time.sleep(0.3)
    silent = proxy.before("READ ONLY;" if "held" in moment else "ROLLBACK", lambda _: proxy.stall())
    match moment:
        case "a query's snapshot is idle":
            asked = server.post("query", "notes:count", key=1)
        case "a tick ends":
            asked = server.post("mutation", "notes:add")
        case _:
            asked = server.start(server.backend.hold_snapshot())
    silent.wait(PATIENCE)
    with server.goes_on():
        another = server.watcher(key=2)  # a tick is to begin for it
        assert "is not kept any more" in str(server.count_at(Timestamp(1)).exception(PATIENCE))
        with monkeypatch.context() as is_soon_in_trouble:
            is_soon_in_trouble.setattr(follower, "TROUBLE_SECONDS", 0.3)
            assert server.post("query", "notes:count").result(PATIENCE).status == 503
            assert server.get("/readyz").result(PATIENCE).status == 503
            proxy.resume()
            wait_until(lambda: server.get("/readyz").result(PATIENCE).status == 200)
        wait([asked], PATIENCE)  # however that ends: what it adds is there by then
        expected = server.count(99) + 1
        server.add()
        wait_until(lambda: watcher.seen[-1:] == another.seen[-1:] == [expected])
        assert server.count(100) == expected
