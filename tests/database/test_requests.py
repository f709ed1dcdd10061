"""Requests that a client sends twice: they run once, and the second answer is the first one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from camber import MutationCtx, backend, days, define_table, hours, v
from camber.database import (
    DatabaseWriter,
    RememberedResult,
    RequestKey,
    RunState,
    Transaction,
    forget_expired,
    remember,
    remembered,
)
from camber.database.catalog import SYSTEM_CATALOG
from camber.errors import RequestError
from camber.storage import BY_CREATION_TIME, Timestamp
from tests.database.playground import PATIENCE, Playground, playground

THINGS = define_table("things", v.any())


@pytest.fixture
def world() -> Any:
    with playground(THINGS) as opened:
        yield opened


class Request:
    """A mutation that inserts a thing, once for each request key."""

    seconds = PATIENCE

    def __init__(self, world: Playground, key: RequestKey, result: bytes = b'"done"', *, fails: bool = False) -> None:
        self._world, self._key, self._result, self._fails = world, key, result, fails
        self.found: RememberedResult | None = None
        self.error: Exception | None = None
        self._settled = threading.Event()

    def run(self, transaction: Transaction) -> None:
        self.found = remembered(transaction, self._key)
        if self.found is not None:
            return
        DatabaseWriter(RunState(transaction, self._world.backend.engine.database.cursors)).insert("things", {})
        if self._fails:
            raise ZeroDivisionError
        remember(transaction, self._key, self._result, ["[LOG] 'hello'"])

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:
        self.error = error
        self._settled.set()

    def send(self) -> Request:
        self._world.backend.engine.database.submit(self)
        assert self._settled.wait(PATIENCE)
        return self


def key(request: int = 1, *, session: str = "s", asked: bytes = b"appState:set") -> RequestKey:
    return RequestKey.of(session, request, b"ann", asked, b"{}")


def test_a_request_that_comes_again_is_answered_and_not_run(world: Playground) -> None:
    first = Request(world, key()).send()
    second = Request(world, key()).send()

    assert first.found is None
    assert second.found == RememberedResult(b'"done"', ["[LOG] 'hello'"])
    assert len(world.all("things")) == 1


def test_other_requests_and_sessions_are_not_the_same(world: Playground) -> None:
    for each in (key(), key(2), key(session="t"), key(session="s\0")):
        assert Request(world, each).send().found is None

    assert len(world.all("things")) == 4


def test_a_number_that_asks_for_something_else_the_second_time_is_an_error(world: Playground) -> None:
    Request(world, key()).send()
    again = Request(world, key(asked=b"users:delete")).send()

    assert isinstance(again.error, RequestError)
    assert (again.error.status, again.error.short_code) == (400, "RequestIdReused")
    assert len(world.all("things")) == 1


def test_the_parts_of_what_is_asked_do_not_run_into_each_other() -> None:
    assert RequestKey.of("s", 1, b"ab", b"c") != RequestKey.of("s", 1, b"a", b"bc")


def test_a_request_that_failed_runs_again(world: Playground) -> None:
    failed = Request(world, key(), fails=True).send()
    again = Request(world, key()).send()

    assert isinstance(failed.error, ZeroDivisionError)
    assert again.found is None
    assert len(world.all("things")) == 1


def test_the_same_request_twice_in_one_group_runs_once(world: Playground) -> None:
    held, release = threading.Event(), threading.Event()

    def hold(ctx: MutationCtx) -> None:
        held.set()
        release.wait(PATIENCE)

    holder = threading.Thread(target=world.write, args=(hold,))
    holder.start()
    assert held.wait(PATIENCE)
    both = [Request(world, key()), Request(world, key())]
    senders = [threading.Thread(target=one.send) for one in both]
    for sender in senders:
        sender.start()
    deadline = time.monotonic() + PATIENCE
    while world.backend.engine.database.waiting_mutations < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    release.set()
    for thread in (*senders, holder):
        thread.join()

    assert sorted(one.found is None for one in both) == [False, True]
    assert len(world.all("things")) == 1


def test_a_result_that_is_too_large_is_remembered_as_done(world: Playground) -> None:
    Request(world, key(1), b'"' + b"x" * 65_534 + b'"').send()
    Request(world, key(2), b'"' + b"x" * 65_535 + b'"').send()
    just_fits, too_large = Request(world, key(1)).send().found, Request(world, key(2)).send().found

    assert just_fits is not None
    assert just_fits.result is not None
    assert too_large == RememberedResult(None, ["[LOG] 'hello'"])


def test_requests_are_remembered_across_a_restart_and_for_a_day(world: Playground) -> None:
    Request(world, key()).send()
    world.restart()
    world.backend.clock.advance(hours(23.9))
    clean(world)
    assert Request(world, key()).send().found is not None

    world.backend.clock.advance(days(1))
    assert clean(world) == 1
    assert Request(world, key()).send().found is None


def test_all_that_has_run_out_is_cleared_away_however_much_it_is(world: Playground, monkeypatch: Any) -> None:
    monkeypatch.setattr(backend, "HOUSEKEEPING_SECONDS", 0.05)
    monkeypatch.setattr(backend, "CLEARED_AT_ONCE", 2)
    for number in range(7):
        Request(world, key(number)).send()
    world.restart()
    world.backend.clock.advance(days(1) + hours(1))
    Request(world, key(7)).send()

    def remembered_requests() -> int:
        with world.backend.engine.database.snapshot() as snapshot:
            return snapshot.count(SYSTEM_CATALOG.by_name["_session_requests"].number, BY_CREATION_TIME, b"", None)

    deadline = time.monotonic() + PATIENCE
    while remembered_requests() > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Cleaning:
    seconds = PATIENCE

    def __init__(self) -> None:
        self.gone = -1
        self.settled = threading.Event()

    def run(self, transaction: Transaction) -> None:
        self.gone = forget_expired(transaction, at_most=100)

    def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:
        self.settled.set()


def clean(world: Playground) -> int:
    """Drop what has run out; how many records went."""
    cleaning = Cleaning()
    world.backend.engine.database.submit(cleaning)
    assert cleaning.settled.wait(PATIENCE)
    return cleaning.gone
