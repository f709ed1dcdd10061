"""The client's side of the conversation with a server, as plain state: no socket, no clock, no task.

It is told what the application asks for and what arrives on the socket, and says which messages go out and what the application is
to be told. It outlives its sockets: after each reconnect it says again what the new one has to know (protocol 5.4, 5.8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from camber.client.messages import (
    Action,
    ActionResponse,
    Add,
    Authenticate,
    AuthError,
    Chunks,
    ClientMessage,
    Connect,
    FatalError,
    MessageError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    Remove,
    Transition,
    TransitionChunk,
    Version,
    failure_text,
    from_text,
    from_ts,
    to_text,
    to_ts,
)
from camber.client.outcomes import Failure, Outcome, Success

_CHANGE_BYTES: Final = 1 << 20
"""About how large the arguments in one message that changes the query set may be together: servers bound a message's length."""

_START: Final = Version(0, 0, to_ts(0))


# --- What the application is told


@dataclass(frozen=True, slots=True)
class Changed:
    """A query that is watched has a result: another one, or after a reconnect the same once more."""

    query_id: int
    outcome: Outcome
    is_news: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has ended; a mutation only when the results that are watched show what it wrote."""

    request_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke while this action ran, or a mutation that nobody waits for: it may have been carried out or not."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The server has taken the identity that was last given, and all results are of it."""


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """The server does not take it, or no longer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The server won't go on with this client."""

    reason: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A function wrote to its log; servers tell of it in development."""

    path: str
    lines: list[str]


Event: TypeAlias = Changed | Answered | Lost | Authenticated | AuthRefused | Ended | Logged


@dataclass(frozen=True, slots=True)
class Credential:
    """What shows who this client is."""

    kind: Literal["User", "Admin", "None"]
    value: str | None = None
    impersonating: Mapping[str, object] | None = None


ANONYMOUS: Final = Credential("None")


# --- What is remembered


@dataclass(slots=True)
class _Query:
    """A query that somebody watches. `is_fresh`: its outcome is of this connection, and not from before the last one broke."""

    id: int
    path: str
    args: bytes
    listeners: int = 1
    outcome: Outcome | None = None
    is_fresh: bool = False
    journal: str | None = None


@dataclass(slots=True)
class _Request:
    """A mutation or action that has not ended. A mutation that has an outcome waits for a transition up to `ts`."""

    id: int
    path: str
    args: bytes
    is_action: bool
    is_sent: bool = False
    is_abandoned: bool = False
    outcome: Outcome | None = None
    ts: int = 0


class Conversation:
    """One client's session, over as many sockets as it takes."""

    def __init__(self, session_id: str) -> None:
        self.credential = ANONYMOUS
        self.awaits_authentication = False
        self._session_id = session_id
        self._queries: dict[int, _Query] = {}
        self._query_ids: dict[tuple[str, bytes], int] = {}
        self._next_query_id = 0
        self._requests: dict[int, _Request] = {}
        self._next_request_id = 0
        self._observed_ts = 0
        self._connections = 0
        self._close_reason: str | None = "InitialConnect"
        # Of the present socket:
        self._is_connected = False
        self._outbox: deque[ClientMessage] = deque()
        self._version: Version = _START
        self._query_set = self._change_bytes = 0
        self._identity = 0
        self._first_query_set = self._first_identity = 0
        self._resent: set[int] = set()
        self._chunks = Chunks()

    # --- What the application asks for

    def watch(self, path: str, args: bytes) -> int:
        """Watch a query; returns its id, which everybody has who watches it with the same arguments."""
        if (query_id := self._query_ids.get((path, args))) is not None:
            self._queries[query_id].listeners += 1
            return query_id
        _check_sendable(path)
        query = _Query(self._next_query_id, path, args)
        self._next_query_id += 1
        self._queries[query.id] = query
        self._query_ids[path, args] = query.id
        self._change_query_set(_add(query))
        return query.id

    def unwatch(self, query_id: int) -> None:
        """One less watches it; behind the last one it is forgotten."""
        query = self._queries[query_id]
        query.listeners -= 1
        if query.listeners:
            return
        del self._queries[query_id], self._query_ids[query.path, query.args]
        if not self._take_back_add(query_id):
            self._change_query_set(Remove(queryId=query_id))

    def latest(self, query_id: int) -> Outcome | None:
        """What the query last gave on this connection."""
        query = self._queries[query_id]
        return query.outcome if query.is_fresh else None

    @property
    def watched(self) -> int:
        """How many queries are watched."""
        return len(self._queries)

    def mutate(self, path: str, args: bytes) -> int:
        """Run a mutation; returns the request's id."""
        return self._request(path, args, is_action=False)

    def act(self, path: str, args: bytes) -> int:
        """Run an action; returns the request's id."""
        return self._request(path, args, is_action=True)

    def abandon(self, request_id: int) -> bool:
        """Nobody waits for this request any more. Whether it is gone with that: one that was sent stays until it has ended."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        request.is_abandoned = True
        if not request.is_sent:
            self._forget_unsent(request)
        return not request.is_sent

    def authenticate(self, credential: Credential) -> None:
        """Be this one from here on, on this socket and the next ones."""
        _check_sendable((credential.value, credential.impersonating))
        self.credential, self.awaits_authentication = credential, True
        if self._is_connected:
            self._say_who()

    # --- The socket

    def connected(self, now_ms: int) -> None:
        """A new socket is there: say everything that it has to know."""
        self._is_connected = True
        observed = to_ts(self._observed_ts) if self._observed_ts else None
        self._outbox.append(
            Connect(
                sessionId=self._session_id,
                connectionCount=self._connections,
                lastCloseReason=self._close_reason,
                clientTs=now_ms,
                maxObservedTimestamp=observed,
            )
        )
        self._connections += 1
        if self.credential != ANONYMOUS:
            self._say_who()
        self._first_identity = self._identity
        self._new_query_set()
        for query in self._queries.values():
            self._change_query_set(_add(query))
        self._first_query_set = self._query_set
        for request in self._requests.values():
            self._outbox.append(_message(request))
            self._resent.add(request.id)

    def disconnected(self, reason: str) -> list[Event]:
        """The socket is gone. Mutations are sent again on the next one, unless nobody waits for them; actions that were sent are lost."""
        lost = [each.id for each in self._requests.values() if each.is_abandoned or (each.is_action and each.is_sent)]
        for request_id in lost:
            del self._requests[request_id]
        for request in self._requests.values():
            request.is_sent = False
        for query in self._queries.values():
            query.is_fresh = False
        if self._is_connected:
            self._close_reason = reason
        self._is_connected = False
        self._outbox.clear()
        self._version, self._query_set, self._identity = _START, 0, 0
        self._resent.clear()
        self._chunks = Chunks()
        return [Lost(request_id) for request_id in lost]

    @property
    def is_settled(self) -> bool:
        """Whether the server has confirmed all that the present socket began with."""
        version = self._version
        return (
            0 < self._first_query_set <= version.querySet
            and self._first_identity <= version.identity
            and not self._resent
        )

    def next_message(self) -> bytes | None:
        """The next text to send."""
        if not self._outbox:
            return None
        message = self._outbox.popleft()
        if isinstance(message, Mutation | Action):
            self._requests[message.requestId].is_sent = True
        return to_text(message)

    def receive(self, text: bytes | str) -> list[Event]:
        """A text has arrived. Raises MessageError if it makes no sense; then only a new socket helps."""
        return list(self._events_of(text))

    # --- Outgoing

    def _request(self, path: str, args: bytes, *, is_action: bool) -> int:
        _check_sendable(path)
        request = _Request(self._next_request_id, path, args, is_action)
        self._next_request_id += 1
        self._requests[request.id] = request
        if self._is_connected:
            self._outbox.append(_message(request))
        return request.id

    def _say_who(self) -> None:
        who = self.credential
        self._outbox.append(
            Authenticate(
                baseVersion=self._identity, tokenType=who.kind, value=who.value, impersonating=who.impersonating
            )
        )
        self._identity += 1

    def _change_query_set(self, change: Add | Remove) -> None:
        if not self._is_connected:
            return
        size = len(change.args[0]) if isinstance(change, Add) else 0
        if self._unsent_change() is None or self._change_bytes + size > _CHANGE_BYTES:
            self._new_query_set()
        self._change_bytes += size
        if (unsent := self._unsent_change()) is not None:
            unsent.modifications.append(change)

    def _take_back_add(self, query_id: int) -> bool:
        """Whether the server has not heard of this query yet, and now won't."""
        if (unsent := self._unsent_change()) is None:
            return False
        for change in unsent.modifications:
            if isinstance(change, Add) and change.queryId == query_id:
                unsent.modifications.remove(change)
                return True
        return False

    def _unsent_change(self) -> ModifyQuerySet | None:
        """What can still be added to: only the very last message, so that nothing overtakes anything."""
        last = self._outbox[-1] if self._outbox else None
        return last if isinstance(last, ModifyQuerySet) else None

    def _new_query_set(self) -> None:
        base, self._query_set, self._change_bytes = self._query_set, self._query_set + 1, 0
        self._outbox.append(ModifyQuerySet(baseVersion=base, newVersion=self._query_set, modifications=[]))

    def _forget_unsent(self, request: _Request) -> None:
        del self._requests[request.id]
        self._resent.discard(request.id)
        for message in self._outbox:
            if isinstance(message, Mutation | Action) and message.requestId == request.id:
                self._outbox.remove(message)
                return

    # --- Incoming

    def _events_of(self, text: bytes | str) -> Iterator[Event]:
        match from_text(text):
            case Transition() as transition:
                yield from self._moved(transition)
            case TransitionChunk() as chunk:
                if (whole := self._chunks.add(chunk)) is not None:
                    yield from self._events_of(whole)
            case MutationResponse() as response:
                yield from self._mutation_ended(response)
            case ActionResponse() as response:
                yield from self._action_ended(response)
            case AuthError() as error:
                if self._concerns_us(error):
                    yield AuthRefused(error.error)
            case FatalError(error):
                yield Ended(error)
            case None:
                pass

    def _moved(self, transition: Transition) -> Iterator[Event]:
        if transition.startVersion != self._version:
            raise MessageError(f"a transition begins at {transition.startVersion}, but we are at {self._version}")
        ts = from_ts(transition.endVersion.ts)
        self._version = transition.endVersion
        self._observed_ts = max(self._observed_ts, ts)
        for change in transition.modifications:
            if not isinstance(change, QueryRemoved):
                yield from self._changed(change)
        # Behind the results: whoever waits for a mutation finds its effects there.
        for request in [each for each in self._requests.values() if each.outcome is not None and each.ts <= ts]:
            if request.is_sent:
                del self._requests[request.id]
            else:  # it was to be sent again, on a socket that had not come to it yet
                self._forget_unsent(request)
            if request.outcome is not None:
                yield Answered(request.id, request.outcome)
        if self.awaits_authentication and self._version.identity >= self._identity:
            self.awaits_authentication = False
            yield Authenticated()

    def _changed(self, change: QueryUpdated | QueryFailed) -> Iterator[Event]:
        # A result may cross with the message that nobody watches the query any more.
        if (query := self._queries.get(change.queryId)) is None:
            return
        if change.logLines:
            yield Logged(query.path, change.logLines)
        before = query.outcome
        query.outcome, query.journal, query.is_fresh = _outcome_of(change), change.journal, True
        # After a reconnect every result comes again, also those that are as they were.
        yield Changed(query.id, query.outcome, is_news=query.outcome != before)

    def _mutation_ended(self, response: MutationResponse) -> Iterator[Event]:
        request = self._requests.get(response.requestId)
        self._resent.discard(response.requestId)
        # One that had ended before the connection broke was sent again; its answer has been remembered.
        if request is None or request.outcome is not None:
            return
        if response.logLines:
            yield Logged(request.path, response.logLines)
        outcome = _end_of(response)
        if response.success and response.ts is not None:
            request.outcome, request.ts = outcome, from_ts(response.ts)
            self._observed_ts = max(self._observed_ts, request.ts)
        else:
            del self._requests[request.id]
            yield Answered(request.id, outcome)

    def _action_ended(self, response: ActionResponse) -> Iterator[Event]:
        request = self._requests.pop(response.requestId, None)
        self._resent.discard(response.requestId)
        if request is None:
            return
        if response.logLines:
            yield Logged(request.path, response.logLines)
        yield Answered(request.id, _end_of(response))

    def _concerns_us(self, error: AuthError) -> bool:
        """Whether it is about the identity that was given last, and not about one that another has replaced meanwhile."""
        if error.baseVersion + 1 < self._identity:
            return False
        return error.authUpdateAttempted or not self.awaits_authentication


def _check_sendable(part: object) -> None:
    """Raise where a part of a message can't be sent (TypeError, UnicodeEncodeError): now, to the caller, and not when it is sent."""
    to_text(part)


def _add(query: _Query) -> Add:
    return Add(queryId=query.id, udfPath=query.path, args=(msgspec.Raw(query.args),), journal=query.journal)


def _message(request: _Request) -> Mutation | Action:
    kind = Action if request.is_action else Mutation
    return kind(requestId=request.id, udfPath=request.path, args=(msgspec.Raw(request.args),))


def _outcome_of(change: QueryUpdated | QueryFailed) -> Outcome:
    if isinstance(change, QueryUpdated):
        return Success(bytes(change.value))
    return Failure(change.errorMessage, bytes(change.errorData) or None)


def _end_of(response: MutationResponse | ActionResponse) -> Outcome:
    if response.success:
        return Success(bytes(response.result))
    return Failure(failure_text(response.result), bytes(response.errorData) or None)
