"""The messages of the sync protocol and their JSON: the one place that knows its names (protocol 5.2, 5.3, 5.5)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from camber.backend import Content
from camber.values import encode_text

_Counter = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""Versions and numbers of queries and requests."""

MAX_SESSION_ID: Final = 100
"""Characters; a UUID has 36."""

MAX_CHUNK: Final = 5_000_000
"""Bytes of a transition above which clients that know how are sent it in parts (protocol 5.8)."""


class ProtocolError(Exception):
    """The client said what it must not say. Its text is what the client is told."""


# --- What clients say


class Connect(msgspec.Struct, rename="camel"):
    """The first message of a socket."""

    session_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SESSION_ID)]
    max_observed_timestamp: str | None = None
    client_ts: float | None = None

    @property
    def observed(self) -> int:
        """The latest timestamp that the client has seen, 0 if none."""
        return 0 if self.max_observed_timestamp is None else read_timestamp(self.max_observed_timestamp)


class Authenticate(msgspec.Struct, rename="camel"):
    """Who is speaking from now on."""

    base_version: _Counter
    token_type: str
    value: str | None = None
    impersonating: msgspec.Raw = msgspec.Raw(b"null")
    acting_as: msgspec.Raw = msgspec.field(name="acting_as", default=msgspec.Raw(b"null"))


class Modification(msgspec.Struct, rename="camel"):
    """A query to watch, or to watch no longer."""

    type: str
    query_id: _Counter
    udf_path: str = ""
    args: msgspec.Raw = msgspec.Raw(b"[{}]")
    journal: str | None = None
    component_path: str | None = None


class ModifyQuerySet(msgspec.Struct, rename="camel"):
    """A change of what is watched, from one version of it to another."""

    base_version: _Counter
    new_version: _Counter
    modifications: list[Modification]


class Mutation(msgspec.Struct, rename="camel"):
    """A mutation to run, after those before it."""

    request_id: _Counter
    udf_path: str
    args: msgspec.Raw = msgspec.Raw(b"[{}]")
    component_path: str | None = None


class Action(msgspec.Struct, rename="camel"):
    """An action to run."""

    request_id: _Counter
    udf_path: str
    args: msgspec.Raw = msgspec.Raw(b"[{}]")
    component_path: str | None = None


ClientMessage = Connect | Authenticate | ModifyQuerySet | Mutation | Action


class _Named(msgspec.Struct):
    type: str


_NAME: Final = msgspec.json.Decoder(_Named)
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.__name__: msgspec.json.Decoder(kind) for kind in (Connect, Authenticate, ModifyQuerySet, Mutation, Action)
}


def read_message(text: bytes) -> ClientMessage | None:
    """What a client said; None for what needs no answer (telemetry, and kinds that are not known). Raises ProtocolError."""
    try:
        kind = _NAME.decode(text).type
        decoder = _DECODERS.get(kind)
        return None if decoder is None else decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"A message can't be read: {error}") from None


def read_timestamp(text: str) -> int:
    """A timestamp in its form on the wire: 8 bytes, little-endian, in base64. Raises ProtocolError."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != 8:
        raise ProtocolError(f"{text[:40]!r} is no timestamp: 8 bytes in base64 are expected")
    return int.from_bytes(decoded, "little")


# --- What they are told


class Version(NamedTuple):
    """What a client has been told: the version of its query set, of its identity, and the timestamp of all values."""

    query_set: int
    identity: int
    timestamp: int


START: Final = Version(0, 0, 0)


class Transition(NamedTuple):
    """From one version to the next, with the values that are other than before."""

    start: Version
    end: Version
    updates: tuple[tuple[int, Content], ...] = ()
    removed: tuple[int, ...] = ()
    clock_skew: int | None = None
    """The client's clock minus the server's in ms, told when the identity changes."""


class MutationResponse(NamedTuple):
    """How a mutation ended: with a result and the timestamp of its commit, or with what a client is told of its error."""

    request_id: int
    timestamp: int | None
    value: bytes | None
    error: str | None = None
    error_data: bytes | None = None
    log_lines: Sequence[str] = ()


class ActionResponse(NamedTuple):
    """How an action ended."""

    request_id: int
    value: bytes | None
    error: str | None = None
    error_data: bytes | None = None
    log_lines: Sequence[str] = ()


class AuthError(NamedTuple):
    """The client is not who it says, or not any more."""

    error: str
    base_version: int
    update_attempted: bool


class FatalError(NamedTuple):
    """The client broke the protocol; the conversation is over."""

    error: str


class Ping(NamedTuple):
    """A sign of life."""


ServerMessage = Transition | MutationResponse | ActionResponse | AuthError | FatalError | Ping


class Encoded:
    """A message as it goes over the wire; `frame` is room for the socket, so that many clients share it."""

    __slots__ = ("frame", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.frame: bytes | None = None


PING: Final = Encoded(b'{"type":"Ping"}')

T = TypeVar("T")


def encode(message: ServerMessage) -> Encoded:
    """The message's JSON text."""
    match message:
        case Transition():
            return Encoded(_transition(message))
        case MutationResponse():
            timestamp = b"null" if message.timestamp is None else b'"' + _timestamp(message.timestamp) + b'"'
            return Encoded(_response(b"MutationResponse", message) + b',"ts":' + timestamp + b"}")
        case ActionResponse():
            return Encoded(_response(b"ActionResponse", message) + b"}")
        case AuthError():
            told = {
                "type": "AuthError",
                "error": message.error,
                "baseVersion": message.base_version,
                "authUpdateAttempted": message.update_attempted,
            }
            return Encoded(msgspec.json.encode(told))
        case FatalError():
            return Encoded(b'{"type":"FatalError","error":' + encode_text(message.error) + b"}")
        case Ping():
            return PING


def chunks(payload: bytes, transition_id: str) -> list[Encoded]:
    """A long transition in parts, for clients that know how to put them together."""
    text = payload.decode()
    parts = [text[start : start + MAX_CHUNK] for start in range(0, len(text), MAX_CHUNK)]
    return [
        Encoded(
            msgspec.json.encode(
                {
                    "type": "TransitionChunk",
                    "chunk": part,
                    "partNumber": number,
                    "totalParts": len(parts),
                    "transitionId": transition_id,
                }
            )
        )
        for number, part in enumerate(parts)
    ]


def _transition(message: Transition) -> bytes:
    modifications = [_update(query_id, content) for query_id, content in message.updates]
    modifications += [b'{"type":"QueryRemoved","queryId":%d}' % query_id for query_id in message.removed]
    skew = b"" if message.clock_skew is None else b',"clientClockSkew":%d' % message.clock_skew
    return b"".join(
        (
            b'{"type":"Transition","startVersion":',
            _version(message.start),
            b',"endVersion":',
            _version(message.end),
            b',"modifications":[',
            b",".join(modifications),
            b"]",
            skew,
            b"}",
        )
    )


def _update(query_id: int, content: Content) -> bytes:
    if content.encoded is None:
        lines = b',"logLines":' + _lines(content.log_lines) + b',"journal":'
        journal = b"null}" if content.journal is None else encode_text(content.journal) + b"}"
        if content.value is not None:
            content.encoded = b',"value":' + content.value + lines + journal
        else:
            content.encoded = b',"errorMessage":' + encode_text(content.error or "") + lines + journal[:-1]
            if content.error_data is not None:
                content.encoded += b',"errorData":' + content.error_data
            content.encoded += b"}"
    kind = b"QueryFailed" if content.value is None else b"QueryUpdated"
    return b'{"type":"' + kind + b'","queryId":%d' % query_id + content.encoded


def _response(kind: bytes, message: MutationResponse | ActionResponse) -> bytes:
    begin = b'{"type":"' + kind + b'","requestId":%d,"success":' % message.request_id
    if message.error is None:
        end = b'true,"result":' + (message.value or b"null")
    else:
        end = b'false,"result":' + encode_text(message.error)
        if message.error_data is not None:
            end += b',"errorData":' + message.error_data
    return begin + end + b',"logLines":' + _lines(message.log_lines)


def _version(version: Version) -> bytes:
    return b'{"querySet":%d,"identity":%d,"ts":"%b"}' % (*version[:2], _timestamp(version.timestamp))


@lru_cache(maxsize=64)
def _timestamp(timestamp: int) -> bytes:
    return base64.b64encode(timestamp.to_bytes(8, "little"))


def _lines(lines: Sequence[str]) -> bytes:
    return b"[" + b",".join(map(encode_text, lines)) + b"]" if lines else b"[]"
