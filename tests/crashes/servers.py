"""`camber serve` as a process that is killed and started again, and a client that says what it knows of each call."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from camber.server import admin_key
from tests.crashes.ledger import Answer
from tests.wire.running_server import CAMBER, REPOSITORY, clean_environment, free_ports

CROWDFUNDING = REPOSITORY / "apps" / "crowdfunding"
PATIENCE = 60.0
UNHURRIED = {"CAMBER_MUTATION_SECONDS": "30", "CAMBER_QUERY_SECONDS": "30"}
"""Functions here have as much time as they need on a busy machine."""


class Server:
    """A server on one data folder and one pair of ports, through all its lives. What it prints goes to `log`."""

    def __init__(
        self,
        application: Path,
        data: Path,
        *,
        env: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (CAMBER,),
        ports: Sequence[int] = (),
    ) -> None:
        self.data, self.log = data, data.with_name(f"{data.name}.log")
        self.port, self.site_port = ports or free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        on_ports = ["--port", str(self.port), "--site-port", str(self.site_port)]
        self._command = [*program, "serve", application, *on_ports, "--data", data]
        self._env = clean_environment() | {"CAMBER_TRUSTED_PROXIES": "127.0.0.1"} | UNHURRIED | dict(env or {})

    @property
    def admin_key(self) -> str:
        return admin_key(self.data)

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process; it does not answer yet."""
        assert self.process is None
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=self.data.parent
            )
        return self.process

    def wait_until_ready(self) -> None:
        """Wait until it answers; RuntimeError with what it printed if it ends instead."""
        deadline = time.monotonic() + PATIENCE
        while self.readiness() != (200, "ready"):
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready:\n{self.printed[-4000:]}")
            time.sleep(0.02)

    def readiness(self) -> tuple[int, str] | None:
        """What /readyz says; None where nobody listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process = None

    def client(self) -> HttpClient:
        """A client of its own connection."""
        return HttpClient(self.port, self.admin_key)


@contextmanager
def serving(application: Path, data: Path, **more: Any) -> Iterator[Server]:
    """A server that is ready; killed when the block is left, if it still runs."""
    server = Server(application, data, **more)
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process is not None:
            server.end(signal.SIGKILL)


class HttpClient:
    """One connection to a server, made when it is needed; see `Deployment`."""

    def __init__(self, port: int, key: str) -> None:
        self._key = key
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def call(
        self, path: str, args: Mapping[str, object], *, claims: Mapping[str, object] | None = None, query: bool = False
    ) -> Answer:
        credential = self._key
        if claims is not None:
            credential += ":" + base64.b64encode(json.dumps(claims).encode()).decode()
        return self.post("query" if query else "mutation", path, args, {"Authorization": f"Convex {credential}"})

    def visit(self, path: str, args: Mapping[str, object], address: str) -> Answer:
        return self.post("mutation", path, args, {"X-Forwarded-For": address})

    def post(self, kind: str, path: str, args: Mapping[str, object], headers: Mapping[str, str]) -> Answer:
        """One call. Its outcome is unknown from the moment at which the request may have reached the server."""
        body = json.dumps({"path": path, "args": args, "format": "convex_encoded_json"})
        try:
            self.connect()
        except OSError:
            return Answer("refused", reason="unreachable")
        try:
            self._connection.request("POST", f"/api/{kind}", body, dict(headers))
            response = self._connection.getresponse()
            status, answer = response.status, json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            self._connection.close()
            return Answer("unknown", reason=repr(error))
        return _told(status, answer)

    def connect(self) -> None:
        """Open the connection, unless it is."""
        if self._connection.sock is None:
            self._connection.connect()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _told(status: int, answer: dict[str, Any]) -> Answer:
    if status == 200:
        if answer["status"] == "success":
            return Answer("done", answer["value"])
        return Answer("refused", reason=str(answer.get("errorData", answer["errorMessage"])))
    return Answer("unknown" if answer["code"] == "CommitUnknown" else "refused", reason=f"{status} {answer['code']}")
