"""The unmodified React hooks of npm's `convex`, several versions, on a screen that is watched each time it is drawn."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.clients.sync_driver import NPM_PACKAGES, DrivenProcess, Event, running_screen
from tests.wire.raw_client import RawClient, raw_client
from tests.wire.running_server import RunningServer
from tests.wire.test_sync_clients import assert_responses_come_first

PAGE_SIZE = 4
MOST_CHANGES = 2_000
PAUSE_SECONDS = 0.01


@pytest.fixture(params=list(NPM_PACKAGES), scope="module")
def screen(request: pytest.FixtureRequest, sync_server: RunningServer) -> Iterator[DrivenProcess]:
    """A process that draws with the hooks of each version in turn."""
    with running_screen(request.param, sync_server.url) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid4().hex[:12]


class Changes(threading.Thread):
    """Somebody who goes on putting items into a list and taking others out, at any place of it, until told to stop."""

    def __init__(self, url: str, list_name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.items: list[float] = []
        self.has_stopped = threading.Event()
        self._url, self._list_name, self._random = url, list_name, random.Random(seed)
        self._grows = True

    def run(self) -> None:
        with raw_client(self._url) as writer:
            writer.connect()
            for request_id in range(MOST_CHANGES):
                self._change(writer, request_id)
                if self.has_stopped.wait(PAUSE_SECONDS):
                    break

    def _change(self, writer: RawClient, request_id: int) -> None:
        # By turns it grows, so that pages are split, and shrinks, so that they run empty.
        if not 5 < len(self.items) < 40:
            self._grows = len(self.items) <= 5
        puts, takes = (3, 1) if self._grows else (1, 3)
        add = [round(self._random.uniform(0, 100), 6) for _ in range(self._random.randint(0, puts))]
        remove = self._random.sample(self.items, min(len(self.items), self._random.randint(0, takes)))
        self.items = sorted({*self.items, *add} - {*remove})
        writer.mutation(request_id, "lists:change", listName=self._list_name, add=add, remove=remove)
        assert writer.hear_response()["success"]
        writer.hear_transition()

    def stop(self) -> None:
        self.has_stopped.set()
        self.join(30)
        assert not self.is_alive()


def drawn(events: list[Event]) -> list[Event]:
    """What the screen showed each time."""
    return [event for event in events if event["kind"] == "drawn"]


def on_screen(events: list[Event]) -> Event:
    """What it shows now."""
    return next(iter(drawn(events[::-1])), {"full": None, "count": None, "status": None})


def test_pages_have_no_gap_and_nothing_twice_while_the_list_changes(
    screen: DrivenProcess, sync_server: RunningServer, name: str
) -> None:
    """Whenever the screen is drawn, the pages are the beginning of the list as it was at one moment, which is shown beside."""
    changes = Changes(sync_server.url, name, seed=1)
    screen.tell("mount", listName=name, pageSize=PAGE_SIZE)
    screen.until(lambda events: on_screen(events)["full"] == [])
    changes.start()

    for seen in (20, 40, 60, 80):
        screen.until(lambda events, seen=seen: len({tuple(event["full"]) for event in loaded(events)}) >= seen)
        screen.tell("loadMore", count=PAGE_SIZE)
        if seen == 40:
            screen.tell("dropConnection")
    changes.stop()
    events = screen.until(lambda events: on_screen(events)["full"] == changes.items)
    while on_screen(events)["status"] != "Exhausted":
        screen.tell("loadMore", count=len(changes.items) + 1)
        events = screen.until(lambda events: on_screen(events)["status"] in {"CanLoadMore", "Exhausted"})
    screen.tell("unmount")

    assert on_screen(events)["loaded"] == changes.items
    for event in loaded(events):
        assert event["loaded"] == event["full"][: len(event["loaded"])], event
        assert event["status"] != "Exhausted" or event["loaded"] == event["full"], event
    assert max(len(event["loaded"]) for event in loaded(events)) > 2 * PAGE_SIZE
    assert any("endCursor" in str(event["message"]) for event in events if event["kind"] == "sent"), "no page was split"


def loaded(events: list[Event]) -> list[Event]:
    """What the screen showed while both the pages and the whole list were there."""
    return [event for event in drawn(events) if event["full"] is not None and event["status"] != "LoadingFirstPage"]


def test_an_optimistic_value_is_never_drawn_before_an_older_one(
    screen: DrivenProcess, sync_server: RunningServer, name: str
) -> None:
    screen.tell("mount", listName=name, pageSize=PAGE_SIZE)
    screen.until(lambda events: on_screen(events)["count"] == 0)
    for _ in range(5):
        screen.tell("add", name=name, times=4)
    screen.until(lambda events: kinds_received(events).count("MutationResponse") == 20)
    with raw_client(sync_server.url) as somebody:
        somebody.connect()
        somebody.mutation(0, "counters:add", name=name, by=100)
        somebody.hear_response()
    events = screen.until(lambda events: on_screen(events)["count"] == 120)
    screen.tell("unmount")

    counts = [event["count"] for event in drawn(events) if event["count"] is not None]
    assert counts == sorted(counts)
    assert set(counts) >= {0, 20, 120}
    assert_responses_come_first(events, count=20)


def kinds_received(events: list[Event]) -> list[str]:
    return [event["message"]["type"] for event in events if event["kind"] == "received"]
