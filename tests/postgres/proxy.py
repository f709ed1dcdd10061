"""A TCP proxy in front of a PostgreSQL that reads along: it cuts and stalls connections, and strikes at a statement or its answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict

PATIENCE = 60.0

Direction = Literal["to server", "to client"]
End = Literal["client", "server"]
BOTH_DIRECTIONS: tuple[Direction, ...] = ("to server", "to client")
BOTH_ENDS: tuple[End, ...] = ("client", "server")

# What a client says before its connection has a protocol; the numbers are PostgreSQL's.
_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
_NO = b"N"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards from a port of its own to `target_port` on 127.0.0.1 until it is told otherwise.

    A strike is set with `before` and `after`: what it does is called with the connection at that moment, while the
    message waits in the proxy. `Connection.cut` and `Connection.stall` can be given as they are.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._strikes: list[Strike] = []
        self._stalled: frozenset[Direction] = frozenset()
        self._refuses = self._closed = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, url: str) -> str:
        """This URL of the server behind it, by way of the proxy."""
        parts = conninfo_to_dict(url)
        return f"postgresql://{parts['user']}@127.0.0.1:{self.port}/{parts['dbname']}"

    @property
    def connections(self) -> list[Connection]:
        """Those that are open now."""
        with self._lock:
            return [each for each in self._connections if not each.is_cut]

    # What to do with all connections

    def cut(self) -> None:
        """Cut those that are open now; new ones are served."""
        for connection in self.connections:
            connection.cut()

    def stall(self, *directions: Direction) -> None:
        """Forward nothing more in these directions (both where none is named), on new connections neither."""
        with self._lock:
            self._stalled = frozenset(directions or BOTH_DIRECTIONS)
            connections = list(self._connections)
        for connection in connections:
            connection.stall(*directions)

    def resume(self) -> None:
        """Forward again, what has waited first."""
        with self._lock:
            self._stalled = frozenset()
            connections = list(self._connections)
        for connection in connections:
            connection.resume()

    def refuse(self, refuses: bool = True) -> None:
        """Reset each new connection at once, until `refuse(False)`."""
        self._refuses = refuses

    # What to do at a certain moment

    def before(self, text: str, act: Callable[[Connection], object], *, skip: int = 0, times: int = 1) -> Strike:
        """Act when a statement with this text is on its way to the server, which has not got it yet.

        `skip` statements with it go by first, then this happens `times` times.
        """
        return self._strike("to server", text, act, skip, times)

    def after(self, text: str, act: Callable[[Connection], object], *, skip: int = 0, times: int = 1) -> Strike:
        """Act when the server has carried out a statement with this text; the client has got nothing of its answer yet."""
        return self._strike("to client", text, act, skip, times)

    def _strike(
        self, direction: Direction, text: str, act: Callable[[Connection], object], skip: int, times: int
    ) -> Strike:
        strike = Strike(direction, text.encode(), act, skip, times)
        with self._lock:
            self._strikes.append(strike)
        return strike

    def close(self) -> None:
        """Cut everything and listen no more."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        # A socket that is only closed would leave the thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            connection.cut()
        for connection in connections:
            connection.join()

    # Called by the connections

    def strikes_at(self, direction: Direction, statement: bytes) -> list[Strike]:
        """Those whose moment is now; they are counted as having happened."""
        with self._lock:
            return [each for each in self._strikes if each.direction == direction and each.claims(statement)]

    def may_strike_at_answer(self, statement: bytes) -> bool:
        with self._lock:
            return any(
                each.direction == "to client" and each.remains > 0 and each.text in statement for each in self._strikes
            )

    def forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                _close(client, reset=True)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=PATIENCE)
            except OSError:
                _close(client, reset=True)
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                connection = Connection(self, client, server, self._stalled)
                self._connections.add(connection)
                closed = self._closed
            if closed:
                connection.cut()
            connection.begin()


@dataclass(eq=False)
class Strike:
    """Something that is to happen at a statement, and whether it has."""

    direction: Direction
    text: bytes
    act: Callable[[Connection], object]
    skips: int
    remains: int
    struck: deque[Connection] = field(default_factory=deque)
    _happened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def claims(self, statement: bytes) -> bool:
        if self.remains <= 0 or self.text not in statement:
            return False
        if self.skips > 0:
            self.skips -= 1
            return False
        self.remains -= 1
        return True

    def carry_out(self, connection: Connection) -> None:
        try:
            self.act(connection)
        finally:
            self.struck.append(connection)
            self._happened.release()

    def wait(self, timeout: float = PATIENCE) -> Connection:
        """Wait until it has happened (once more, for each call), and return the connection it happened to."""
        if not self._happened.acquire(timeout=timeout):
            raise TimeoutError(f"no statement with {self.text!r} came by in {timeout:.0f} s")
        return self.struck.popleft()

    def cancel(self) -> None:
        """Let it not happen again."""
        self.remains = 0


class Connection:
    """One client's connection to the server, by way of the proxy."""

    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket, stalled: frozenset[Direction]
    ) -> None:
        self._proxy, self._sockets = proxy, {"client": client, "server": server}
        self._changed = threading.Condition()
        self._stalled: set[Direction] = set(stalled)
        self._cut: set[End] = set()
        self._statements = _Statements()
        self._threads = [threading.Thread(target=self._run, name="proxy's connection", daemon=True)]

    @property
    def is_cut(self) -> bool:
        """Whether either end has been cut off."""
        return bool(self._cut)

    def cut(self, *ends: End) -> None:
        """Cut off these ends (both where none is named): the client's with a reset, the server's with an ordinary end,
        after which it still carries out what it got.

        An end that is left is kept open and hears nothing more: a partition that only the other end knows of.
        """
        with self._changed:
            ends_now: list[End] = [end for end in ends or BOTH_ENDS if end not in self._cut]
            self._cut.update(ends_now)
            self._changed.notify_all()
        for end in ends_now:
            _close(self._sockets[end], reset=end == "client")

    def stall(self, *directions: Direction) -> None:
        """Forward nothing more in these directions (both where none is named); both ends stay open."""
        with self._changed:
            self._stalled.update(directions or BOTH_DIRECTIONS)

    def resume(self) -> None:
        """Forward again, what has waited first."""
        with self._changed:
            self._stalled.clear()
            self._changed.notify_all()

    # Its threads, one for each direction

    def begin(self) -> None:
        self._threads[0].start()

    def join(self) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(PATIENCE)

    def _run(self) -> None:
        client, server = self._sockets["client"], self._sockets["server"]
        try:
            with contextlib.suppress(OSError):
                first = _first_message(client)
                if first is not None and self._forward("to server", bytearray(first)):
                    answers = threading.Thread(target=self._run_answers, name="proxy's answers", daemon=True)
                    self._threads.append(answers)
                    answers.start()
                    self._pump(client, "to server", self._ask)
        finally:
            self._end("client")
            for thread in self._threads[1:]:
                thread.join()
            for each in (client, server):
                each.close()
            self._proxy.forget(self)

    def _run_answers(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._pump(self._sockets["server"], "to client", self._answer)
        finally:
            self._end("server")

    def _end(self, end: End) -> None:
        """This end has left, and so does the other. Neither that nor a cut is noticed by an end that is to hear nothing."""
        direction: Direction = "to server" if end == "client" else "to client"
        with self._changed:
            self._changed.wait_for(lambda: self._cut or direction not in self._stalled)
            if self._cut:
                self._changed.wait_for(lambda: len(self._cut) == len(BOTH_ENDS))
                return
            self._cut.update(BOTH_ENDS)
            self._changed.notify_all()
        for each in self._sockets.values():
            _close(each, reset=False)

    def _pump(
        self, source: socket.socket, direction: Direction, read: Callable[[bytes], tuple[list[Strike], bool]]
    ) -> None:
        messages, ready, held = _Messages(), bytearray(), bytearray()
        while received := source.recv(65536):
            for message in messages.add(received):
                strikes, may_go = read(message)
                held += message
                if strikes and not self._forward(direction, ready):
                    return
                for strike in strikes:
                    strike.carry_out(self)
                if may_go:
                    ready += held
                    held.clear()
            if not self._forward(direction, ready):
                return

    def _ask(self, message: bytes) -> tuple[list[Strike], bool]:
        """The client's message: what is to happen before it goes on, and that it may go on."""
        statement = self._statements.asked(message)
        return [] if statement is None else self._proxy.strikes_at("to server", statement), True

    def _answer(self, message: bytes) -> tuple[list[Strike], bool]:
        """The server's message: what is to happen before it goes on, and whether it may.

        One that belongs to an answer which may be struck at waits until the answer is complete, or a COPY begins.
        """
        waiting = self._statements.next_to_be_answered()
        answered = self._statements.answered(message)
        if answered is not None:
            return self._proxy.strikes_at("to client", answered), True
        return [], waiting is None or message[:1] in b"GHW" or not self._proxy.may_strike_at_answer(waiting)

    def _forward(self, direction: Direction, ready: bytearray) -> bool:
        """Send this on and forget it, when that is allowed; False when it is no longer to be sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._cut or direction not in self._stalled)
            if self._cut:
                return False
        self._sockets["server" if direction == "to server" else "client"].sendall(ready)
        ready.clear()
        return True


class _Messages:
    """Takes bytes as they come and gives whole messages: a letter, four bytes of length, a body."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, received: bytes) -> Iterator[bytes]:
        self._rest += received
        while len(self._rest) >= 5:
            end = 1 + int.from_bytes(self._rest[1:5])
            if len(self._rest) < end:
                return
            message = bytes(self._rest[:end])
            del self._rest[:end]
            yield message


class _Statements:
    """Which SQL the messages of one connection carry out and which answer belongs to which, prepared ones too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        # What the server has yet to answer, in its order: a statement, and whether ReadyForQuery ends its answer;
        # None for a Sync.
        self._asked: deque[tuple[bytes | None, bool]] = deque()
        self._passes_over = False
        """Whether the server passes over what it gets, up to a Sync that the client has not sent yet."""

    def asked(self, message: bytes) -> bytes | None:
        """Take in what the client says; returns the statement if it has one carried out."""
        kind, body = message[:1], message[5:]
        match kind:
            case b"P":
                name, statement, _ = body.split(b"\0", 2)
                self._prepared[name] = statement
            case b"B":
                portal, name, _ = body.split(b"\0", 2)
                self._portals[portal] = self._prepared.get(name, b"")
            case b"E":
                return self._ask(self._portals.get(body.split(b"\0", 1)[0], b""), ends_with_ready=False)
            case b"Q":
                return self._ask(body.removesuffix(b"\0"), ends_with_ready=True)
            case b"S":
                self._ask(None, ends_with_ready=True)
        return None

    def next_to_be_answered(self) -> bytes | None:
        with self._lock:
            return self._asked[0][0] if self._asked else None

    def answered(self, message: bytes) -> bytes | None:
        """Take in what the server says; returns the statement whose answer, or error, this completes."""
        kind = message[:1]
        with self._lock:
            if not self._asked:
                return None
            statement, ends_with_ready = self._asked[0]
            if ends_with_ready:
                if kind == b"Z":
                    self._asked.popleft()
                    return statement
            elif kind in b"CIs":
                self._asked.popleft()
                return statement
            elif kind == b"E":
                # The server passes over everything up to the next Sync.
                while self._asked and not self._asked[0][1]:
                    self._asked.popleft()
                self._passes_over = not self._asked
                return statement
            return None

    def _ask(self, statement: bytes | None, *, ends_with_ready: bool) -> bytes | None:
        with self._lock:
            self._passes_over = self._passes_over and not ends_with_ready
            if not self._passes_over:
                self._asked.append((statement, ends_with_ready))
        return statement


def _first_message(client: socket.socket) -> bytes | None:
    """What a client begins with, as it came: who it is, or what is to be cancelled. Encryption is declined first."""
    while True:
        head = _exactly(client, 8)
        if head is None:
            return None
        length, code = struct.unpack("!ii", head)
        if code not in (_SSL_REQUEST, _GSS_REQUEST):
            rest = _exactly(client, length - 8)
            return None if rest is None else head + rest
        client.sendall(_NO)


def _exactly(source: socket.socket, count: int) -> bytes | None:
    """So many bytes; None if the other side leaves before."""
    received = bytearray()
    while len(received) < count:
        part = source.recv(count - len(received))
        if not part:
            return None
        received += part
    return bytes(received)


def _close(end: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # Wakes whoever waits in recv() or sendall(), which closing alone does not.
        end.shutdown(socket.SHUT_RDWR)
    end.close()
