"""PostgreSQL that survives its leader: several nodes under Patroni with synchronous replication, and an etcd to agree by."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from tests.wire.running_server import clean_environment, free_ports

POSTGRES_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
PROGRAMS = ("patroni", "etcd")
PATIENCE = 90.0
TTL_SECONDS, LOOP_SECONDS, RETRY_SECONDS = 8, 1, 3
"""How long a leader that says nothing more keeps the others waiting: at least the loop's seconds and twice those of a retry."""

# When the test process lets go of the pipe, whatever the reason, this ends all that works in the folder, and removes it.
_WATCHER = """
read -r line
for _ in 1 2 3 4 5; do
    for process in /proc/[0-9]*; do
        case $(readlink "$process/cwd") in "$1" | "$1"/*) kill -KILL "${process#/proc/}" ;; esac
    done
done
rm -rf -- "$1"
"""


def is_installed() -> bool:
    """Whether this machine has all that such a cluster is made of."""
    return all(shutil.which(name) for name in PROGRAMS) and (POSTGRES_PROGRAMS / "postgres").exists()


@dataclass(eq=False)
class Node:
    """One PostgreSQL and the Patroni that watches over it; `port` is PostgreSQL's, `rest_port` Patroni's."""

    name: str
    folder: Path
    port: int
    rest_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "patroni.log"

    def ask(self, path: str) -> tuple[int, Any] | None:
        """What its Patroni says to this; None where it does not answer."""
        connection = HTTPConnection("127.0.0.1", self.rest_port, timeout=3)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def role(self) -> str | None:
        """What its PostgreSQL says of itself: primary, standby, or nothing."""
        address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        try:
            with psycopg.connect(address, connect_timeout=3, autocommit=True) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        except psycopg.Error:
            return None
        assert row is not None
        return "standby" if row[0] else "primary"


class PatroniCluster:
    """Nodes of one cluster on loopback, on free ports, in a folder of their own; everything ends with `close`."""

    def __init__(self, nodes: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="camber-patroni-"))
        self._user = "postgres" if os.geteuid() == 0 else None
        self._own(self.folder)
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCHER, "sh", self.folder],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._etcd: subprocess.Popen[bytes] | None = None
        self._etcd_port, self._etcd_peer_port, *ports = free_ports(2 + 2 * nodes)
        self.nodes = [
            Node(f"node{number}", self.folder / f"node{number}", ports[2 * number], ports[2 * number + 1])
            for number in range(nodes)
        ]
        try:
            self._start_etcd()
            for node in self.nodes:
                self._configure(node)
            # One at a time: the first becomes the leader, the others copy it.
            for node in self.nodes:
                self.restart(node)
                self.wait_for_leader(standbys=0)
            self.wait_for_leader()
        except BaseException:
            self.close()
            raise

    def url(self, database: str) -> str:
        """Where whoever is the leader is found, as libpq reads it."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write&connect_timeout=3"

    def new_database(self, name: str) -> str:
        """Create a database; returns its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return self.url(name)

    def leader(self) -> Node | None:
        """The node that holds the leader's key and takes writes, if there is one now."""
        for node in self.nodes:
            answer = node.ask("/leader")
            if answer is not None and answer[0] == 200 and node.role() == "primary":
                return node
        return None

    def synchronous_standbys(self) -> list[Node]:
        """The nodes without which the leader acknowledges nothing."""
        return [node for node in self.nodes if (answer := node.ask("/synchronous")) is not None and answer[0] == 200]

    def wait_for_leader(self, *, other_than: Node | None = None, standbys: int | None = None) -> Node:
        """Wait until there is a leader, with so many synchronous standbys (as many as can be, unless it is said)."""
        if standbys is None:
            standbys = min(1, sum(node.process is not None for node in self.nodes) - 1)
        found: list[Node] = []

        def is_there() -> bool:
            leader = self.leader()
            if leader is None or leader is other_than or len(self.synchronous_standbys()) < standbys:
                return False
            found.append(leader)
            return True

        self._wait_for(is_there, "a leader")
        return found[0]

    def kill_leader(self) -> Node:
        """kill -9 of the leader's Patroni and of its PostgreSQL with all its processes; returns the node that was it."""
        leader = self.leader()
        assert leader is not None, "there is no leader"
        self.kill(leader)
        return leader

    def kill(self, node: Node) -> None:
        """kill -9 of a node: its Patroni first, which would start its PostgreSQL again."""
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        node.process = None
        _kill_all_in(node.data)

    def restart(self, node: Node) -> None:
        """Start the Patroni of a node that does not run; it brings its PostgreSQL back, as leader or as standby."""
        assert node.process is None
        command = [shutil.which("patroni") or "patroni", node.folder / "patroni.json"]
        node.process = self._started(command, node.log)

    def close(self) -> None:
        """End all of it, and remove the folder."""
        for node in self.nodes:
            if node.process is not None:
                self.kill(node)
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._etcd_peer_port))
        arguments = {
            "name": "etcd",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"etcd={peer}",
            "log-level": "warn",
        }
        command = ["etcd", *(f"--{name}={value}" for name, value in arguments.items())]
        self._etcd = self._started(command, self.folder / "etcd.log")
        self._wait_for(self._etcd_is_healthy, "etcd")

    def _etcd_is_healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self._etcd_port, timeout=3)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _configure(self, node: Node) -> None:
        node.folder.mkdir()
        parameters = {
            "max_connections": 100,
            "shared_buffers": "32MB",
            "wal_keep_size": "256MB",
            "unix_socket_directories": str(self.folder),
            "logging_collector": "off",
        }
        accounts = {"superuser": {"username": "postgres"}, "replication": {"username": "postgres"}}
        agreed = {
            "ttl": TTL_SECONDS,
            "loop_wait": LOOP_SECONDS,
            "retry_timeout": RETRY_SECONDS,
            "synchronous_mode": True,
            "maximum_lag_on_failover": 1 << 30,
            "postgresql": {"use_pg_rewind": True, "parameters": parameters},
        }
        address = f"127.0.0.1:{node.port}"
        rest = f"127.0.0.1:{node.rest_port}"
        settings = {
            "scope": "camber",
            "name": node.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"127.0.0.1:{self._etcd_port}"},
            "bootstrap": {
                "dcs": agreed,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, {"auth": "trust"}, "data-checksums"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(node.data),
                "bin_dir": str(POSTGRES_PROGRAMS),
                "pgpass": str(node.folder / "pgpass"),
                "authentication": accounts,
                "parameters": {"unix_socket_directories": str(self.folder)},
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }
        configuration = node.folder / "patroni.json"
        configuration.write_text(json.dumps(settings, indent=2))
        self._own(node.folder)
        self._own(configuration)

    def _started(self, command: list[Any], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=clean_environment() | {"HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
                start_new_session=True,
            )

    def _own(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user, self._user)

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.printed()}"
            time.sleep(0.1)

    def printed(self) -> str:
        """The end of what each part printed."""
        logs = [self.folder / "etcd.log", *(node.log for node in self.nodes)]
        return "\n".join(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())


@contextmanager
def patroni_cluster(nodes: int = 2) -> Iterator[PatroniCluster]:
    """A cluster that has a leader and a synchronous standby."""
    cluster = PatroniCluster(nodes)
    try:
        yield cluster
    finally:
        cluster.close()


def _kill_all_in(folder: Path) -> None:
    """kill -9 of every process that works in this folder, which are those of one PostgreSQL; returns when none is left."""
    deadline = time.monotonic() + PATIENCE
    while found := _processes_in(folder):
        assert time.monotonic() < deadline, f"they don't end: {found}"
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _processes_in(folder: Path) -> list[int]:
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile, or is another user's
                if (process / "cwd").readlink() == folder:
                    found.append(int(process.name))
    return found
