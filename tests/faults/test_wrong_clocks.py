"""Servers whose clocks are hours apart, and jump: the timestamps of the database go on, no change is lost, none is seen too early.

`CAMBER_TORTURE_ROUNDS` says how often they jump, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.load import IS_LONG, SEED, WRITERS, Load, load_on, rounds
from tests.wire.running_server import REPOSITORY

HOUR = 3_600.0

pytestmark = pytest.mark.torture


class WrongClock:
    """How far the clock of one server is ahead, in a file that it reads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds = 0.0
        self.set(0.0)

    def set(self, seconds: float) -> None:
        self.seconds = seconds
        if not self.file.exists():
            self.file.write_bytes(bytes(8))
        with self.file.open("r+b") as file:
            file.write(struct.pack("<q", int(seconds * 1e9)))


@pytest.fixture
def clocks(tmp_path: Path) -> list[WrongClock]:
    return [WrongClock(tmp_path / f"clock{number}") for number in range(3)]


@pytest.fixture
def fleet(database: str, tmp_path: Path, clocks: list[WrongClock]) -> Iterator[Fleet]:
    """Servers with these clocks."""
    env = [{"CAMBER_TEST_CLOCK": str(clock.file), "PYTHONPATH": str(REPOSITORY)} for clock in clocks]
    program = (sys.executable, REPOSITORY / "tests/faults/on_own_clock.py")
    # Not started yet: with which clock they start is up to the test.
    with Fleet(tmp_path, [database] * len(clocks), env=env, program=program, starts=False) as fleet:
        yield fleet


def newest_shown(load: Load) -> int:
    """The latest timestamp that any live client was told of; in the end it tells whether a clock was wrong at all."""
    return max(witness.newest for witness in load.witnesses)


def test_clocks_are_an_hour_apart(fleet: Fleet, clocks: list[WrongClock]) -> None:
    for clock, seconds in zip(clocks, [0.0, HOUR, -HOUR], strict=True):
        clock.set(seconds)
    fleet.start()
    with load_on(fleet) as load:
        # Whoever comes back with a clock that is behind must go on from what the others have written.
        for server in fleet.servers * rounds(10) if IS_LONG else fleet.servers[2:]:
            load.wait_for_writes(50 if IS_LONG else 10)
            assert server.end() == 0, server.printed[-4000:]
            fleet.restart(server)
            load.wait_for_writes(of=[server])
    assert newest_shown(load) > time.time_ns() + HOUR / 2 * 1e9


def test_clocks_jump_while_they_are_used(fleet: Fleet, clocks: list[WrongClock]) -> None:
    random = Random(SEED)
    fleet.start()
    with load_on(fleet) as load:
        farthest, then = 0.0, 0.0
        for _ in range(20 * rounds(20)):
            clock, server = random.choice(list(zip(clocks, fleet.servers, strict=True)))
            jump = random.choice([-2 * HOUR, -30.0, -0.01, 0.01, 15.0, 70.0, HOUR])
            clock.set(clock.seconds + jump if farthest else HOUR)
            if clock.seconds > farthest:
                farthest, then = clock.seconds, time.time_ns() + clock.seconds * 1e9
                load.wait_for_writes(WRITERS + 1, of=[server])  # each writer may have begun one before
            time.sleep(random.uniform(0.0, 0.3))
        load.wait_for_writes()
    assert newest_shown(load) > then


def test_a_clock_that_was_far_ahead_is_set_right(fleet: Fleet, clocks: list[WrongClock]) -> None:
    """Timestamps stay ahead of every clock until time has come up with them; nobody waits for that."""
    fleet.start()
    with load_on(fleet) as load:
        clocks[0].set(24 * HOUR)
        load.wait_for_writes(20)
        clocks[0].set(0.0)
        load.wait_for_writes(20)
        load.stop()
        fleet.stop()
        fleet.start()
        load.start()
        load.wait_for_writes(20)
    assert newest_shown(load) > time.time_ns() + 12 * HOUR * 1e9
