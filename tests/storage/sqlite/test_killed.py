"""A process killed while it commits: what it acknowledged is there when the file is opened again.

`CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from camber.storage import Storage, Timestamp, open_storage
from tests.storage.people import PEOPLE, create_tables, last_timestamp
from tests.storage.sqlite.witness import State, assert_sound, changes, people_in

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "10"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
REPOSITORY = Path(__file__).resolve().parents[3]


def opened(folder: Path) -> Storage:
    storage = open_storage(folder, create=True)
    storage.use_layouts([PEOPLE])
    return storage


@pytest.mark.torture
def test_a_killed_process_leaves_every_commit_it_acknowledged(tmp_path: Path) -> None:
    with closing(open_storage(tmp_path, create=True)) as storage:
        create_tables(storage, PEOPLE)
        at, people = last_timestamp(storage), people_in(storage)
    for seed in range(SEED, SEED + ROUNDS):
        acknowledged = commit_and_be_killed(tmp_path, seed, after=Random(seed).uniform(0.0, 0.2))
        with closing(opened(tmp_path)) as storage:
            last = last_timestamp(storage)
            assert (acknowledged or at) <= last <= (acknowledged or at) + 1
            assert people_in(storage) == replayed(people, seed, commits=last - at)
            at, people = last, people_in(storage)
        assert_sound(tmp_path)


def replayed(people: State, seed: int, *, commits: int) -> State:
    """What so many commits of the process make of the people there were."""
    random = Random(seed)
    for _ in range(commits):
        _, people = changes(people, random)
    return people


def commit_and_be_killed(folder: Path, seed: int, after: float) -> Timestamp | None:
    """Let a process commit for so many seconds after its first commit; returns the last one that it acknowledged."""
    command = [sys.executable, "-m", "tests.storage.sqlite.committer", str(folder), str(seed)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
    finally:
        process.kill()
        rest, _ = process.communicate()
    lines = [line for line in [first, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    return Timestamp(int(lines[-1])) if lines else None
