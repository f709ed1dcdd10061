"""What client and server say to each other over the socket (protocol 5.3 and 5.5), to JSON and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

MAX_MESSAGE_BYTES: Final = 128 << 20
"""The longest message that is taken, in one piece or in several: room for several results of the largest size (16 MiB)."""

_RAW_NULL: Final = msgspec.Raw(b"null")
_NO_RAW: Final = msgspec.Raw()


class MessageError(Exception):
    """A message that makes no sense. The conversation can only begin anew after it."""


# --- From the client


class Connect(msgspec.Struct, tag=True, omit_defaults=True, kw_only=True):
    """The first message on every socket."""

    sessionId: str
    connectionCount: int
    lastCloseReason: str | None
    clientTs: int
    maxObservedTimestamp: str | None = None


class Authenticate(msgspec.Struct, tag=True, omit_defaults=True, kw_only=True):
    """Who this client is from here on."""

    baseVersion: int
    tokenType: Literal["User", "Admin", "None"]
    value: str | None = None
    impersonating: Mapping[str, object] | None = None


class Add(msgspec.Struct, tag=True, kw_only=True):
    """Begin to watch a query."""

    queryId: int
    udfPath: str
    args: tuple[msgspec.Raw]
    journal: str | None = None


class Remove(msgspec.Struct, tag=True, kw_only=True):
    """Watch it no longer."""

    queryId: int


class ModifyQuerySet(msgspec.Struct, tag=True, kw_only=True):
    """A change of what is watched."""

    baseVersion: int
    newVersion: int
    modifications: list[Add | Remove]


class Mutation(msgspec.Struct, tag=True, kw_only=True):
    """Run a mutation."""

    requestId: int
    udfPath: str
    args: tuple[msgspec.Raw]


class Action(msgspec.Struct, tag=True, kw_only=True):
    """Run an action."""

    requestId: int
    udfPath: str
    args: tuple[msgspec.Raw]


ClientMessage: TypeAlias = Connect | Authenticate | ModifyQuerySet | Mutation | Action

to_text = msgspec.json.Encoder().encode
"""A message as the text that travels."""


# --- From the server


class Version(msgspec.Struct, frozen=True):
    """What a set of results belongs to: the queries watched, the identity, and the database's time (as on the wire)."""

    querySet: int
    identity: int
    ts: str


class QueryUpdated(msgspec.Struct, tag=True):
    """A query has a new value."""

    queryId: int
    value: msgspec.Raw = _RAW_NULL
    logLines: list[str] = []
    journal: str | None = None


class QueryFailed(msgspec.Struct, tag=True):
    """A query fails now; `errorData` is there if it raised a ConvexError."""

    queryId: int
    errorMessage: str
    errorData: msgspec.Raw = _NO_RAW
    logLines: list[str] = []
    journal: str | None = None


class QueryRemoved(msgspec.Struct, tag=True):
    """A query is no longer watched."""

    queryId: int


class Transition(msgspec.Struct, tag=True):
    """All that changed from one moment to a later one. What it does not mention has not changed."""

    startVersion: Version
    endVersion: Version
    modifications: list[QueryUpdated | QueryFailed | QueryRemoved]


class TransitionChunk(msgspec.Struct, tag=True):
    """A part of a long Transition's text."""

    chunk: str
    partNumber: int
    totalParts: int
    transitionId: str


class MutationResponse(msgspec.Struct, tag=True):
    """How a mutation ended: `result` is its value, or, if it failed, a text."""

    requestId: int
    success: bool
    result: msgspec.Raw = _RAW_NULL
    ts: str | None = None
    errorData: msgspec.Raw = _NO_RAW
    logLines: list[str] = []


class ActionResponse(msgspec.Struct, tag=True):
    """How an action ended."""

    requestId: int
    success: bool
    result: msgspec.Raw = _RAW_NULL
    errorData: msgspec.Raw = _NO_RAW
    logLines: list[str] = []


class AuthError(msgspec.Struct, tag=True):
    """The token or key is refused, or runs out; the server closes the socket."""

    error: str
    baseVersion: int = 0
    authUpdateAttempted: bool = True


class FatalError(msgspec.Struct, tag=True):
    """The server won't go on with this client."""

    error: str


ServerMessage: TypeAlias = Transition | TransitionChunk | MutationResponse | ActionResponse | AuthError | FatalError


class _AnyMessage(msgspec.Struct):
    type: str = ""


_any_message = msgspec.json.Decoder(_AnyMessage)
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.__name__: msgspec.json.Decoder(kind)
    for kind in (Transition, TransitionChunk, MutationResponse, ActionResponse, AuthError, FatalError)
}
_text = msgspec.json.Decoder(str)


def from_text(text: bytes | str) -> ServerMessage | None:
    """The message in this text; None for kinds that say nothing to this client (`Ping`, and those of later servers).

    Raises MessageError for what is no message.
    """
    try:
        decoder = _decoders.get(_any_message.decode(text).type)
        return None if decoder is None else decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageError(f"the server sent what is no message: {error}") from None


def failure_text(result: msgspec.Raw) -> str:
    """The text that stands in `result` of a response to what failed."""
    try:
        return _text.decode(result)
    except msgspec.DecodeError:
        return bytes(result).decode(errors="replace")


@dataclass(slots=True)
class Chunks:
    """The parts of a Transition that have come so far."""

    transition_id: str | None = None
    parts: list[str] = field(default_factory=list[str])
    length: int = 0

    def add(self, chunk: TransitionChunk) -> str | None:
        """The whole text, once this was its last part. Raises MessageError for parts that do not follow each other."""
        if self.transition_id is None:
            self.transition_id = chunk.transitionId
        self.length += len(chunk.chunk)
        if (
            chunk.transitionId != self.transition_id
            or chunk.partNumber != len(self.parts)
            or chunk.partNumber >= chunk.totalParts
        ):
            raise MessageError(f"part {chunk.partNumber} of a transition does not follow part {len(self.parts) - 1}")
        if self.length > MAX_MESSAGE_BYTES:
            raise MessageError(f"a transition is longer than {MAX_MESSAGE_BYTES >> 20} MiB")
        self.parts.append(chunk.chunk)
        if len(self.parts) < chunk.totalParts:
            return None
        whole = "".join(self.parts)
        self.transition_id, self.parts, self.length = None, [], 0
        return whole


# --- Times


def to_ts(number: int) -> str:
    """A time as on the wire: 8 bytes, the least first, in base64 (protocol 5.2)."""
    return base64.b64encode(number.to_bytes(8, "little")).decode()


def from_ts(text: str) -> int:
    """And back. Raises MessageError."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if len(data) != 8:
        raise MessageError(f"the server sent {text[:40]!r} for a time")
    return int.from_bytes(data, "little")
