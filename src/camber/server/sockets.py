"""The sockets that live clients talk through: over uvicorn's connections directly, or as ASGI messages inside another server."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from camber.backend import Backend
from camber.errors import RequestError
from camber.identity import Caller
from camber.server.addresses import ClientAddresses
from camber.server.answers import Answer, answer_to
from camber.server.asgi import Message, Receive, Scope, Send
from camber.server.credentials import Credentials, NotVerifiedYetError
from camber.server.not_offered import is_sync
from camber.sync import Authenticate, Encoded, Proof, SyncHub, SyncWorker

if TYPE_CHECKING:
    from collections.abc import Awaitable

_CHUNKS_SINCE: Final = (1, 28)
"""The npm release from which on clients put long transitions together from parts (protocol 5.8)."""

_WRITE_BUFFER_BYTES: Final = 64 * 1024
_SMALL_BYTES: Final = 64 * 1024
_MESSAGES_AT_ONCE: Final = 32
_CLOSING_SECONDS: Final = 5.0
_REASON_BYTES: Final = 120
_POLICY_VIOLATION: Final = 1008
_OPEN: Final = State.OPEN

# The library's own log says of each connection that it was opened and closed: kept quiet in logging.py.
_library_log = logging.getLogger("camber.server.websocket")


class SyncDoor:
    """Where live clients come in: which paths are theirs, who they are, and what all sockets share."""

    def __init__(self, backend: Backend, credentials: Credentials, addresses: ClientAddresses) -> None:
        self._backend, self._credentials, self._addresses = backend, credentials, addresses
        self.settings = backend.settings
        self.hub = SyncHub(backend, self._authenticate, credentials.admin_key)
        self.room = self.settings.buffered_body_bytes
        """Bytes that messages which are not complete yet may hold together."""

    def check(self, path: str) -> None:
        """Raise RequestError 404 for a path that is no place for a socket."""
        if not is_sync(path):
            raise RequestError(404, "NotFound", f"There is no WebSocket at {path}.")

    def worker(self, socket: Any, path: str, headers: Mapping[str, str], host: str | None) -> SyncWorker:
        """Who drives the conversation over this socket."""
        forwarded = [headers["x-forwarded-for"].encode("latin-1")] if "x-forwarded-for" in headers else []
        caller = self._credentials.caller(None, self._addresses.of(host, forwarded))
        return SyncWorker(self.hub, socket, caller, handles_chunks=_handles_chunks(path, headers))

    def _authenticate(self, claim: Authenticate, caller: Caller) -> Proof | Awaitable[Proof]:
        if claim.token_type == "None":
            return Proof(caller)
        value = (claim.value or "").encode("utf-8", "replace")
        if claim.token_type == "Admin":
            for identity in (bytes(claim.impersonating), bytes(claim.acting_as)):
                if identity != b"null":
                    value += b":" + b64encode(identity)
                    break
            found = self._credentials.caller(b"Convex " + value, caller.address)
            return Proof(found, admin_key=self._credentials.admin_key_shown)
        if claim.token_type != "User":
            raise RequestError(
                400, "HeaderParseFailure", f"A token is User, Admin or None, not {claim.token_type[:40]!r}."
            )
        header = b"Bearer " + value
        try:
            return self._proof(header, claim.value or "", caller)
        except NotVerifiedYetError:
            return self._ask_provider(header, claim.value or "", caller)

    async def _ask_provider(self, header: bytes, token: str, caller: Caller) -> Proof:
        await self._credentials.verify(header)
        return self._proof(header, token, caller)

    def _proof(self, header: bytes, token: str, caller: Caller) -> Proof:
        found = self._credentials.caller(header, caller.address)
        verified = self._backend.tokens.known(token.strip())
        return Proof(found, None if verified is None else verified.expires_ms)


def _handles_chunks(path: str, headers: Mapping[str, str]) -> bool:
    """Whether this is an npm client that is new enough; the path names its version."""
    version = path.removeprefix("/api/").removesuffix("sync").strip("/")
    client = headers.get("convex-client", "")
    if client.startswith("npm-"):
        version = client.removeprefix("npm-")
    elif client:
        return False
    try:
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) >= _CHUNKS_SINCE
    except ValueError:
        return False


def _frame(message: Encoded) -> bytes:
    """The message as one text frame, made once for all who get it."""
    if message.frame is None:
        message.frame = Frame(Opcode.TEXT, message.payload).serialize(mask=False)
    return message.frame


def _host(transport: asyncio.Transport) -> str | None:
    """The address at the other end; None for a Unix socket."""
    peer = cast("object", transport.get_extra_info("peername"))
    return str(cast("tuple[object, ...]", peer)[0]) if isinstance(peer, tuple) else None


class SyncSocket(asyncio.Protocol):
    """One WebSocket on a connection that uvicorn hands over. The library parses, this moves bytes; messages are written as they are."""

    door: SyncDoor

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:  # noqa: ARG002
        self._connections: set[Any] = server_state.connections
        self._websocket = ServerProtocol(max_size=self.door.settings.request_body_bytes, logger=_library_log)
        self._worker: SyncWorker | None = None
        self._transport: asyncio.Transport | None = None
        self._inbox: deque[bytes | None] = deque()
        self._parts = bytearray()  # not a list: parts may be small and very many
        self._is_binary = False
        self._incomplete = 0
        self._closing: asyncio.TimerHandle | None = None
        self.is_full = False

    # Called by the event loop and by uvicorn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._connections.add(self)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._connections.discard(self)
        self._transport = None
        self._hold(0)
        self._inbox.clear()
        if self._closing is not None:
            self._closing.cancel()
        if self._worker is not None:
            self._worker.lost()

    def data_received(self, data: bytes) -> None:
        websocket = self._websocket
        websocket.receive_data(data)
        events = websocket.events_received()
        for event in events:
            if isinstance(event, Frame):
                self._take(event)
            elif isinstance(event, Handshake):
                self._open(event)
        if self._worker is not None and not events:
            self._hold(self._incomplete + len(data))
        elif self._incomplete or self._parts:
            self._hold(len(self._parts))
        self._flush()
        if websocket.parser_exc is not None or websocket.close_expected():
            self._close_soon()
        if self._inbox:
            self._read()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_full = True
        if self._transport is not None:  # who does not read shall not go on asking either
            self._pause(self._transport)

    def resume_writing(self) -> None:
        self.is_full = False
        self.listen()
        if self._worker is not None:
            self._worker.drained()

    def shutdown(self) -> None:
        """The server stops: what runs for this client is finished, then it is sent away."""
        if self._worker is not None:
            self._worker.leave()
        elif self._transport is not None:
            self._transport.close()

    # As the worker's socket

    def send(self, message: Encoded) -> None:
        if self._transport is not None and self._websocket.state is _OPEN:
            self._transport.write(message.frame or _frame(message))

    def ping(self) -> None:
        if self._websocket.state is State.OPEN:
            self._websocket.send_ping(b"")
            self._flush()

    def listen(self) -> None:
        if self._transport is not None and not self.is_full:
            self._read_later()

    def close(self, code: int, reason: str) -> None:
        with suppress(InvalidState):  # it has said goodbye already
            self._websocket.send_close(code, reason[:_REASON_BYTES])
        self._flush()
        self._close_soon()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Steps

    def _open(self, handshake: Handshake) -> None:
        websocket = self._websocket
        path = handshake.path.partition("?")[0]
        try:
            self.door.check(path)
        except RequestError as error:
            websocket.send_response(websocket.reject(error.status, error.message + "\n"))
            return
        response = websocket.accept(handshake)
        websocket.send_response(response)
        if websocket.state is State.OPEN:
            assert self._transport is not None
            headers = {name.lower(): value for name, value in handshake.headers.raw_items()}
            self._worker = self.door.worker(self, path, headers, _host(self._transport))

    def _take(self, frame: Frame) -> None:
        worker = self._worker
        if worker is None:
            return
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY or opcode is Opcode.CONT:
            if opcode is not Opcode.CONT:
                self._is_binary = opcode is Opcode.BINARY
            self._parts += frame.data
            if frame.fin:
                self._inbox.append(None if self._is_binary else bytes(self._parts))
                self._parts.clear()
        elif opcode is Opcode.PONG or opcode is Opcode.PING:
            worker.heard()

    def _read(self) -> None:
        """Hand over a few messages; the others come after everybody else's."""
        worker = self._worker
        for _ in range(_MESSAGES_AT_ONCE):
            if not self._inbox or worker is None or self.is_full or worker.is_busy:
                break
            text = self._inbox.popleft()
            if text is None:
                worker.refused("Messages are text, not binary")
            else:
                worker.received(text)
        if self._transport is None or self.is_full:
            return
        if worker is not None and worker.is_busy:
            self._pause(self._transport)
        elif self._inbox:
            self._pause(self._transport)
            self._read_later()
        else:
            self._transport.resume_reading()

    def _read_later(self) -> None:
        asyncio.get_running_loop().call_soon(self._read)

    def _pause(self, transport: asyncio.Transport) -> None:
        if transport.is_reading():
            transport.pause_reading()

    def _hold(self, size: int) -> None:
        """So many bytes of a message that is not complete are kept; all sockets together have a bound."""
        before, after = (max(0, held - _SMALL_BYTES) for held in (self._incomplete, size))
        self._incomplete = size
        self.door.room += before - after
        if self.door.room < 0 and after > before:
            self.door.room += after
            self._incomplete = 0
            self.close(1013, "TooManyConcurrentRequests")

    def _flush(self) -> None:
        output = self._websocket.data_to_send()
        if self._transport is not None and output:
            self._transport.write(b"".join(output))
            if SEND_EOF in output:
                if self._websocket.parser_exc is not None and self._transport.can_write_eof():
                    # The client is still sending: closing on what is not read would destroy the goodbye.
                    self._transport.write_eof()
                else:  # goodbyes have been said on both sides
                    self._transport.close()

    def _close_soon(self) -> None:
        transport = self._transport
        if transport is None or self._closing is not None:
            return
        # The client says goodbye too; one that does not, or does not read, is not waited for.
        self._closing = asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self.abort)


def sync_sockets(door: SyncDoor) -> type[SyncSocket]:
    """The class of sockets to give to uvicorn as its `ws`."""

    class Sockets(SyncSocket):
        pass

    Sockets.door = door
    return Sockets


class AsgiSocket:
    """One WebSocket in ASGI messages, for a server that is not ours."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[Message] = deque()
        self._size = 0
        self._there_is = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._abort: Callable[[], object] = lambda: None
        self._is_closed = False
        self.worker: SyncWorker | None = None

    @property
    def is_full(self) -> bool:
        return self._size > _WRITE_BUFFER_BYTES

    def send(self, message: Encoded) -> None:
        self._size += len(message.payload)
        self._put({"type": "websocket.send", "text": message.payload.decode()})

    def listen(self) -> None:
        self._has_room.set()

    def ping(self) -> None:
        """The server around us looks after that."""
        if self.worker is not None:
            self.worker.heard()

    def close(self, code: int, reason: str) -> None:
        self._put({"type": "websocket.close", "code": code, "reason": reason[:_REASON_BYTES]})
        self._is_closed = True
        # One that does not read what there was to say is not waited for.
        asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self.abort)

    def abort(self) -> None:
        self._abort()

    async def write(self) -> None:
        """Send what waits, until the connection is closed."""
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                await self._send(message)
                if message["type"] == "websocket.close":
                    return
                was_full = self.is_full
                self._size -= len(message["text"].encode())
                if was_full and not self.is_full and self.worker is not None:
                    self.listen()
                    self.worker.drained()
            self._there_is.clear()
            await self._there_is.wait()

    async def talk(self, receive: Receive) -> None:
        """Until the client goes: take in what it says, and write beside."""
        assert self.worker is not None
        writing = asyncio.ensure_future(self.write())
        reading = asyncio.ensure_future(self._listen(receive, self.worker))
        self._abort = reading.cancel
        try:
            await asyncio.wait([writing, reading], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, reading):
                task.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)
            self.worker.lost()
        if not reading.cancelled():
            reading.result()

    async def _listen(self, receive: Receive, worker: SyncWorker) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            if message.get("text") is not None:
                worker.received(message["text"].encode("utf-8", "surrogatepass"))
            else:
                worker.refused("Messages are text, not binary")
            while self.is_full or worker.is_busy:  # who does not read shall not go on asking either
                self._has_room.clear()
                await self._has_room.wait()

    def _put(self, message: Message) -> None:
        if not self._is_closed:
            self._waiting.append(message)
            self._there_is.set()


async def serve_asgi(door: SyncDoor, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket of another server."""
    await receive()
    try:
        door.check(path)
    except RequestError as error:
        await _refuse(answer_to(error), scope, send)
        return
    await send({"type": "websocket.accept"})
    socket = AsgiSocket(send)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")
    socket.worker = door.worker(socket, path, headers, client[0] if client else None)
    await socket.talk(receive)


async def refuse_socket(path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """There are no sockets here."""
    await receive()
    await _refuse(answer_to(RequestError(404, "NotFound", f"There is no WebSocket at {path}.")), scope, send)


async def _refuse(answer: Answer, scope: Scope, send: Send) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": answer.body.decode()[:120]})
