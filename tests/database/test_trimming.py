"""The log of commits is kept for a while and no longer, also where the clock has been wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from camber import MutationCtx, define_table, v
from camber.clock import SystemClock
from camber.database import committer
from camber.storage import Timestamp
from tests.database.playground import Playground, playground

EVENTS = define_table("events", v.any())
HOUR_NS = 3_600_000_000_000
KEPT_SECONDS = 1.0
PAUSE_SECONDS = 0.01
PATIENCE = 30.0


class WrongClock(SystemClock):
    """The machine's clock, where it is set wrong."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
def world(clock: WrongClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Playground]:
    monkeypatch.setattr(committer, "COMMITS_KEPT_SECONDS", KEPT_SECONDS)
    with playground(EVENTS) as opened:
        opened.restart(clock=clock)
        yield opened


def commit(world: Playground) -> list[int]:
    """Commit something, and give the timestamps of the log as it is then."""

    def insert(ctx: MutationCtx) -> None:
        ctx.db.insert(EVENTS, {})

    world.write(insert)
    time.sleep(PAUSE_SECONDS)
    storage = world.backend.engine.database.storage
    return [row.timestamp for row in storage.commits_after(Timestamp(0))]


def wait_until_dropped(world: Playground) -> None:
    """Go on committing until what the log has now is dropped from it."""
    last = commit(world)[-1]
    deadline = time.monotonic() + PATIENCE
    while (first := commit(world)[0]) <= last:
        assert time.monotonic() < deadline, f"{first} is still there"


SETTINGS: dict[str, Callable[[WrongClock], None]] = {
    "right": lambda clock: None,
    "an hour ahead": lambda clock: setattr(clock, "ahead_ns", HOUR_NS),
    "an hour behind": lambda clock: setattr(clock, "ahead_ns", -HOUR_NS),
}


@pytest.mark.parametrize("put_wrong", SETTINGS.values(), ids=SETTINGS.keys())
def test_what_is_old_is_dropped_whatever_the_clock_has_said(
    world: Playground, clock: WrongClock, put_wrong: Callable[[WrongClock], None]
) -> None:
    wait_until_dropped(world)
    put_wrong(clock)
    commit(world)
    clock.ahead_ns = 0

    for _ in range(2):
        wait_until_dropped(world)


@pytest.mark.parametrize("put_wrong", SETTINGS.values(), ids=SETTINGS.keys())
def test_what_was_committed_a_moment_ago_is_there_whatever_the_clock_says(
    world: Playground, clock: WrongClock, put_wrong: Callable[[WrongClock], None]
) -> None:
    made: list[tuple[float, int]] = []
    begun, dropped = time.monotonic(), False
    while not dropped or time.monotonic() < begun + 2.5 * KEPT_SECONDS:
        assert time.monotonic() < begun + PATIENCE
        if time.monotonic() > begun + 1.5 * KEPT_SECONDS:
            put_wrong(clock)
        before = time.monotonic()
        log = commit(world)
        now = time.monotonic()
        made.append((before, log[-1]))
        assert [row for since, row in made if now - since < KEPT_SECONDS and row not in log] == []
        dropped = made[0][1] not in log
