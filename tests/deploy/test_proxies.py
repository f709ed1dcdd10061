"""Two servers on one PostgreSQL behind each proxy of `deploy/`: what clients notice of it when one of them goes."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from camber.client import Client
from camber.settings import Settings
from camber.sync.worker import PING_SECONDS
from tests.crashes.servers import UNHURRIED, Server
from tests.deploy.proxies import FILES, KINDS, Proxy
from tests.faults.fleet import Fleet
from tests.postgres.cluster import Cluster
from tests.wire.running_server import REPOSITORY

APPLICATION = REPOSITORY / "tests/deploy/app"
PATIENCE = 60.0


def installed(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))


@dataclass
class Site:
    """Two servers on one database and the proxy in front of them."""

    proxy: Proxy
    fleet: Fleet

    @property
    def servers(self) -> list[Server]:
        return self.fleet.servers

    def connections_to(self, server: Server) -> int:
        """How many connections this server has at the moment."""
        established, port = "01", f"{server.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        pairs = [(columns[1].rpartition(":")[2], columns[3]) for columns in map(str.split, lines)]
        return pairs.count((port, established))

    def stop(self, server: Server) -> None:
        """SIGTERM, and wait until it has ended."""
        assert server.end(signal.SIGTERM) == 0

    def failed_checks(self) -> list[int]:
        """How often haproxy has taken each server for gone: one that stands still for two seconds as well."""
        if self.proxy.name != "haproxy":
            return [0] * len(self.servers)
        lines = self.proxy.command("show stat camber 4 -1").removeprefix("# ").splitlines()
        return [int(row["chkdown"]) for row in csv.DictReader(lines)]

    def wait_until_both_are_used(self) -> None:
        """haproxy looks every second whether a server is back; nginx tries all of them each time."""
        if self.proxy.name == "haproxy":
            wait_until(lambda: self.proxy.command("show stat camber 4 -1").count(",UP,") == len(self.servers))


@pytest.fixture(scope="module")
def kept_site(
    request: pytest.FixtureRequest, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site of one kind of proxy, for all tests that want this kind."""
    url = postgres.new_database()
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, url)
        folder = tmp_path_factory.mktemp("site")
        fleet = stack.enter_context(Fleet(folder, [url] * 2, application=APPLICATION, env=[UNHURRIED] * 2))
        proxy = stack.enter_context(KINDS[request.param]([server.port for server in fleet.servers]))
        wait_until(lambda: ask(proxy, "GET", "/readyz") == (200, b"ready"))
        yield Site(proxy, fleet)


@pytest.fixture
def site(kept_site: Site) -> Site:
    """Both servers run, whatever the test before has left."""
    kept_site.fleet.start()
    kept_site.wait_until_both_are_used()
    return kept_site


behind_each = pytest.mark.parametrize("kept_site", [installed(name) for name in KINDS], indirect=True)


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask(proxy: Proxy, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    """One request on a connection of its own; 0 where no answer came."""
    connection = HTTPSConnection("127.0.0.1", proxy.port, timeout=PATIENCE, context=proxy.trust())
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def call(proxy: Proxy, kind: str, path: str, **args: object) -> tuple[int, Any]:
    status, body = ask(proxy, "POST", f"/api/{kind}", {"path": path, "args": args})
    return status, json.loads(body)["value"] if status == 200 else body


@dataclass
class Watcher:
    """A live client that watches one number; it holds what it saw last."""

    client: Client
    name: str
    value: float = -1

    async def watch(self) -> None:
        async for value in self.client.subscribe("counters:get", {"name": self.name}):
            assert value >= self.value, "the number went back"
            self.value = value


@dataclass
class Crowd:
    """Live clients that watch, one that adds over its socket, and one that adds over HTTP, all at once."""

    proxy: Proxy
    live: str = field(default_factory=lambda: uuid4().hex)
    """The counter that is watched, and added to over the socket."""
    over_http: str = field(default_factory=lambda: uuid4().hex)
    watchers: list[Watcher] = field(default_factory=list[Watcher])
    added: int = 0
    statuses: list[int] = field(default_factory=list[int])
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def add_over_the_socket(self) -> None:
        async with Client(self.proxy.url) as client:
            while not self.stopping.is_set():
                await client.mutation("counters:add", {"name": self.live})
                self.added += 1

    async def add_over_http(self) -> None:
        while not self.stopping.is_set():
            status, _ = await asyncio.to_thread(call, self.proxy, "mutation", "counters:add", name=self.over_http)
            self.statuses.append(status)
            while status != 200 and not self.stopping.is_set():  # one who can't be served counts once
                await asyncio.sleep(0.1)
                status, _ = await asyncio.to_thread(ask, self.proxy, "GET", "/readyz")

    async def all_see(self, value: float) -> None:
        deadline = time.monotonic() + PATIENCE
        while (seen := [watcher.value for watcher in self.watchers]) != [value] * len(seen):
            assert time.monotonic() < deadline, f"{value} is to be seen, and these are: {seen}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def crowd_behind(proxy: Proxy) -> AsyncGenerator[Crowd]:
    crowd = Crowd(proxy)
    async with asyncio.TaskGroup() as tasks:
        crowd.watchers = [Watcher(Client(proxy.url), crowd.live) for _ in range(8)]
        for watcher in crowd.watchers:
            await watcher.client.__aenter__()
        watching = [tasks.create_task(watcher.watch()) for watcher in crowd.watchers]
        adding = [tasks.create_task(crowd.add_over_the_socket()), tasks.create_task(crowd.add_over_http())]
        try:
            await crowd.all_see(crowd.watchers[0].value)
            yield crowd
            crowd.stopping.set()
            await asyncio.gather(*adding)
            await crowd.all_see(crowd.added)
        finally:
            for task in [*watching, *adding]:
                task.cancel()
            for watcher in crowd.watchers:
                with suppress(Exception):
                    await watcher.client.__aexit__(None, None, None)


def run_with_crowd(site: Site, monkeypatch: pytest.MonkeyPatch, story: Callable[[Crowd], Any]) -> Crowd:
    """Go through the story, in a thread, while the crowd is at work."""
    monkeypatch.setenv("SSL_CERT_FILE", str(site.proxy.authority))

    async def whole() -> Crowd:
        async with asyncio.timeout(4 * PATIENCE), crowd_behind(site.proxy) as crowd:
            await asyncio.to_thread(story, crowd)
        return crowd

    return asyncio.run(whole())


@behind_each
def test_live_clients_go_on_when_one_server_after_the_other_is_drained(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll(crowd: Crowd) -> None:
        wait_until(lambda: crowd.added > 5 and all(watcher.value >= 0 for watcher in crowd.watchers))
        is_shared = all(site.connections_to(server) > 2 for server in site.servers)
        assert is_shared or site.failed_checks() != checks, "one server has everybody"
        for server in site.servers:
            site.wait_until_both_are_used()
            before = crowd.added
            site.stop(server)
            wait_until(lambda before=before: crowd.added > before + 5)
            site.fleet.restart(server)

    checks = site.failed_checks()
    crowd = run_with_crowd(site, monkeypatch, roll)

    # Over the socket everything is done once. Over HTTP the one call that was on its way may get no answer.
    assert call(site.proxy, "query", "counters:get", name=crowd.live) == (200, crowd.added)
    failed = [status for status in crowd.statuses if status != 200]
    done = call(site.proxy, "query", "counters:get", name=crowd.over_http)[1]
    assert len(failed) <= len(site.servers), crowd.statuses
    assert len(crowd.statuses) - len(failed) <= done <= len(crowd.statuses)


@behind_each
def test_a_call_that_runs_is_answered_by_the_server_that_goes(site: Site, tmp_path: Path) -> None:
    processes = {server.process.pid for server in site.servers if server.process is not None}

    def where_calls_wait() -> list[int]:
        return [int(path.name.split(".")[0]) for path in tmp_path.iterdir()]

    with ThreadPoolExecutor(60) as threads:
        running = list[Future[tuple[int, Any]]]()
        try:
            while len(running) < 4 or set(where_calls_wait()) != processes:
                assert len(running) < 60, "one server has all calls"
                time.sleep(0 if len(running) < 4 else 0.2)
                running.append(threads.submit(call, site.proxy, "action", "counters:wait", folder=str(tmp_path)))
                wait_until(lambda: len(where_calls_wait()) == len(running))
            leaving = site.servers[0]
            assert leaving.process is not None
            leaving.process.send_signal(signal.SIGTERM)
            wait_until(lambda: leaving.readiness() is None)
        finally:
            (tmp_path / "finish").touch()
        answers = [each.result() for each in running]

    assert [status for status, _ in answers] == [200] * len(running)
    assert {process for _, process in answers} == processes
    assert leaving.wait() == 0


@pytest.mark.parametrize("kept_site", [installed("haproxy")], indirect=True)
def test_a_server_that_haproxy_was_told_of_goes_without_one_failed_call(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_left_alone = True

    def roll(crowd: Crowd) -> None:
        nonlocal was_left_alone
        for number, (name, server) in enumerate(zip(("one", "two"), site.servers, strict=True)):
            checks = site.failed_checks()
            site.proxy.command(f"set server camber/{name} state drain")
            answered = len(crowd.statuses)
            wait_until(lambda answered=answered: len(crowd.statuses) > answered + 1)  # what was under way has ended
            site.stop(server)
            site.fleet.restart(server)
            site.proxy.command(f"set server camber/{name} state ready")
            site.wait_until_both_are_used()
            other = 1 - number
            was_left_alone &= site.failed_checks()[other] == checks[other]

    crowd = run_with_crowd(site, monkeypatch, roll)

    assert set(crowd.statuses) == {200} or not was_left_alone
    assert call(site.proxy, "query", "counters:get", name=crowd.live) == (200, crowd.added)


@behind_each
def test_the_address_of_a_client_is_what_the_proxy_says_and_not_what_the_client_does(site: Site) -> None:
    connection = HTTPSConnection(
        "127.0.0.1", site.proxy.port, timeout=PATIENCE, context=site.proxy.trust(), source_address=("127.0.0.9", 0)
    )
    body = json.dumps({"path": "counters:address", "args": {}})
    connection.request("POST", "/api/mutation", body, {"X-Forwarded-For": "203.0.113.7"})
    answer = json.loads(connection.getresponse().read())
    connection.close()

    assert answer["value"] == "127.0.0.9"


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf"])
def test_nothing_that_lives_is_cut_off_by_the_proxy(name: str) -> None:
    text = (FILES / name).read_text()
    found = {words: float(seconds) for words, seconds in re.findall(r"([a-z_]+(?: \w+)?) +(\d+)s", text)}

    sockets = found["timeout tunnel"] if name == "haproxy.cfg" else found["proxy_read_timeout"]
    calls = found["timeout server"] if name == "haproxy.cfg" else found["proxy_read_timeout"]
    assert sockets > 2 * PING_SECONDS
    assert calls > Settings().action_seconds
