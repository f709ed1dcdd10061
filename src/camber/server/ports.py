"""Taking the ports to listen on, and finding out who has one that is taken."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from camber.errors import ConfigurationError
from camber.settings import Settings, local_origin, variable

BACKLOG: Final = 2_048

Address = tuple[str, int] | tuple[str, int, int, int]
"""Host and port; of IPv6 also flow and scope."""

_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"


@dataclass(frozen=True)
class Ports:
    """Sockets that listen, for the API and the site."""

    api: list[socket.socket]
    site: list[socket.socket]

    @classmethod
    def taken(cls, settings: Settings) -> Ports:
        """The ports of these settings. Raises ConfigurationError, which says who has it, where one is taken."""
        api = listen(settings.host, settings.port, "port")
        try:
            return cls(api, listen(settings.host, settings.site_port, "site_port"))
        except BaseException:
            _close(api)
            raise

    def origins(self, host: str) -> tuple[str, str]:
        """How this machine reaches them."""
        api, site = (each[0].getsockname()[1] for each in (self.api, self.site))
        return local_origin(host, api), local_origin(host, site)

    def close(self) -> None:
        """Listen no longer."""
        _close([*self.api, *self.site])


def listen(host: str, port: int, setting: str) -> list[socket.socket]:
    """Sockets that listen on every address of `host`; with port 0 on one free port. `setting` names the port in errors.

    Raises ConfigurationError: the port is taken (by whom, as far as that can be known), not allowed, or the host is unknown.
    """
    taken: list[socket.socket] = []
    try:
        addresses = list(_addresses(host, port))
        for family, address in addresses:
            number = taken[0].getsockname()[1] if taken else port
            # `::` alone stands for every address, also those of IPv4.
            taken.append(_listening(family, _with_port(address, number), only_ipv6=len(addresses) > 1))
    except OSError as error:
        _close(taken)
        raise ConfigurationError(_explained(error, host, port, setting)) from error
    except BaseException:
        _close(taken)
        raise
    return taken


def holder_of(port: int) -> str | None:
    """The process that listens on this TCP port, as `pid 123 (python -m http.server)`; None where that can't be known."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.iterdir():
        if process.name.isdigit() and _has_open(process, wanted):
            return f"pid {process.name} ({_command_of(process)})"
    return None


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, Address]]:
    seen: set[object] = set()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigurationError(f"host ({variable('host')}) is {host!r}, which has no address: {error}") from error
    for family, _, _, _, address in found:
        if address not in seen and family in (socket.AF_INET, socket.AF_INET6):
            seen.add(address)
            yield family, cast(Address, address)


def _with_port(address: Address, port: int) -> Address:
    return (address[0], port) if len(address) == 2 else (address[0], port, address[2], address[3])


def _listening(family: socket.AddressFamily, address: Address, *, only_ipv6: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # On Windows this would let a second server take the port beside the first.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        listener.bind(address)
        # Here, not when the server starts: only now is the port surely ours.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _explained(error: OSError, host: str, port: int, setting: str) -> str:
    name = f"{setting} ({variable(setting)})"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        who = f"is taken by {holder}" if holder else "is taken by another process"
        return f"port {port} on {host} {who}; stop it, or choose another {name}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} may not be opened by this user (ports below 1024 are often reserved); choose another {name}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host ({variable('host')}) is {host!r}, which is no address of this machine"
    return f"port {port} on {host} can't be opened: {error.strerror}; see {name}"


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]


def _has_open(process: Path, wanted: set[str]) -> bool:
    # Another user's process can't be looked into, and any process may end while one looks.
    with contextlib.suppress(OSError):
        for handle in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(handle.readlink()) in wanted:
                    return True
    return False


def _command_of(process: Path) -> str:
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if command := b" ".join(words).decode("utf-8", "replace"):
            return command if len(command) <= 120 else command[:119] + "…"
    return "unknown command"


def _close(sockets: list[socket.socket]) -> None:
    for taken in sockets:
        taken.close()
