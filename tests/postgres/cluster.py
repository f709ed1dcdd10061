"""One PostgreSQL of the tests' own: made in a temporary folder, on a free port of this machine, and gone with the process that made it."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 60.0

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS: dict[str, signal.Signals] = {
    "smart": signal.SIGTERM,  # waits for its clients to leave
    "fast": signal.SIGINT,  # throws them out, and writes everything down
    "immediate": signal.SIGQUIT,  # ends at once; the next start recovers from the log
}

# PostgreSQL refuses to run as root; Debian's package makes this user for it.
_USER_INSTEAD_OF_ROOT = "postgres"

# Reads the number of each server that it is to end; when the test process lets go of the pipe, whatever the reason,
# it ends the last one and removes the folder.
_WATCHER = """
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -QUIT "$server"
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.5; done
    kill -KILL "$server" 2>/dev/null
fi
rm -rf -- "$1"
"""


class Cluster:
    """A PostgreSQL server on 127.0.0.1 that trusts whoever reaches it, through all its lives; data, port and log stay.

    It is not started yet. With `fsync` a COMMIT waits for the disk, as in earnest; without it a killed process still
    loses nothing, only a machine without power would. `settings` are of postgresql.conf, in its own writing.
    """

    def __init__(self, *, fsync: bool = False, settings: dict[str, str] | None = None) -> None:
        self.programs = find_programs()
        self._account = _account()
        self.folder = Path(tempfile.mkdtemp(prefix="camber-postgres-"))
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.port = _port_that_stays_free()
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCHER, "sh", self.folder],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            if self._account is not None:
                os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
            self._make(fsync, settings or {})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Its lives

    def start(self) -> None:
        """Start it and wait until it answers; RuntimeError with its log if it does not."""
        assert self._server is None, "it runs already"
        with self.log.open("ab") as output:
            server = subprocess.Popen[bytes](
                [self.programs / "postgres", "-D", self.data, "-p", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=_environment(), cwd=self.folder, **self._as_its_user(),
            )  # fmt: skip
        self._server = server
        self._tell_the_watcher(str(server.pid))
        self._wait_until_it_answers(server)

    def stop(self, mode: StopMode = "fast", *, timeout: float = SECONDS_TO_STOP) -> None:
        """Stop it as pg_ctl would. RuntimeError if it has not ended by then; it is killed."""
        assert self._server is not None, "it does not run"
        self._server.send_signal(_SIGNALS[mode])
        try:
            self._server.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"PostgreSQL did not stop ({mode}) in {timeout:.0f} s:\n{self.last_lines()}") from None
        self._forget_the_server()

    def kill(self) -> None:
        """Kill the server and all its processes at once, as a machine that fails does."""
        assert self._server is not None, "it does not run"
        # Stopped first, it can't start another process while its processes are counted.
        self._server.send_signal(signal.SIGSTOP)
        processes = _children(self._server.pid)
        for each in [self._server.pid, *processes]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._server.wait()
        _wait_for_the_end_of(processes)
        self._forget_the_server()

    def close(self) -> None:
        """Stop it, if it runs, and remove its folder."""
        if self._watcher.stdin is None or self._watcher.stdin.closed:
            return
        if self._server is not None and self._server.poll() is None:
            self.stop("immediate")
        self._server = None
        self._watcher.stdin.close()
        self._watcher.wait()

    @property
    def runs(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def last_lines(self, characters: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"

    # Its databases

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database; returns its URL."""
        name = f"test{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database that `new_database` made; whoever is still connected is thrown out."""
        name = conninfo_to_dict(url)["dbname"]
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(self, statement: str, values: Sequence[object] = (), *, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own, and return its rows, if it has any."""
        with psycopg.connect(url or self.url(), autocommit=True, connect_timeout=30) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    # How

    def _make(self, fsync: bool, settings: dict[str, str]) -> None:
        command: list[str | Path] = [
            self.programs / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        made = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=_environment(),
            **self._as_its_user(),
        )
        if made.returncode:
            raise RuntimeError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        (self.data / "pg_hba.conf").write_text(
            "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
        )
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": "''",
            "max_connections": "300",
            "shared_buffers": "16MB",
            "fsync": "on" if fsync else "off",
            "dynamic_shared_memory_type": "mmap",  # in its folder, so that nothing outlives it
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_line_prefix": "'%m [%p] %d '",
        } | settings
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _wait_until_it_answers(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                self.sql("SELECT 1")
                return
            except psycopg.OperationalError as error:
                if server.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                if server.poll() is None:
                    self.kill()
                self._forget_the_server()
                raise RuntimeError(f"PostgreSQL does not answer ({error}):\n{self.last_lines()}") from None

    def _forget_the_server(self) -> None:
        self._server = None
        self._tell_the_watcher("")

    def _tell_the_watcher(self, line: str) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(f"{line}\n".encode())
        self._watcher.stdin.flush()

    def _as_its_user(self) -> dict[str, Any]:
        account = self._account
        return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def find_programs() -> Path:
    """The folder of PostgreSQL's programs: POSTGRES_BIN, the PATH's, pg_config's, or Debian's newest."""
    for folder in _places_of_programs():
        if all((folder / program).is_file() for program in ("initdb", "postgres")):
            return folder
    raise RuntimeError(
        "Found no PostgreSQL (initdb, postgres), which these tests start for themselves. scripts/setup postgres says "
        "what to install; POSTGRES_BIN names the folder of its programs, if they lie elsewhere."
    )


def _places_of_programs() -> list[Path]:
    if chosen := os.environ.get("POSTGRES_BIN"):
        return [Path(chosen)]
    places: list[Path] = []
    if initdb := shutil.which("initdb"):
        places.append(Path(initdb).resolve().parent)
    if pg_config := shutil.which("pg_config"):
        places.append(Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip()))
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdecimal()]
    return places + sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)


def _account() -> pwd.struct_passwd | None:
    """The user whom the server runs as; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_USER_INSTEAD_OF_ROOT)
    except KeyError:
        raise RuntimeError(
            f"PostgreSQL does not run as root, and there is no user {_USER_INSTEAD_OF_ROOT} to run it as."
        ) from None


def _environment() -> dict[str, str]:
    """This process's, without what would steer PostgreSQL (PGDATA, PGPORT, the messages' language)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def _port_that_stays_free() -> int:
    """A port nobody listens on, from below those that a system gives to outgoing connections.

    One of the latter could be taken by any client while the server is down.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _children(process: int) -> list[int]:
    listing = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True)
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    return [child for child, parent in pairs if parent == process]


def _wait_for_the_end_of(processes: Sequence[int]) -> None:
    """Wait until none of them runs; one that nobody has waited for yet (a zombie) does not."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    command = ["ps", "-o", "stat=", "-p", ",".join(map(str, processes))]
    while processes:
        states = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout.split()
        if all(state.startswith("Z") for state in states):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"killed processes are still there: {processes}")
        time.sleep(0.01)
