"""Makes load on an HTTP server and measures it: requests a second, latencies, and the CPU time the server spent.

The generator must not be the bottleneck, so it is one thread over epoll with requests built beforehand, on a core of its
own; generator_limit.py tells how far that goes. Linux only.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from statistics import quantiles
from time import perf_counter_ns
from typing import Self

SERVER_CORE, GENERATOR_CORE = 0, 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def request(method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """An HTTP/1.1 request on a connection that stays open."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Load:
    """What a round of load measured. Latencies in nanoseconds, ascending."""

    requests: int
    seconds: float
    latencies: list[int]
    server_cpu_seconds: float
    database_cpu_seconds: float
    failures: int
    last_failure: bytes

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_ms(self) -> float:
        """The server's CPU time per request, in milliseconds."""
        return self.server_cpu_seconds / self.requests * 1000

    @property
    def database_cpu_ms(self) -> float:
        """The CPU time of the database's own processes per request, in milliseconds."""
        return self.database_cpu_seconds / self.requests * 1000

    def percentile(self, percent: int) -> float:
        """A latency in milliseconds."""
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1] / 1e6


def use_generator_core() -> None:
    """Pin this process, so that server and generator never share a core."""
    use_core(GENERATOR_CORE)


def use_core(core: int | None, pid: int = 0) -> None:
    """Pin a process to a core, or let it use all of them; this one, unless another is named."""
    with suppress(OSError):  # a machine with one core
        os.sched_setaffinity(pid, range(os.cpu_count() or 1) if core is None else {core})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Connections:
    """Open connections, spread evenly over these ports, each of which has at most one request under way."""

    def __init__(
        self, ports: Sequence[int], count: int, pids: Sequence[int], database: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`pids` are those of the servers' processes; `database` tells the CPU seconds that others spend on their behalf."""
        self._pids, self._database = pids, database
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", ports[number % len(ports)]))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()

    def for_seconds(self, seconds: float, requests: bytes | Iterator[bytes], *, success: bytes = b"") -> Load:
        """Keep every connection busy for a while; a request that is under way at the end is waited for.

        An answer counts as a failure unless it is a 200 whose body contains `success`.
        """
        source = repeat(requests) if isinstance(requests, bytes) else requests
        return self._drive(source, success, until=perf_counter_ns() + int(seconds * 1e9))

    def all_of(self, requests: Iterable[bytes], *, success: bytes = b"") -> Load:
        """Send each of these once."""
        return self._drive(iter(requests), success, until=None)

    def _drive(self, requests: Iterator[bytes], success: bytes, *, until: int | None) -> Load:
        sockets, poll, clock = self._sockets, self._epoll.poll, perf_counter_ns
        sent_at: dict[int, int] = {}
        partial: dict[int, bytes] = {}
        latencies: list[int] = []
        failures, last_failure = 0, b""
        cpu_before, database_before = self._cpu_seconds(), self._database()
        begun = clock()
        for handle, connection in sockets.items():
            if (first := next(requests, None)) is None:
                break
            sent_at[handle] = clock()
            _send(connection, first)
        while sent_at:
            for handle, _ in poll():
                connection = sockets[handle]
                answer = connection.recv(1 << 20)
                if not answer:
                    raise ConnectionError("the server closed a connection")
                if handle in partial:
                    answer = partial.pop(handle) + answer
                if not is_whole(answer):
                    partial[handle] = answer
                    continue
                now = clock()
                latencies.append(now - sent_at[handle])
                if answer[9:12] != b"200" or success not in answer:
                    failures, last_failure = failures + 1, answer
                following = next(requests, None) if until is None or now < until else None
                if following is None:
                    del sent_at[handle]
                else:
                    sent_at[handle] = now
                    _send(connection, following)
        seconds = (clock() - begun) / 1e9
        spent, on_behalf = self._cpu_seconds() - cpu_before, self._database() - database_before
        latencies.sort()
        return Load(len(latencies), seconds, latencies, spent, on_behalf, failures, last_failure)

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._pids))


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):  # only large bodies: wait for them
        connection.setblocking(True)
        connection.sendall(data[sent:])
        connection.setblocking(False)


def is_whole(answer: bytes) -> bool:
    """Whether an answer has arrived to its end, by its Content-Length."""
    end_of_head = answer.find(b"\r\n\r\n")
    return end_of_head >= 0 and len(answer) >= end_of_head + 4 + _body_length(answer[:end_of_head])


@lru_cache(maxsize=1024)
def _body_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without Content-Length: {head!r}")
