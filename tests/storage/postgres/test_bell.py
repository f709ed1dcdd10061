"""The bell by which servers tell each other of commits: whoever waits for the log hears the others, and not itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from camber.storage import CommitLog, open_storage

LONG = 60.0
SHORT = 0.5


@pytest.fixture
def logs(postgres_url: str, tmp_path: Path) -> Iterator[tuple[CommitLog, CommitLog]]:
    """The logs of two servers, which both listen."""
    with ExitStack() as stack:
        opened: list[CommitLog] = []
        for name in ("one", "another"):
            storage = open_storage(tmp_path / name, create=True, database_url=postgres_url)
            stack.callback(storage.close)
            log = storage.open_log()
            assert log is not None
            stack.callback(log.close)
            log.wait(0)
            opened.append(log)
        yield opened[0], opened[1]


def seconds_waited(log: CommitLog, at_most: float) -> float:
    began = time.monotonic()
    log.wait(at_most)
    return time.monotonic() - began


def ring(log: CommitLog) -> None:
    log.ring()
    log.wait(0)


def test_another_server_s_bell_ends_the_wait(logs: tuple[CommitLog, CommitLog]) -> None:
    mine, other = logs
    ring(other)

    assert seconds_waited(mine, LONG) < LONG / 2


def test_a_bell_of_one_s_own_does_not(logs: tuple[CommitLog, CommitLog]) -> None:
    mine, _ = logs
    ring(mine)

    assert seconds_waited(mine, SHORT) >= SHORT


def test_a_bell_that_rings_while_one_rings_oneself_is_heard(logs: tuple[CommitLog, CommitLog]) -> None:
    mine, other = logs
    ring(other)
    time.sleep(SHORT)  # by now it is on its way to us, unread
    mine.ring()

    assert seconds_waited(mine, LONG) < LONG / 2
