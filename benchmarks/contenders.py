"""The servers that are compared, each started on a core of its own with its data in a new folder, and ended afterwards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from engines import SQLITE, Engine
from load import SERVER_CORE, Connections, request, use_core

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CAMBER = Path(sys.executable).with_name("camber")
CROWDFUNDING = REPOSITORY / "apps/crowdfunding"
BENCH_APPLICATION = HERE / "app"
SECONDS_TO_START = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on a port. `seconds_to_start` is from its start to its first healthy answer.

    `others` serve the same data beside it; load is spread over all of them.
    """

    name: str
    pid: int
    port: int
    seconds_to_start: float
    admin_key: str = ""
    engine: Engine = SQLITE
    others: tuple[Server, ...] = ()

    def connections(self, count: int) -> Connections:
        """New connections, to this one and the others in turn."""
        servers = (self, *self.others)
        return Connections([s.port for s in servers], count, [s.pid for s in servers], self.engine.cpu_seconds)

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One request outside of any measuring; returns the answer's JSON, and raises if it is not a 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.name} answered {answer.status} to {path}: {text[:500]!r}")
        return json.loads(text) if text else None

    def run(self, path: str, args: Mapping[str, Any], *, identity: Mapping[str, Any] | None = None) -> Any:
        """Camber: run a function as the operator or as somebody; returns its value, raises if it failed."""
        answer = self.call("POST", "/api/function", _call(path, args), self._authorization(identity))
        if answer["status"] != "success":
            raise RuntimeError(f"{path} failed: {answer['errorMessage']}")
        return answer["value"]

    def function_request(
        self, path: str, args: Mapping[str, Any], *, kind: str = "function", identity: Mapping[str, Any] | None = None
    ) -> bytes:
        """Camber: the request that runs a function; of kind `function` it brings the admin key, otherwise nobody."""
        headers = self._authorization(identity) if kind == "function" else {}
        return request("POST", f"/api/{kind}", json.dumps(_call(path, args)).encode(), headers.items())

    def memory(self, field: str = "VmRSS") -> float:
        """A size from the process's status, in MiB: VmRSS is what is resident now, VmHWM the most there ever was."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise KeyError(field)

    def open_sockets(self) -> int:
        """How many sockets the process has open."""
        opened = 0
        for handle in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):  # closed since the folder was read
                opened += str(handle.readlink()).startswith("socket:")
        return opened

    def _authorization(self, identity: Mapping[str, Any] | None) -> dict[str, str]:
        acting = "" if identity is None else ":" + b64encode(json.dumps(identity).encode()).decode()
        return {"Authorization": f"Convex {self.admin_key}{acting}"}


def _call(path: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": path, "format": "convex_encoded_json", "args": args}


@contextmanager
def camber(
    application: Path = CROWDFUNDING,
    data: Path | None = None,
    settings: Mapping[str, str] | None = None,
    name: str = "Camber",
    *,
    engine: Engine = SQLITE,
    database: str = "",
    core: int | None = SERVER_CORE,
) -> Iterator[Server]:
    """`camber serve` with this application, as in production; on a data folder or a database that is there already if one is given.

    On a core of its own, unless that is None.
    """
    with _folder(data) as folder:
        arguments = ["--data", str(folder)]
        env = {"CAMBER_DATABASE_URL": database or engine.new_database(), **(settings or {})}
        key = subprocess.run(
            [CAMBER, "admin-key", *arguments], check=True, capture_output=True, text=True, env=_env({})
        )
        port, site_port = _free_port(), _free_port()
        command = [str(CAMBER), "serve", str(application), "--port", str(port), "--site-port", str(site_port)]
        with _serving(name, [*command, *arguments], port, env, core) as server:
            yield replace(server, admin_key=key.stdout.strip(), engine=engine)


@contextmanager
def cambers(count: int, application: Path, name: str, *, engine: Engine, database: str = "") -> Iterator[Server]:
    """So many of these on one database, a new one unless it is named; where there are several, on all cores."""
    core = SERVER_CORE if count == 1 else None
    with ExitStack() as stack:
        folder, database = stack.enter_context(_folder(None)), database or engine.new_database()
        first, *others = (
            stack.enter_context(camber(application, folder, {}, name, engine=engine, database=database, core=core))
            for _ in range(count)
        )
        yield replace(first, others=tuple(others))


@contextmanager
def fastapi(engine: Engine = SQLITE) -> Iterator[Server]:
    """FastAPI and SQLAlchemy; on SQLite with threads, on PostgreSQL with asyncpg."""
    with fastapis(1, "FastAPI", engine=engine) as server:
        yield server


@contextmanager
def fastapis(count: int, name: str, *, engine: Engine) -> Iterator[Server]:
    """So many of these on one database; where there are several, on all cores."""
    core = SERVER_CORE if count == 1 else None
    application = "fastapi_app:app" if engine is SQLITE else "fastapi_postgres:app"
    with ExitStack() as stack:
        database = engine.new_database()
        first, *others = (
            stack.enter_context(_uvicorn(name, application, database=database, core=core)) for _ in range(count)
        )
        yield replace(first, engine=engine, others=tuple(replace(other, engine=engine) for other in others))


@contextmanager
def bare() -> Iterator[Server]:
    """A bare ASGI application that answers a constant."""
    with _uvicorn("bare uvicorn", "bare_app:app") as server:
        yield server


@contextmanager
def fastapi_topics() -> Iterator[Server]:
    """FastAPI, SQLAlchemy and SQLite, and topics that WebSockets subscribe to."""
    with _uvicorn("FastAPI with topics", "fastapi_topics:app") as server:
        yield server


@contextmanager
def bare_broadcast() -> Iterator[Server]:
    """A bare ASGI application that sends what is posted to every WebSocket."""
    with _uvicorn("bare uvicorn", "broadcast_app:app") as server:
        yield server


@contextmanager
def raw_broadcast() -> Iterator[Server]:
    """An asyncio protocol on uvloop that writes one frame to every connection."""
    port = _free_port()
    command = [sys.executable, str(HERE / "rivals/raw_broadcast.py"), str(port)]
    with _serving("raw uvloop", command, port, {}) as server:
        yield server


@contextmanager
def group_commit() -> Iterator[Server]:
    """A bare ASGI application over apsw with group commit."""
    with _uvicorn("bare group commit", "group_commit:app") as server:
        yield server


@contextmanager
def constant_server() -> Iterator[Server]:
    """A loop around recv and send, which shows what the load generator can do."""
    port = _free_port()
    command = [sys.executable, str(HERE / "rivals/constant_server.py"), str(port)]
    with _serving("constant answer", command, port, {}) as server:
        yield server


@contextmanager
def _uvicorn(name: str, application: str, *, database: str = "", core: int | None = SERVER_CORE) -> Iterator[Server]:
    with _folder(None) as folder:
        port = _free_port()
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE / "rivals"), application, *options]
        env = {"BENCH_DATABASE": database or str(folder / "data.db")}
        with _serving(name, [*command, "--port", str(port)], port, env, core) as server:
            yield server


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """A folder for data: the one given, or a new one. BENCH_FOLDER says where: it should be on a real disk."""
    if given is not None:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _serving(
    name: str, command: list[str], port: int, env: Mapping[str, str], core: int | None = SERVER_CORE
) -> Iterator[Server]:
    begun = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=_env(env), stdout=log, stderr=subprocess.STDOUT)
        use_core(core, process.pid)
        try:
            _wait_until(lambda: _is_healthy(port), process)
            yield Server(name, process.pid, port, time.monotonic() - begun)
        except BaseException:
            log.seek(0)
            print(f"{name} printed:", log.read().decode(errors="replace")[-4_000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _env(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CAMBER_", "CONVEX_"))}
    return {**inherited, **more}


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start (exit code {process.poll()})")
        time.sleep(0.005)


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
