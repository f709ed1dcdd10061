"""Function calls as they arrive over HTTP: from a request's body to path, arguments and format (protocol 4.1)."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec

from camber.errors import InvalidValueError, RequestError
from camber.server.formats import CLEAN, Format, format_named
from camber.values import parse_json

BATCH_SIZE: Final = 100
"""Queries of one `/api/query_batch`."""

_QUERY_STRING_BYTES: Final = 64 * 1024

T = TypeVar("T", bound="Body")


class Body(msgspec.Struct):
    """The outer object of a request's body. Fields that it does not know are ignored: newer clients may send more."""


class CallBody(Body):
    """A function call; `args` stays as it was sent, since the backend judges it."""

    path: str
    args: msgspec.Raw
    format: str | None = None
    componentPath: str | None = None


class CallBodyAt(CallBody):
    """A query at a timestamp that `/api/query_ts` gave out."""

    ts: str = ""


class RunBody(Body):
    """A call whose path is in the URL."""

    args: msgspec.Raw
    format: str | None = None


class BatchBody(Body):
    """Several queries of one moment."""

    queries: list[CallBody]


class ChangesBody(Body):
    """Changes of environment variables, judged by the function that carries them out."""

    changes: msgspec.Raw


class SqlBody(Body):
    """A statement to read the data with."""

    statement: str
    limit: int = 1_000


class Call:
    """One function call: `path` and `args` exactly as they arrived; `format` None where the request does not say."""

    __slots__ = ("args", "format", "path")

    def __init__(self, path: str, args: bytes, format: Format | None) -> None:
        self.path, self.args, self.format = path, args, format


_CALL: Final = msgspec.json.Decoder(CallBody)
_CALL_AT: Final = msgspec.json.Decoder(CallBodyAt)
_RUN: Final = msgspec.json.Decoder(RunBody)
_BATCH: Final = msgspec.json.Decoder(BatchBody)
_CHANGES: Final = msgspec.json.Decoder(ChangesBody)
_SQL: Final = msgspec.json.Decoder(SqlBody)


class _PlainCallBody(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    args: msgspec.Raw
    format: str | None = None


_PLAIN_CALL: Final = msgspec.json.Decoder(_PlainCallBody)


def read_call(body: bytes) -> Call:
    """The call in a request's body. Raises RequestError 400, which says what is wrong and where."""
    try:
        sent = _PLAIN_CALL.decode(body)
        args = bytes(sent.args)
        if _names_each_field_once(body, args):
            return Call(sent.path, args, None if sent.format is None else format_named(sent.format))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return _call(_decode(_CALL, body))


def read_call_at(body: bytes) -> tuple[Call, int]:
    """A call and the timestamp at which it is to run. Raises RequestError 400."""
    sent = _decode(_CALL_AT, body)
    return _call(sent), _timestamp(sent.ts)


def read_run(path: str, body: bytes) -> Call:
    """The call of `/api/run/<path>`: the last part of the path names the function, the default format is clean JSON.

    Raises RequestError 400.
    """
    sent = _decode(_RUN, body)
    module, slash, function = path.rpartition("/")
    name = f"{module}:{function}" if slash and ":" not in function else path
    return Call(name, bytes(sent.args), CLEAN if sent.format is None else format_named(sent.format))


def read_batch(body: bytes) -> list[Call]:
    """The calls of a batch, `BATCH_SIZE` at most. Raises RequestError 400."""
    calls = _decode(_BATCH, body).queries
    if len(calls) > BATCH_SIZE:
        raise RequestError(
            400, "TooManyQueries", f"A batch holds {BATCH_SIZE} queries at most; this one has {len(calls)}."
        )
    return [_call(call) for call in calls]


def read_changes(body: bytes) -> bytes:
    """Changes of environment variables, as the arguments of the function that carries them out. Raises RequestError 400."""
    return b'{"changes":' + bytes(_decode(_CHANGES, body).changes) + b"}"


def read_sql(body: bytes) -> SqlBody:
    """A statement and how many rows of its result are wanted. Raises RequestError 400."""
    sent = _decode(_SQL, body)
    if sent.limit < 1:
        raise RequestError(400, "BadJsonBody", f"limit must be at least 1, not {sent.limit}")
    return sent


def read_query_string(query: bytes) -> Call:
    """The call of a GET: `path`, `args` (JSON; without it no arguments) and `format`. Raises RequestError 400."""
    if len(query) > _QUERY_STRING_BYTES:
        raise RequestError(
            400, "BadQueryString", f"The query string is longer than {_QUERY_STRING_BYTES} bytes; use POST."
        )
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise RequestError(
            400, "BadQueryString", "The query string can't be read: percent-encoded UTF-8 is expected."
        ) from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise RequestError(400, "BadQueryString", "The query string gives a parameter twice.")
    if "path" not in given:
        raise RequestError(400, "BadQueryString", "The query string has no parameter `path`, the function to run.")
    return Call(
        given["path"], given.get("args", "{}").encode(), format_named(given["format"]) if "format" in given else None
    )


def _call(sent: CallBody) -> Call:
    if sent.componentPath:
        raise RequestError(
            400,
            "NotOfferedYet",
            f"There are no components here: leave componentPath out (it is {sent.componentPath!r}).",
        )
    return Call(sent.path, bytes(sent.args), None if sent.format is None else format_named(sent.format))


def _names_each_field_once(body: bytes, args: bytes) -> bool:
    """Whether the outer object surely has no doubled key: the decoder would take the last one without a word.

    What is around the arguments is short, so this costs little however long they are. False means: look closely.
    """
    if body.count(args) != 1:
        return False
    start = body.find(args)
    around = body[:start] + body[start + len(args) :]
    if b"\\" in around:
        return False
    return around.count(b'"path"') == 1 and around.count(b'"args"') == 1 and around.count(b'"format"') <= 1


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        sent = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The strict reader says best where broken JSON is broken; what it lets pass has the wrong shape.
        _judge(body)
        _refuse(str(error))
    _judge(body)
    return sent


def _judge(body: bytes) -> None:
    try:
        parse_json(body)
    except InvalidValueError as error:
        _refuse(str(error))


def _refuse(problem: str) -> NoReturn:
    raise RequestError(400, "BadJsonBody", f"The request's body is not as expected: {problem}")


def _timestamp(text: str) -> int:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != 8:
        raise RequestError(
            400, "BadTimestamp", "ts must be what /api/query_ts answered: 8 bytes, little-endian, in base64."
        )
    return int.from_bytes(decoded, "little")
