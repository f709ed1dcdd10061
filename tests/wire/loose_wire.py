"""A wire between clients and a server that a test can cut, or make deaf in one direction; its address stays the same."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65_536
PATIENCE = 60.0
"""Seconds that a server may take to start."""


class LooseWire:
    """A TCP proxy on a port of its own. `leads_to` can change: a server that was started anew has another port."""

    def __init__(self, leads_to: int) -> None:
        self.leads_to = leads_to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers_pass = threading.Event()
        self._answers_pass.set()
        self.said = bytearray()
        """All that clients have said."""
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def hold_answers(self) -> None:
        """From now on what the server says is read and lost; what clients say still reaches it."""
        self._answers_pass.clear()

    def cut(self) -> None:
        """End all connections there are now. New ones work, in both directions."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            # Waiting readers are woken by a shutdown, not by a close.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._answers_pass.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        server = self._server()
        if server is None:
            client.close()
            return
        with self._lock:
            self._ends += [client, server]
        threading.Thread(target=self._pass_on, args=(client, server, None), daemon=True).start()
        self._pass_on(server, client, self._answers_pass)

    def _server(self) -> socket.socket | None:
        """A connection to the server, waited for while it starts: refused ones would make clients try ever less often."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.leads_to))
            time.sleep(0.1)
        return None

    def _pass_on(self, source: socket.socket, sink: socket.socket, may_pass: threading.Event | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if may_pass is None:
                    self.said += data
                if may_pass is None or may_pass.is_set():
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def loose_wire(leads_to: int) -> Iterator[LooseWire]:
    """A wire to the server on this port, gone when the block is left."""
    wire = LooseWire(leads_to)
    try:
        yield wire
    finally:
        wire.close()
