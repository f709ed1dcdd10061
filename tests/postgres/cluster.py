"""One PostgreSQL of the tests' own: made in a temporary folder, on a free port of this machine, and gone with the process that made it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.wire.running_server import free_ports

SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 60.0
SECONDS_TO_WAIT = 30.0

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS: dict[str, signal.Signals] = {
    "smart": signal.SIGTERM,  # waits for its clients to leave
    "fast": signal.SIGINT,  # throws them out, and writes everything down
    "immediate": signal.SIGQUIT,  # ends at once; the next start recovers from the log
}

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30

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
        self.folder = Path(tempfile.mkdtemp(prefix="camber-postgres-", dir=None if fsync else _memory()))
        self.data, self.log = self.folder / "data", self.folder / "log"
        (self.port,) = free_ports(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._watcher = _watcher_of(self.folder)
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
                env=_environment(), cwd=self.folder, **_as(self._account),
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
        assert self._watcher.stdin is not None
        if self._watcher.stdin.closed:
            return
        if self._server is not None and self._server.poll() is None:
            self.stop("immediate")
        self._server = None
        _let_go_of(self._watcher)

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
        self._run(["cp", "-a", _fresh_data(self.programs, self._account), self.data])
        (self.data / "pg_hba.conf").write_text(
            "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
        )
        defaults = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": "''",
            "max_connections": "300",
            "shared_buffers": "16MB",
            "max_wal_size": "256MB",
            "fsync": "on" if fsync else "off",
            "dynamic_shared_memory_type": "mmap",  # in its folder, so that nothing outlives it
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_line_prefix": "'%m [%p] %d '",
        }
        self._set(defaults | settings)

    def _run(self, command: Sequence[str | Path]) -> None:
        _run(command, self.folder, self._account)

    def _set(self, settings: dict[str, str]) -> None:
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


class Standby(Cluster):
    """A standby of a cluster that runs: it follows it, and can be read meanwhile."""

    def __init__(self, primary: Cluster, *, fsync: bool = False) -> None:
        self._primary = primary
        super().__init__(fsync=fsync)

    def demand(self) -> None:
        """From now on the primary waits at each COMMIT until this one has it on disk; RuntimeError if it does not connect."""
        self._primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + SECONDS_TO_START
        while self._primary.sql("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the standby does not follow:\n{self.last_lines()}")
            time.sleep(0.05)
        # Whether a COMMIT waits at all is up to the checkpointer, which reads the settings again by the time it has done this.
        self._primary.sql("CHECKPOINT")

    def _make(self, fsync: bool, settings: dict[str, str]) -> None:
        # Its postgresql.conf is the primary's, and the place where that listens is written beside it.
        command: list[str | Path] = [
            self.programs / "pg_basebackup", "-D", self.data, "-d", self._primary.url(), "-R", "-c", "fast", "--no-sync",
        ]  # fmt: skip
        self._run(command)
        self._set({"fsync": "on" if fsync else "off"} | settings)


@contextlib.contextmanager
def old_reader(url: str) -> Iterator[None]:
    """Somebody who reads what is older than all that comes: the end of building an index waits for him."""
    with psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        yield


def wait_until_waiting(url: str, statement: str) -> None:
    """Wait until somebody whose statement begins like this waits for others."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    with psycopg.connect(url, autocommit=True) as sql:
        while not sql.execute(
            "SELECT 1 FROM pg_stat_activity WHERE starts_with(query, %s) AND wait_event_type = 'Lock'", (statement,)
        ).fetchone():
            assert time.monotonic() < deadline, f"nobody waits in {statement}"
            time.sleep(0.02)


def find_programs() -> Path:
    """The folder of PostgreSQL's programs: POSTGRES_BIN, the PATH's, pg_config's, or Debian's newest."""
    for folder in _places_of_programs():
        if all((folder / program).is_file() for program in ("initdb", "postgres")):
            return folder
    raise RuntimeError(
        "Found no PostgreSQL (initdb, postgres), which these tests start for themselves. scripts/setup postgres says "
        "what to install; POSTGRES_BIN names the folder of its programs, if they lie elsewhere."
    )


@functools.cache
def _fresh_data(programs: Path, account: pwd.struct_passwd | None) -> Path:
    """The data folder of a new PostgreSQL, to be copied: making one takes a second. It is gone with this process."""
    folder = Path(tempfile.mkdtemp(prefix="camber-postgres-", dir=_memory()))
    atexit.register(_let_go_of, _watcher_of(folder))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    _run([programs / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"], folder, account)
    return data


def _memory() -> Path | None:
    """A folder in memory, if there is one with room: there a database of some 300 files is made and dropped without work for the disk."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _MEMORY
    return None


def _watcher_of(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["sh", "-c", _WATCHER, "sh", folder],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _let_go_of(watcher: subprocess.Popen[bytes]) -> None:
    """Have it end what it watches."""
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait()


def _run(command: Sequence[str | Path], folder: Path, account: pwd.struct_passwd | None) -> None:
    """A program, to its end, in this folder and as this user."""
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=_environment(), **_as(account)
    )
    if ended.returncode:
        raise RuntimeError(f"{command[0]} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


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
