"""What both sides store with: SQLite, a file in each server's own folder, or one PostgreSQL on which each has a database.

Benchmarks that can do both take `--engine postgres`; those of several servers know PostgreSQL only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from load import TICKS_PER_SECOND, use_core, use_generator_core

# What the tests start theirs with.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.postgres.cluster import Cluster, Standby

C = TypeVar("C", bound=Cluster)

AS_DEFAULT = {"shared_buffers": "128MB", "max_connections": "100"}
"""What the tests' own PostgreSQL has less or more of than one that nobody has configured."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where data goes: to PostgreSQL, or without one to SQLite."""

    name: str
    cluster: Cluster | None = None

    def new_database(self) -> str:
        """The URL of an empty database; empty where the data is a file."""
        return "" if self.cluster is None else self.cluster.new_database()

    def cpu_seconds(self) -> float:
        """User and system time of PostgreSQL, all its processes, also those that have ended; of SQLite none of its own."""
        if self.cluster is None:
            return 0.0
        first = int((self.cluster.data / "postmaster.pid").read_text().splitlines()[0])
        others = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return _ticks(first, of_the_dead=True) + sum(_ticks(int(pid), of_the_dead=False) for pid in others)


SQLITE = Engine("SQLite")


@contextmanager
def chosen_engine() -> Iterator[Engine]:
    """The engine that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    if parser.parse_args().engine == "sqlite":
        yield SQLITE
        return
    with postgres() as engine:
        yield engine


@contextmanager
def postgres() -> Iterator[Engine]:
    """A PostgreSQL that nobody has configured: it waits for the disk at each COMMIT. It uses both cores."""
    with _started(lambda: Cluster(fsync=True, settings=AS_DEFAULT)) as cluster:
        yield Engine("PostgreSQL", cluster)


@contextmanager
def postgres_with_standby() -> Iterator[Engine]:
    """The same, and it waits at each COMMIT for the disk of another one too, on this machine, which has all that it has."""
    with (
        _started(lambda: Cluster(fsync=True, settings=AS_DEFAULT)) as cluster,
        _started(lambda: Standby(cluster, fsync=True)) as standby,
    ):
        standby.demand()
        yield Engine("PostgreSQL with a synchronous standby", cluster)


@contextmanager
def _started(make: Callable[[], C]) -> Iterator[C]:
    kept, tempfile.tempdir = tempfile.tempdir, os.environ.get("BENCH_FOLDER", tempfile.tempdir)
    try:
        cluster = make()
    finally:
        tempfile.tempdir = kept
    use_core(None)
    with cluster:
        use_generator_core()
        yield cluster


def _ticks(pid: int, *, of_the_dead: bool) -> float:
    with suppress(OSError):  # it has ended since it was listed
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11 : 15 if of_the_dead else 13])) / TICKS_PER_SECOND
    return 0.0
