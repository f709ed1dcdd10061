"""What is sent back: answers as values, the bodies of protocol 4.2 and 4.6, and the headers that let browsers read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from camber.backend import Outcome, SqlResult
from camber.errors import CommitUnknownError, DatabaseUnreachableError, DiskFullError, RequestError
from camber.server.formats import Format
from camber.values import encode_text

Headers = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
CLOSE: Final = (b"connection", b"close")

_METHODS: Final = (b"access-control-allow-methods", b"GET,POST,OPTIONS,PATCH,DELETE,PUT")
_MAX_AGE: Final = (b"access-control-max-age", b"86400")
_REMEMBERED_ORIGINS: Final = 1_024
_MIRRORED_BYTES: Final = 1_024
_NO_LOG_LINES: Final = b',"logLines":[]}'


class Answer:
    """Status, headers and body of a response; `headers` has the length already."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status, self.body = status, body
        self.headers = (*headers, (b"content-length", b"%d" % len(body)))


def json_answer(content: object, *, status: int = 200) -> Answer:
    """An answer with `content` as JSON."""
    return Answer(status, msgspec.json.encode(content), JSON)


def text_answer(text: str, *headers: tuple[bytes, bytes], status: int = 200) -> Answer:
    """An answer in plain text."""
    return Answer(status, text.encode(), TEXT, *headers)


def error_answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A refused request: `{code, message}` (protocol 4.6)."""
    more = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return Answer(status, b'{"code":' + encode_text(code) + b',"message":' + encode_text(message) + b"}", JSON, *more)


def answer_to(error: Exception) -> Answer:
    """The one place where an error becomes a status; what camber did not raise on purpose shows no details."""
    match error:
        case RequestError():
            return error_answer(error.status, error.short_code, error.message, error.headers)
        # Their own texts are for the operator: they name files.
        case CommitUnknownError():
            return error_answer(503, error.code, "The disk failed: it is not known whether this call took effect.")
        case DiskFullError():
            return error_answer(503, error.code, "The server's disk is full. Nothing was written.")
        case DatabaseUnreachableError():
            message = "The database can't be reached just now. Nothing was written. Try again in a moment."
            return error_answer(503, error.code, message, {"Retry-After": "1"})
        case _:
            return error_answer(500, "InternalServerError", "Your request couldn't be completed. Try again later.")


def outcome_answer(outcome: Outcome, format: Format) -> Answer:
    """How a call ended: status 200 for both ends, `errorData` only where the function raised a ConvexError (protocol 4.2)."""
    return Answer(200, outcome_body(outcome, format), JSON)


def outcome_body(outcome: Outcome, format: Format) -> bytes:
    """The JSON text of protocol 4.2."""
    if outcome.value is not None:
        end = b'{"status":"success","value":' + format.rewrite(outcome.value)
    else:
        end = b'{"status":"error","errorMessage":' + encode_text(outcome.error or "")
        if outcome.error_data is not None:
            end += b',"errorData":' + format.rewrite(outcome.error_data)
    return end + (_log_lines(outcome.log_lines) if outcome.log_lines else _NO_LOG_LINES)


def sql_answer(result: SqlResult) -> Answer:
    """A result of SQL: `{columns, rows, more}`. Whole numbers are bare, bytes are `{"$bytes": base64}`, special floats text."""
    rows = [[_cell(value) for value in row] for row in result.rows]
    return json_answer({"columns": result.columns, "rows": rows, "more": result.more})


class Origins:
    """The CORS headers for each `Origin`, which is mirrored: keys and tokens travel in headers, never in cookies (protocol 4.6)."""

    def __init__(self) -> None:
        self._headers: dict[bytes, Headers] = {}

    def headers(self, origin: bytes) -> Headers:
        """What lets a page of this origin read the answer. Not to be changed by who gets it."""
        if (known := self._headers.get(origin)) is not None:
            return known
        if len(origin) > _MIRRORED_BYTES:
            return []
        if len(self._headers) >= _REMEMBERED_ORIGINS:
            self._headers.clear()
        allowed = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"vary", b"Origin"),
        ]
        self._headers[origin] = allowed
        return allowed


def preflight_answer(requested_headers: bytes | None) -> Answer:
    """The answer to a browser's OPTIONS; `Access-Control-Request-Headers` is mirrored."""
    more: Headers = [_METHODS, _MAX_AGE]
    if requested_headers is not None and len(requested_headers) <= _MIRRORED_BYTES:
        more.append((b"access-control-allow-headers", requested_headers))
    return Answer(200, b"", *more)


def _cell(value: object) -> object:
    if isinstance(value, bytes):
        return {"$bytes": value}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _log_lines(lines: Iterable[str]) -> bytes:
    return b',"logLines":[' + b",".join(map(encode_text, lines)) + b"]}"
