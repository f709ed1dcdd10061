"""What drives the conversations: each client's session, its view of the live queries, its calls, and signs of life."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from camber.backend import Backend, Call, Content, Outcome, Timestamp
from camber.errors import CommitUnknownError, DiskFullError, FunctionError, RequestError, StorageError
from camber.identity import Caller
from camber.sync.messages import (
    MAX_CHUNK,
    PING,
    ActionResponse,
    Authenticate,
    Connect,
    Encoded,
    ModifyQuerySet,
    MutationResponse,
    ProtocolError,
    ServerMessage,
    Transition,
    chunks,
    encode,
    read_message,
)
from camber.sync.session import Check, Close, Run, Session, Unwatch, Watch, Work

PING_SECONDS: Final = 15.0
"""Of silence after which a client is told that the server is there (protocol 5.8)."""
SILENCE_SECONDS: Final = 120.0
"""After which a client that says nothing at all, not even to a ping, is taken for gone."""
STUCK_SECONDS: Final = 30.0
"""How long a client may take to read before it is given up."""
_MAX_ENCODED: Final = 64
_BUSY_SECONDS: Final = 0.1
_STEPS_AT_ONCE: Final = 100
_EXPIRED: Final = "Convex token identity expired"
_REPLACED: Final = "The admin key was replaced"

_log = logging.getLogger("camber.sync")


@dataclass(frozen=True, slots=True)
class Proof:
    """Who somebody has shown to be, and until when that holds (ms since the epoch; None: for good)."""

    caller: Caller
    expires_ms: float | None = None
    admin_key: int = 0
    """The number of the admin key that was shown, as `SyncHub` is given it."""


Authenticator = Callable[[Authenticate, Caller], Proof | Awaitable[Proof]]
"""Finds out who is behind a claim; the caller is who spoke until now. Raises RequestError, at once or when awaited."""


class Socket(Protocol):
    """The way to one client."""

    def send(self, message: Encoded) -> None:
        """Send it. Never waits: `is_full` tells when no more should be sent."""
        ...

    def ping(self) -> None:
        """Ask for a sign of life, below the protocol."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the client does not keep up with reading."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...

    def listen(self) -> None:
        """Go on handing over what the client says, which is not done while its worker is busy."""
        ...


class SyncHub:
    """What all conversations of a server share. Everything happens on the event loop."""

    def __init__(self, backend: Backend, authenticate: Authenticator, admin_key: Callable[[], int]) -> None:
        """`admin_key` gives a number for the admin key that holds: another one once the key has been replaced."""
        self.backend, self.authenticate, self.admin_key = backend, authenticate, admin_key
        self._admin_key = admin_key()
        self.workers: set[SyncWorker] = set()
        self._encoded: dict[Transition, Encoded] = {}
        self._due: dict[int, list[SyncWorker]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.has_warned = False

    def encode(self, message: ServerMessage) -> Encoded:
        """The message's form on the wire. Clients that go the same way share a transition."""
        if not isinstance(message, Transition):
            return encode(message)
        found = self._encoded.get(message)
        if found is None:
            if len(self._encoded) >= _MAX_ENCODED:
                self._encoded.clear()
            found = self._encoded[message] = encode(message)
        return found

    def enter(self, worker: SyncWorker) -> None:
        """A client has come."""
        self.workers.add(worker)
        self.look_after(worker, time.monotonic() + PING_SECONDS)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._look_around)

    def leave(self, worker: SyncWorker) -> None:
        """It has gone."""
        self.workers.discard(worker)

    def look_after(self, worker: SyncWorker, when: float) -> None:
        """Look at this client again at this time of the monotonic clock, to the second."""
        self._due.setdefault(int(when) + 1, []).append(worker)

    def _look_around(self) -> None:
        now = time.monotonic()
        for second in [second for second in self._due if second <= now]:
            for worker in self._due.pop(second):
                if worker in self.workers:
                    worker.look(now)
        if (key := self.admin_key()) != self._admin_key:
            self._admin_key = key
            for worker in list(self.workers):
                worker.look_at_key(key)
        # What nobody needs any more shall not be kept by the frames that were shared.
        self._encoded.clear()
        self._timer = (
            asyncio.get_running_loop().call_later(1.0, self._look_around) if self.workers or self._due else None
        )


class SyncWorker:
    """Drives one conversation; a `Holder` of its view."""

    __slots__ = (
        "__weakref__",
        "_address_caller",
        "_admitted_by",
        "_backend",
        "_call",
        "_calls",
        "_clock_skew",
        "_expiry",
        "_handles_chunks",
        "_heard",
        "_held_back",
        "_hub",
        "_is_closed",
        "_is_leaving",
        "_is_working",
        "_mutation",
        "_said",
        "_session",
        "_socket",
        "_steps",
        "_stuck_since",
        "_tasks",
        "_transitions",
        "_unread",
        "_view",
    )

    def __init__(self, hub: SyncHub, socket: Socket, caller: Caller, *, handles_chunks: bool) -> None:
        self._hub, self._backend, self._socket = hub, hub.backend, socket
        self._address_caller = caller
        self._session = Session(caller)
        self._view = hub.backend.view(self, caller)
        self._handles_chunks = handles_chunks
        self._admitted_by = 0
        """The number of the admin key that the client has shown."""
        self._call: Call | None = None
        self._mutation: Run | None = None
        self._held_back: Run | None = None
        """The mutation whose turn it is, until the client reads again."""
        self._clock_skew: int | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] | None = None
        self._transitions = 0
        self._calls = 0
        """How many mutations and actions of this client the backend is at work on."""
        self._is_closed = self._is_working = self._is_leaving = False
        self._steps: deque[Work] = deque()
        self._unread: deque[bytes] | None = None
        """What the client has said since something for which the newest state must be known first."""
        self._heard = self._said = time.monotonic()
        self._stuck_since: float | None = None
        hub.enter(self)

    # Told by the socket

    def received(self, text: bytes) -> None:
        """The client said this."""
        if self._is_closed:  # it has been sent away, and does not know yet
            return
        self._heard = time.monotonic()
        if self._unread is None:
            self._read(text)
        else:
            self._unread.append(text)

    def _read(self, text: bytes, *, is_current: bool = False) -> None:
        if self._is_leaving:  # it says it again where it goes next
            return
        session = self._session
        try:
            message = read_message(text)
            if self._backend.is_shared and not is_current and isinstance(message, Connect | ModifyQuerySet):
                # Elsewhere the client, or whoever sent it here, may have seen a state that is not known here yet.
                self._unread = deque([text])
                self._backend.when_current(self._is_current)
                return
            if isinstance(message, Connect) and not self._connects(message):
                return
        except ProtocolError as error:
            session.break_off(str(error))
        else:
            if message is None:
                return
            versions = session.query_set, session.identity
            session.receive(message, len(text))
            if versions != (session.query_set, session.identity):
                self._view.owe()
        self._work()

    def _is_current(self, error: Exception | None) -> None:
        unread, self._unread = self._unread, None
        if self._is_closed or unread is None:
            return
        if error is not None:
            self.failed(error)
            return
        self._read(unread.popleft(), is_current=True)
        for text in unread:
            if not self._is_closed:
                self.received(text)
        self._socket.listen()

    def refused(self, reason: str) -> None:
        """The client sent what is no message."""
        if self._is_closed or self._is_leaving:
            return
        self._session.break_off(reason)
        self._work()

    @property
    def is_busy(self) -> bool:
        """Whether the client has asked for so much that it is not to be listened to now."""
        return self._session.is_busy or bool(self._steps) or self._unread is not None

    def heard(self) -> None:
        """A sign of life."""
        self._heard = time.monotonic()

    def drained(self) -> None:
        """The client reads again: it gets the newest state."""
        self._stuck_since = None
        held_back, self._held_back = self._held_back, None
        if held_back is not None and not self._is_closed:
            self._do(held_back)
        self._view.advance()

    def lost(self) -> None:
        """The connection is gone."""
        if self._is_closed:
            return
        self._is_closed = True
        self._steps.clear()
        self._hub.leave(self)
        self._view.close()
        if self._expiry is not None:
            self._expiry.cancel()
        for task in list(self._tasks or ()):
            task.cancel()

    def leave(self) -> None:
        """The server stops: finish what this client's calls have begun, begin nothing more, and send it away.

        What is not begun it asks for again on its next connection, an action excepted, of which it says that it was lost.
        """
        self._is_leaving = True
        self._leave_if_done()

    def send_away(self) -> None:
        """The server stops and does not wait any longer."""
        # With this code clients neither warn nor wait longer than after any lost connection.
        self._close(1001, "ServerRestarting")

    # Told by the hub

    def look(self, now: float) -> None:
        """Every 15 s at least: is it still there, has it begun, does it read, does it need a sign of life?"""
        silent = now - self._heard > SILENCE_SECONDS and not self.is_busy
        if silent or self._session.session_id is None:
            self._socket.abort()
            return
        if self._socket.is_full:
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > STUCK_SECONDS:
                self._socket.abort()
                return
        elif now - self._said >= PING_SECONDS - 1:
            self._said = now
            self._socket.send(PING)
            self._socket.ping()
        self._hub.look_after(self, max(now + 1, self._said + PING_SECONDS - 1))

    # Told by the view

    def may_move(self) -> bool:
        """Not while a mutation of this client may show before it is answered, nor where the client does not read."""
        return not (
            self._is_closed
            or self._steps
            or self._session.session_id is None
            or self._socket.is_full
            or (self._call is not None and self._call.has_begun)
        )

    def moved(self, timestamp: int, changes: Sequence[tuple[int, Content]]) -> None:
        """Tell the client of a newer moment."""
        self._session.moved_to(timestamp, changes, self._clock_skew)
        self._say()
        self._leave_if_done()

    def failed(self, error: Exception) -> None:
        """The values can't be kept up to date."""
        if isinstance(error, FunctionError):  # the client wants too much
            self._session.break_off(str(error))
            self._work()
            return
        _log.error("live queries of a client failed", exc_info=error)
        self._close(1011, "InternalServerError")

    # The steps of the above

    def _connects(self, message: Connect) -> bool:
        """Whether what this client saw last is of this server's past."""
        if message.observed > self._backend.marked:
            if not self._hub.has_warned:  # once: whoever likes can say so
                self._hub.has_warned = True
                _log.warning("a client has seen a timestamp that this server does not know")
            self._close(1011, "InternalServerError")
            return False
        if message.client_ts:  # some clients say 0 for not saying
            self._clock_skew = int(message.client_ts - self._backend.now_ms())
        return True

    def _work(self) -> None:
        """Do and say what the session wants. Of very much, a part: the rest comes after everybody else's."""
        if self._is_working:  # further up the stack: it goes on with what has come up
            return
        self._is_working = True
        steps, was_busy = self._steps, bool(self._steps)
        try:
            for _ in range(_STEPS_AT_ONCE):
                if not steps:
                    steps.extend(self._session.work())
                    if not steps:
                        break
                self._do(steps.popleft())
        finally:
            self._is_working = False
        self._say()
        if self._is_closed:
            return
        steps.extend(self._session.work())
        if steps:
            asyncio.get_running_loop().call_soon(self._work)
            return
        if was_busy:
            self._socket.listen()
        self._view.advance()

    def _do(self, step: Work) -> None:
        if self._is_closed:
            return
        match step:
            case Watch(query_id, path, args, journal):
                self._view.add(query_id, path, args, journal)
            case Unwatch(query_id):
                self._view.remove(query_id)
            case Run():
                if self._is_leaving:
                    return
                # Who does not read its answers gets no more of them: they would wait in memory.
                if step.kind == "mutation" and self._socket.is_full:
                    self._held_back = step
                else:
                    self._run(step)
            case Check(claim):
                self._check(claim)
            case Close(code, reason):
                self._say()
                self._close(code, reason)

    def _say(self) -> None:
        outgoing = self._session.outgoing()
        if not outgoing or self._is_closed:
            return
        self._said = time.monotonic()
        for message in outgoing:
            encoded = self._hub.encode(message)
            if len(encoded.payload) > MAX_CHUNK and self._handles_chunks and isinstance(message, Transition):
                self._transitions += 1
                for part in chunks(encoded.payload, str(self._transitions)):
                    self._socket.send(part)
            else:
                self._socket.send(encoded)

    def _close(self, code: int, reason: str) -> None:
        if not self._is_closed:
            self._socket.close(code, reason)
            self.lost()

    def _leave_if_done(self) -> None:
        """Where it is to leave: once its calls are answered and its values show what they wrote."""
        if self._is_leaving and not self._calls and self._view.owed is None:
            self.send_away()

    # Who it is

    def _check(self, claim: Authenticate) -> None:
        try:
            proof = self._hub.authenticate(claim, self._address_caller)
        except RequestError as error:
            self._refuse(error)
            return
        if isinstance(proof, Proof):
            self._admitted_by = proof.admin_key
            self._accept(proof)
            return
        task = asyncio.ensure_future(self._await_proof(proof))
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_proof(self, proof: Awaitable[Proof]) -> None:
        try:
            found = await proof
        except RequestError as error:
            if not self._is_closed:
                self._refuse(error)
                self._work()
            return
        if not self._is_closed:
            self._accept(found)
            self._work()

    def _accept(self, proof: Proof) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if proof.expires_ms is not None:
            seconds = max(0.0, (proof.expires_ms - self._backend.now_ms()) / 1000)
            self._expiry = asyncio.get_running_loop().call_later(seconds, self._expired)
        # A message that waited behind this one may change the query set: what is owed covers it too.
        self._view.become(proof.caller)
        self._view.owe()
        self._session.checked(proof.caller)

    def _refuse(self, error: RequestError) -> None:
        if error.status >= 500:
            self._close(1013, error.short_code)
        else:
            self._session.checked(None, error.message)

    def _expired(self) -> None:
        self._session.expired(_EXPIRED)
        self._work()

    def look_at_key(self, key: int) -> None:
        """The admin key has this number now: whoever was let in by another one has to show it again."""
        if self._session.caller.is_admin and self._admitted_by != key:
            self._session.expired(_REPLACED)
            self._work()

    # Calls

    def _run(self, run: Run) -> None:
        session_id = self._session.session_id or ""
        request_id = hashlib.sha256(f"{session_id}|{run.request_id}".encode()).hexdigest()[:16]
        mutation = run.kind == "mutation"

        def done(result: Outcome | Exception) -> None:
            self._calls -= 1
            if mutation:
                self._call = None
            if not self._is_closed:
                self._ended(run, result)
                self._leave_if_done()

        if mutation:
            self._mutation = run
        once = (session_id, run.request_id) if mutation else None
        kind = "mutation" if mutation else "action"
        self._calls += 1
        try:
            call = self._backend.start(
                run.path,
                run.args,
                run.caller,
                done,
                kind=kind,
                request_id=request_id,
                once=once,
                origin="SyncWorker",
            )
        except RequestError as error:
            self._calls -= 1
            self._ended(run, error)
            return
        if mutation and self._mutation is run:
            self._call = call

    def _ended(self, run: Run, result: Outcome | Exception) -> None:
        match result:
            case Outcome():
                self._respond(run, result)
            case DiskFullError():
                self._respond(run, Outcome(None, "The server's disk is full. Nothing was written."))
            case RequestError() if result.status < 500:
                self._respond(run, Outcome(None, result.message))
            case RequestError():  # too much to do just now
                asyncio.get_running_loop().call_later(_BUSY_SECONDS, self._run_again, run)
            case CommitUnknownError():
                # Whether it took effect is not known: the client asks again when it is back, and is told then.
                self._close(1011, "CommitUnknown")
            case StorageError():
                _log.error("a call failed", extra={"reason": str(result)})
                self._close(1011, "InternalServerError")
            case _:
                _log.error("a call failed", exc_info=result)
                self._close(1011, "InternalServerError")

    def _run_again(self, run: Run) -> None:
        if not self._is_closed and not self._is_leaving:
            self._run(run)

    def _respond(self, run: Run, outcome: Outcome) -> None:
        told = (outcome.value, outcome.error, outcome.error_data, outcome.log_lines)
        if run.kind == "mutation":
            self._mutation = None
            timestamp = outcome.timestamp if outcome.ok else None
            was_busy = self._session.is_busy
            self._session.mutation_ended(MutationResponse(run.request_id, timestamp, *told))
            if was_busy:
                self._heard = time.monotonic()
                self._socket.listen()
        else:
            self._session.action_ended(ActionResponse(run.request_id, *told))
        self._say()
        self._view.owe(Timestamp(outcome.timestamp) if outcome.ok else None)
        self._work()
