"""One client's conversation as plain state: no socket, no clock, and no function is run here (protocol 5.6, 5.7).

The worker does those things and reports back, so a test can play through any order of events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, assert_never

from camber.backend import Content
from camber.identity import Caller
from camber.sync.messages import (
    START,
    Action,
    ActionResponse,
    Authenticate,
    AuthError,
    ClientMessage,
    Connect,
    FatalError,
    Modification,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    ProtocolError,
    ServerMessage,
    Transition,
    Version,
)

MAX_QUERIES: Final = 10_000
"""How many queries one client may watch."""
MAX_ARGUMENTS_BYTES: Final = 16 * 1024 * 1024
"""How large the arguments of all of them together may be."""
MAX_MUTATIONS: Final = 1_000
"""How many mutations of one client may wait (protocol 3.11)."""
MAX_ACTIONS: Final = 1_000
MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
"""How large the arguments of calls that wait, and the messages that wait behind a token that is being checked, may be together."""
_MAX_HELD: Final = 1_000


class Watch(NamedTuple):
    """Begin to watch a query."""

    query_id: int
    path: str
    args: bytes
    journal: str | None


class Unwatch(NamedTuple):
    """Watch it no longer."""

    query_id: int


class Check(NamedTuple):
    """Find out whether the client is who it says."""

    claim: Authenticate


class Run(NamedTuple):
    """Run a mutation or an action, for who was speaking when it was asked for."""

    kind: str
    request_id: int
    path: str
    args: bytes
    caller: Caller


class Close(NamedTuple):
    """End the conversation, when what there is to say has been said."""

    code: int
    reason: str


Work = Watch | Unwatch | Check | Run | Close


class Session:
    """The state of one conversation. What the client said goes in by `receive`, what became of it by the other methods;
    `work` and `outgoing` hand over what is to be done and said now, and forget it."""

    __slots__ = (
        "_actions",
        "_bytes",
        "_checking",
        "_held",
        "_mutations",
        "_outgoing",
        "_removed",
        "_sent",
        "_sizes",
        "_waiting_bytes",
        "_work",
        "caller",
        "identity",
        "is_over",
        "query_set",
        "running",
        "session_id",
    )

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.session_id: str | None = None
        self.query_set = self.identity = 0
        """The versions that the client has set, which the next transition ends at."""
        self.running: int | None = None
        """The request of the mutation that runs now."""
        self.is_over = False
        self._sent = START
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._removed: list[int] = []
        self._mutations: deque[Run] = deque()
        self._actions: dict[int, int] = {}
        self._waiting_bytes = 0
        self._checking: Authenticate | None = None
        self._held: deque[tuple[ClientMessage, int]] = deque()
        self._work: list[Work] = []
        self._outgoing: list[ServerMessage] = []

    # What is to be done and said

    def work(self) -> list[Work]:
        """What is to be done now, in this order."""
        work, self._work = self._work, []
        return work

    def outgoing(self) -> list[ServerMessage]:
        """What the client is to be told now, in this order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def is_busy(self) -> bool:
        """Whether so many mutations wait that the client should not be listened to until one has ended."""
        return len(self._mutations) >= MAX_MUTATIONS

    # What the client said

    def receive(self, message: ClientMessage, size: int = 0) -> None:
        """Take in one message, of so many bytes. What breaks the protocol ends the conversation."""
        if self.is_over:
            return
        try:
            if self._checking is not None:
                self._hold(message, size)
            else:
                self._take(message)
        except ProtocolError as error:
            self.break_off(str(error))

    def break_off(self, reason: str) -> None:
        """The client broke the protocol: it is told how, and nothing more is heard of it."""
        self._outgoing.append(FatalError(reason))
        self._end(1000, "")

    # What became of it

    def checked(self, caller: Caller | None, refusal: str = "") -> None:
        """The client is this caller from now on; or it is not who it says, and is told why."""
        assert self._checking is not None
        claim, self._checking = self._checking, None
        if caller is None:
            self._outgoing.append(AuthError(refusal, claim.base_version, update_attempted=True))
            self._end(1000, "")
            return
        self.caller = caller
        self.identity += 1
        while self._held and self._checking is None and not self.is_over:
            held, size = self._held.popleft()
            self._waiting_bytes -= size
            self.receive(held, size)

    def expired(self, reason: str) -> None:
        """Who the client is can't be relied on any longer."""
        self._outgoing.append(AuthError(reason, self.identity, update_attempted=False))
        self._end(1000, "")

    def mutation_ended(self, response: MutationResponse) -> None:
        """The mutation that runs has ended; the next may begin."""
        assert self.running == response.request_id
        self._outgoing.append(response)
        self.running = None
        self._next_mutation()

    def action_ended(self, response: ActionResponse) -> None:
        """An action has ended."""
        self._waiting_bytes -= self._actions.pop(response.request_id)
        self._outgoing.append(response)

    def moved_to(self, timestamp: int, changes: Sequence[tuple[int, Content]], clock_skew: int | None = None) -> None:
        """All values are of this timestamp now, and these are other than before."""
        start = self._sent
        end = self._sent = Version(self.query_set, self.identity, timestamp)
        skew = clock_skew if end.identity != start.identity else None
        removed: tuple[int, ...] = ()
        if self._removed:
            removed, self._removed = tuple(self._removed), []
        self._outgoing.append(Transition(start, end, tuple(changes), removed, skew))

    # The steps of the above

    def _hold(self, message: ClientMessage, size: int) -> None:
        if len(self._held) >= _MAX_HELD:
            raise ProtocolError("Too many messages wait for a token to be checked")
        if self._has_room(size):
            self._held.append((message, size))

    def _has_room(self, size: int) -> bool:
        """Whether the client may keep so many bytes more waiting. If not, it is sent away to come back later."""
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._end(1013, "TooManyConcurrentRequests")
            return False
        self._waiting_bytes += size
        return True

    def _take(self, message: ClientMessage) -> None:
        if self.session_id is None or isinstance(message, Connect):
            self._connect(message)
            return
        match message:
            case ModifyQuerySet():
                self._change_queries(message)
            case Authenticate():
                _check_base(message.base_version, self.identity)
                self._checking = message
                self._work.append(Check(message))
            case Mutation():
                self._queue_mutation(message)
            case Action():
                self._start_action(message)
            case _:
                assert_never(message)

    def _connect(self, message: ClientMessage) -> None:
        if not isinstance(message, Connect):
            raise ProtocolError("The first message must be Connect")
        if self.session_id is not None:
            raise ProtocolError("Connect can be said only once")
        self.session_id = message.session_id

    def _change_queries(self, message: ModifyQuerySet) -> None:
        _check_base(message.base_version, self.query_set)
        if message.new_version <= message.base_version:
            raise ProtocolError(f"Version {message.new_version} does not follow {message.base_version}")
        for change in message.modifications:
            if change.type == "Add":
                self._add(change)
            elif change.type == "Remove":
                self._remove(change.query_id)
            else:
                raise ProtocolError(f"A modification of the query set is Add or Remove, not {change.type[:40]!r}")
        self.query_set = message.new_version

    def _add(self, change: Modification) -> None:
        if change.query_id in self._sizes:
            raise ProtocolError(f"Duplicate query ID: {change.query_id}")
        _refuse_component(change.component_path)
        args = bytes(change.args)
        if len(self._sizes) >= MAX_QUERIES:
            raise ProtocolError(f"A client can watch {MAX_QUERIES} queries at most")
        size = self._sizes[change.query_id] = len(args) + len(change.udf_path) + len(change.journal or "")
        self._bytes += size
        if self._bytes > MAX_ARGUMENTS_BYTES:
            raise ProtocolError("The arguments of the queries that this client watches are too large together")
        self._work.append(Watch(change.query_id, change.udf_path, args, change.journal))

    def _remove(self, query_id: int) -> None:
        size = self._sizes.pop(query_id, None)
        if size is not None:
            self._bytes -= size
            self._removed.append(query_id)
            self._work.append(Unwatch(query_id))

    def _queue_mutation(self, message: Mutation) -> None:
        _refuse_component(message.component_path)
        if len(self._mutations) >= MAX_MUTATIONS:
            self._end(1013, "TooManyConcurrentMutations")
            return
        args = bytes(message.args)
        if self._has_room(len(args)):
            self._mutations.append(Run("mutation", message.request_id, message.udf_path, args, self.caller))
            self._next_mutation()

    def _next_mutation(self) -> None:
        if self.running is None and self._mutations and not self.is_over:
            run = self._mutations.popleft()
            self._waiting_bytes -= len(run.args)
            self.running = run.request_id
            self._work.append(run)

    def _start_action(self, message: Action) -> None:
        _refuse_component(message.component_path)
        if len(self._actions) >= MAX_ACTIONS:
            raise ProtocolError(f"A client can have {MAX_ACTIONS} actions running at most")
        if message.request_id in self._actions:
            raise ProtocolError(f"Duplicate request ID: {message.request_id}")
        args = bytes(message.args)
        if self._has_room(len(args)):
            self._actions[message.request_id] = len(args)
            self._work.append(Run("action", message.request_id, message.udf_path, args, self.caller))

    def _end(self, code: int, reason: str) -> None:
        self.is_over = True
        self._held.clear()
        self._mutations.clear()
        self._work.append(Close(code, reason))


def _check_base(given: int, current: int) -> None:
    if given != current:
        raise ProtocolError(f"Base version {given} passed up doesn't match the current version {current}")


def _refuse_component(path: str | None) -> None:
    if path:
        raise ProtocolError(f"There are no components here: leave componentPath out (it is {path[:60]!r})")
