"""Several `camber serve` on one database, each with its own ports and data folder, and one admin key."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Self

from camber.server import admin_key
from tests.crashes.servers import HttpClient, Server
from tests.wire.running_server import free_ports

APPLICATION = Path(__file__).parent / "app"


class Fleet:
    """Servers that are started together (unless `starts` is False); whoever runs at the end is killed.

    `databases` has the URL that each of them is given. No URL stands for the SQLite file of its data folder, which is its own.
    """

    def __init__(
        self,
        folder: Path,
        databases: Sequence[str | None],
        *,
        application: Path = APPLICATION,
        env: Sequence[Mapping[str, str]] | None = None,
        program: Sequence[str | Path] | None = None,
        starts: bool = True,
    ) -> None:
        self._starts = starts
        self.servers: list[Server] = []
        first = folder / "server0"
        self.admin_key = admin_key(first, create=True)
        more_env = env or [{}] * len(databases)
        ports = free_ports(2 * len(databases))
        for number, (url, more) in enumerate(zip(databases, more_env, strict=True)):
            data = folder / f"server{number}"
            if data != first:
                data.mkdir()
                shutil.copyfile(first / "secret", data / "secret")
            variables = {"CAMBER_DEV": "1", **({} if url is None else _on_postgresql(url)), **more}
            options = {} if program is None else {"program": program}
            pair = ports[2 * number : 2 * number + 2]
            self.servers.append(Server(application, data, env=variables, ports=pair, **options))

    def __enter__(self) -> Self:
        try:
            if self._starts:
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all that don't run, at the same time, and wait until they are ready."""
        started = [server for server in self.servers if server.process is None]
        for server in started:
            server.start()
        for server in started:
            server.wait_until_ready()

    def restart(self, server: Server) -> None:
        """Start one that has ended."""
        server.start()
        server.wait_until_ready()

    def stop(self) -> None:
        """SIGTERM to all that run, at the same time; each must end well."""
        stopped = [server for server in self.servers if server.process is not None]
        for server in stopped:
            if server.process is not None:
                server.process.send_signal(signal.SIGTERM)
        for server in stopped:
            assert server.wait() == 0, server.printed[-4000:]

    def close(self) -> None:
        for server in self.servers:
            if server.process is not None:
                server.end(signal.SIGKILL)

    def client(self, server: Server) -> HttpClient:
        """A client of one of them, over a connection of its own."""
        return HttpClient(server.port, self.admin_key)

    def any(self, random: Random) -> Server:
        """One of them, whether it runs or not, as a load balancer that knows nothing would choose."""
        return random.choice(self.servers)

    @property
    def printed(self) -> str:
        """The end of what each of them printed."""
        return "\n".join(f"--- {server.data.name}\n{server.printed[-4000:]}" for server in self.servers)


def _on_postgresql(url: str) -> dict[str, str]:
    """The longer mutations may take, the longer a server that has fallen silent keeps the lock."""
    return {"CAMBER_DATABASE_URL": url, "CAMBER_MUTATION_SECONDS": "1"}
