"""A real server process for tests: started on free ports, waited for, and ended by its process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from random import SystemRandom

REPOSITORY = Path(__file__).resolve().parents[2]
CAMBER = Path(sys.executable).with_name("camber")
SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 10.0
# Where the machine halts one thread, the others go on: no function that does what it should may run out of time meanwhile.
UNHURRIED = {"CAMBER_MUTATION_SECONDS": "60", "CAMBER_QUERY_SECONDS": "60"}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers, and what is needed to talk to it. `log` holds all that it printed."""

    process: subprocess.Popen[bytes]
    port: int
    site_port: int
    data: Path
    admin_key: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running_server(application: Path, data: Path, *, env: Mapping[str, str] | None = None) -> Iterator[RunningServer]:
    """`camber serve` on this application and data folder, ready for requests; ended when the block is left.

    Functions have a minute there, unless `env` says otherwise.
    """
    environment = clean_environment() | UNHURRIED | dict(env or {})
    port, site_port = free_ports(2)
    command = [CAMBER, "serve", application, "--port", str(port), "--site-port", str(site_port), "--data", data]
    log = data.with_name(f"{data.name}.log")
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=data.parent)
    try:
        _wait_until_it_answers(process, port, log)
        admin_key = subprocess.check_output([CAMBER, "admin-key", "--data", data], env=environment, text=True).strip()
        yield RunningServer(process, port, site_port, data, admin_key, log)
    finally:
        _stop(process)


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would steer Camber or Convex's command line."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CAMBER_", "CONVEX_"))}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, from below those that a system gives to outgoing connections.

    One of the latter could be taken by any client while the server is down.
    """
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = SystemRandom().randrange(10_000, 30_000)
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
    return ports


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        if _is_healthy(port):
            return
        time.sleep(0.02)
    raise RuntimeError(f"the server did not answer in {SECONDS_TO_START:.0f} s:\n{log.read_text()}")


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
