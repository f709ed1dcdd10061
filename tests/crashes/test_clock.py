"""A clock that is set back: timestamps and creation times go on all the same, while the backend runs and across restarts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from camber import hours
from camber.backend import Backend
from camber.clock import HeldClock
from camber.identity import OPERATOR
from tests.crashes.campaign import Campaign
from tests.crashes.consistency import contents_of
from tests.crashes.engines import EngineClient, opened

HOUR = hours(1)


def add_backer(backend: Backend, username: str) -> int:
    """The timestamp of the commit."""
    args = {"username": username, "accessCode": "A1", "tier": "Gold"}
    outcome = backend.run_sync("crowdfundingBackers:addBacker", json.dumps(args).encode(), OPERATOR)
    assert outcome.ok, outcome
    return outcome.timestamp


def seen_at(backend: Backend) -> list[int]:
    """The timestamps that readers are told: of a query, and of a moment that is kept."""
    query = backend.run_sync("tiers:list", b"{}", OPERATOR).timestamp
    return [query, asyncio.run(backend.hold_snapshot())]


def ascends(numbers: list[float]) -> bool:
    return all(one < next_one for one, next_one in pairwise(numbers))


@pytest.fixture
def usernames() -> Iterator[str]:
    return (f"backer {number}" for number in range(1_000_000))


def test_the_clock_goes_back_while_it_runs(tmp_path: Path, usernames: Iterator[str]) -> None:
    clock = HeldClock()
    with closing(opened(tmp_path, clock=clock)) as backend:
        committed: list[int] = []
        for step in [0, -HOUR, -HOUR, 0, 5, 3 * HOUR, -3 * HOUR]:
            clock.advance(step)
            committed += [add_backer(backend, next(usernames)) for _ in range(3)]
            query, held = seen_at(backend)
            assert query <= held == committed[-1]

    assert ascends([*committed])
    contents = contents_of(tmp_path)
    assert ascends([backer["_creationTime"] for backer in contents["crowdfunding_backers"]])
    assert contents.timestamp == committed[-1]


def test_the_clock_goes_back_between_restarts(tmp_path: Path, usernames: Iterator[str]) -> None:
    """Each start is an hour before the one before it."""
    clock, times = HeldClock(), list[float]()
    committed: list[int] = []
    for _ in range(6):
        with closing(opened(tmp_path, clock=clock)) as backend:
            assert seen_at(backend) >= committed[-1:]
            committed += [add_backer(backend, next(usernames)) for _ in range(20)]
        contents = contents_of(tmp_path)
        newest = [backer["_creationTime"] for backer in contents["crowdfunding_backers"]]
        assert newest[: len(times)] == times
        times = newest
        clock.advance(-HOUR)

    assert ascends(times)
    assert ascends([*committed])


@pytest.mark.parametrize("seed", range(3))
def test_callers_at_work_notice_nothing(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    campaign, clock = Campaign(4, random), HeldClock()
    for _ in range(3):
        with closing(opened(tmp_path, clock=clock)) as backend:
            for _ in range(3):
                threads = campaign.start([EngineClient(backend)] * 4, threading.Event(), 15)
                clock.advance(random.choice([-HOUR, -1, 0.0001, 100]))
                for thread in threads:
                    thread.join()
        assert not campaign.surprises
        campaign.check(contents_of(tmp_path))
        clock.advance(-HOUR)
