"""Rate limits where several servers share a database: a key has one count, whichever server is asked, and whoever overtakes whom."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from camber import (
    ConvexError,
    MutationCtx,
    RateLimit,
    RateLimitStatus,
    define_schema,
    define_table,
    fixed_window,
    minutes,
    seconds,
    token_bucket,
    v,
)
from camber.backend import Backend
from camber.clock import HeldClock
from camber.database.committer import CONTENDED_GROUPS
from camber.functions import application_of, mutation
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import open_storage
from tests.postgres.cluster import Cluster

T = TypeVar("T")

PATIENCE = 30.0
CALLERS, CALLS = 8, 5
"""How many call each server at the same time, and how often each of them."""

WINDOW = fixed_window("window", 3, per=minutes(1))
BUCKET = token_bucket("bucket", rate=2, per=minutes(1), capacity=4)
LAST_PLACE = fixed_window("last place", 1, per=minutes(1))
MANY = [fixed_window("many at once", 20, per=minutes(1)), token_bucket("many", rate=1, per=minutes(1), capacity=20)]

things = define_table("things", {"name": v.string(), "value": v.number()}).index("by_name", ["name"], unique=True)


class Server:
    """One server in this process, with a clock of its own. Its function does what a test hands it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.clock = HeldClock()
        self._bodies: dict[int, Callable[[MutationCtx], Any]] = {}
        self._returned: dict[int, Any] = {}
        self._numbers = itertools.count()

        def write(ctx: MutationCtx, *, body: int) -> None:
            self._returned[body] = self._bodies[body](ctx)

        application = application_of("limits", define_schema(things), {"play:write": mutation(write)})
        storage = open_storage(folder, create=True, durable=False, database_url=url, handler_seconds=PATIENCE)
        # Those that wait for each other here do so for as long as a busy machine needs.
        settings = Settings(dev=True, mutation_seconds=PATIENCE)
        self._backend = Backend(application, storage, data=folder, settings=settings, clock=self.clock)

    def write(self, body: Callable[[MutationCtx], T]) -> T:
        """Run this as a mutation; what its last run returned. Raises what that raised."""
        number = next(self._numbers)
        self._bodies[number] = body
        outcome = self._backend.run_sync("play:write", b'{"body": %d}' % number, OPERATOR)
        if outcome.exception is not None:
            raise outcome.exception
        return self._returned.pop(number)

    def attempt(self, rule: RateLimit, key: str) -> RateLimitStatus:
        return self.write(lambda ctx: ctx.rate_limit(rule, key))

    def attempts(self, rule: RateLimit, key: str, count: int) -> list[bool]:
        return [self.attempt(rule, key).ok for _ in range(count)]

    def can_be_overtaken(self) -> None:
        """After a loss it has the lock from the start, for so many groups: have them over, so that others can commit meanwhile."""
        for _ in range(CONTENDED_GROUPS):
            self.write(lambda _: None)

    def close(self) -> None:
        self._backend.close()


@pytest.fixture(scope="module")
def running(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    url = postgres.new_database()
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, url)
        first, second = (stack.enter_context(closing(Server(tmp_path_factory.mktemp("server"), url))) for _ in range(2))
        yield first, second


@pytest.fixture
def servers(running: tuple[Server, Server]) -> tuple[Server, Server]:
    """Two servers of one database, which all tests share; their clocks show the same, and no two tests use the same key."""
    latest = max(server.clock.now_ms for server in running)
    for server in running:
        server.clock.advance(latest - server.clock.now_ms)
    return running


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * CALLERS) as threads:
        yield threads


@pytest.mark.parametrize("rule", MANY, ids=["window", "bucket"])
def test_as_many_pass_as_if_there_were_one_server(
    servers: tuple[Server, Server], key: str, threads: ThreadPoolExecutor, rule: RateLimit
) -> None:
    all_are_there = threading.Barrier(2 * CALLERS)

    def calls(server: Server) -> list[bool]:
        all_are_there.wait(PATIENCE)
        return server.attempts(rule, key, CALLS)

    told = [threads.submit(calls, server) for server in servers for _ in range(CALLERS)]

    passed = [ok for future in told for ok in future.result(PATIENCE)]
    assert passed.count(True) == 20
    assert len(passed) == 2 * CALLERS * CALLS


def test_the_last_place_is_taken_once(servers: tuple[Server, Server], key: str, threads: ThreadPoolExecutor) -> None:
    """Each has found it free when both go on."""
    both_have_looked, runs = threading.Barrier(2), list[Server]()
    for server in servers:
        server.can_be_overtaken()

    def take(server: Server) -> bool:
        def body(ctx: MutationCtx) -> bool:
            runs.append(server)
            found = ctx.rate_limit(LAST_PLACE, key).ok
            if runs.count(server) == 1:
                both_have_looked.wait(PATIENCE)
            return found

        return server.write(body)

    told = [threads.submit(take, server) for server in servers]

    assert sorted(future.result(PATIENCE) for future in told) == [False, True]
    assert len(runs) == 3


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("overtaken_by", ["a write", "an attempt"])
def test_a_mutation_that_lost_to_another_server_counts_once(
    servers: tuple[Server, Server], key: str, threads: ThreadPoolExecutor, overtaken_by: str, raises: bool
) -> None:
    first, second = servers
    second.can_be_overtaken()
    has_counted, go, runs = threading.Event(), threading.Event(), list[bool]()

    def guess(ctx: MutationCtx) -> None:
        runs.append(ctx.rate_limit(WINDOW, key).ok)
        find(ctx, key)
        has_counted.set()
        assert go.wait(PATIENCE)
        if raises:
            raise ConvexError("wrong")

    guessing = threads.submit(second.write, guess)
    assert has_counted.wait(PATIENCE)
    if overtaken_by == "a write":
        first.write(lambda ctx: put(ctx, key))
    else:
        assert first.attempt(WINDOW, key).ok
    go.set()

    assert isinstance(guessing.exception(PATIENCE), ConvexError if raises else type(None))
    assert runs == [True, True]
    left = 2 if overtaken_by == "a write" else 1
    assert first.attempts(WINDOW, key, 3) == [place < left for place in range(3)]


def test_an_attempt_whose_function_raised_counts_on_the_other_server(servers: tuple[Server, Server], key: str) -> None:
    first, second = servers

    def guess(ctx: MutationCtx) -> None:
        assert ctx.rate_limit(WINDOW, key).ok
        put(ctx, key)
        raise ConvexError("wrong")

    for server in (first, second, first):
        with pytest.raises(ConvexError, match="wrong"):
            server.write(guess)

    assert not second.attempt(WINDOW, key).ok
    assert not first.attempt(WINDOW, key).ok
    assert second.write(lambda ctx: find(ctx, key)) is None


def test_a_window_ends_for_both_and_begins_anew_for_both(servers: tuple[Server, Server], key: str) -> None:
    first, second = servers
    assert first.attempts(WINDOW, key, 3) == [True] * 3
    assert second.attempt(WINDOW, key) == (False, minutes(1))
    advance(servers, minutes(1))

    assert second.attempt(WINDOW, key).ok
    advance(servers, seconds(20))
    assert first.attempts(WINDOW, key, 2) == [True] * 2
    assert [server.attempt(WINDOW, key) for server in servers] == [(False, seconds(40))] * 2


def test_what_flows_into_a_bucket_is_there_once(servers: tuple[Server, Server], key: str) -> None:
    first, second = servers
    assert first.attempts(BUCKET, key, 2) + second.attempts(BUCKET, key, 2) == [True] * 4
    assert [server.attempt(BUCKET, key) for server in servers] == [(False, seconds(30))] * 2
    advance(servers, seconds(30))

    assert [second.attempt(BUCKET, key).ok, first.attempt(BUCKET, key).ok] == [True, False]


def test_servers_whose_clocks_differ_count_in_one_window(servers: tuple[Server, Server], key: str) -> None:
    """The one whose clock is behind ends no window early, and begins none of its own."""
    ahead, behind = servers
    ahead.clock.advance(seconds(10))
    assert ahead.attempts(WINDOW, key, 3) == [True] * 3
    assert behind.attempt(WINDOW, key) == (False, seconds(70))
    advance(servers, minutes(1))

    assert not behind.attempt(WINDOW, key).ok
    assert ahead.attempt(WINDOW, key).ok
    assert behind.attempts(WINDOW, key, 3) == [True, True, False]
    assert not ahead.attempt(WINDOW, key).ok


def advance(servers: tuple[Server, Server], milliseconds: float) -> None:
    for server in servers:
        server.clock.advance(milliseconds)


def find(ctx: MutationCtx, name: str) -> float | None:
    found = ctx.db.query(things).with_index("by_name", name=name).unique()
    return None if found is None else found["value"]


def put(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(things, {"name": name, "value": 1.0})
