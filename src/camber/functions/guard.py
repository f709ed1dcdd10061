"""Keeps queries and mutations away from the outside world: what they do must depend on the database alone.

CPython tells an audit hook of every socket and process that is opened. The hook looks at a mark that the running thread carries,
so it costs nothing elsewhere.
"""

from __future__ import annotations

import sys
import threading

from camber.errors import ForbiddenIOError

_FORBIDDEN = {
    "socket.__new__": "open a socket",
    "socket.connect": "connect to the network",
    "socket.getaddrinfo": "look up a network address",
    "socket.gethostbyaddr": "look up a network address",
    "socket.gethostbyname": "look up a network address",
    "socket.getnameinfo": "look up a network address",
    "subprocess.Popen": "start a process",
    "os.system": "start a process",
    "os.exec": "start a process",
    "os.posix_spawn": "start a process",
    "os.spawn": "start a process",
    "os.startfile": "start a process",
    "os.fork": "start a process",
    "os.forkpty": "start a process",
    "pty.spawn": "start a process",
}

_installed = threading.Lock()
_is_installed = False


class _Mark(threading.local):
    kind: str | None = None


_mark = _Mark()


def forbid_io(kind: str | None) -> None:
    """From now on opening a socket or process in this thread raises ForbiddenIOError; None allows it again.

    `kind` is "query" or "mutation".
    """
    if not _is_installed:
        _install()
    _mark.kind = kind


def _install() -> None:
    global _is_installed  # noqa: PLW0603  a hook can't be taken away again, so this is the process's state
    with _installed:
        if not _is_installed:
            sys.addaudithook(_audit)
            _is_installed = True


def _audit(event: str, _arguments: tuple[object, ...]) -> None:
    if event not in _FORBIDDEN or _mark.kind is None:
        return
    kind = _mark.kind
    raise ForbiddenIOError(
        f"A {kind} can't {_FORBIDDEN[event]}: it may run again or be answered from its cache. "
        "Do this in an action (@action, `async def`), and let it call the mutation with what it got."
    )
