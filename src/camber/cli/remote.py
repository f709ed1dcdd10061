"""A deployment that answers over HTTP, with its admin key."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, cast
from urllib.parse import urlsplit

from camber.cli.targets import Answer, Rows
from camber.errors import ConfigurationError, FunctionError, LoadError, RequestError, SchemaMismatchError

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 660.0
"""Somewhat longer than an action may take (600 s), so that the server's own word on that arrives."""

LONG_POLL_SECONDS: Final = 90.0
"""Somewhat longer than a server lets anybody wait for something to happen."""

_KEY: Final = re.compile(r"[!-~]{1,4096}")


class LostConnectionError(ConfigurationError):
    """Nothing answers where the server should be. It may come back."""


class EndedRuns(NamedTuple):
    """Runs of functions in the form of protocol 6.5, oldest first; `missed` where the server does not remember all that were asked for."""

    entries: list[dict[str, Any]]
    cursor: float
    missed: bool


class Reloaded(NamedTuple):
    """What is different since a server loaded its code anew, what to look at, and how many processes have it."""

    changes: list[str]
    warnings: list[str]
    workers: int


class RemoteTarget:
    """A server; see `Target`. `source` says where its address comes from. The key appears in no message."""

    def __init__(self, url: str, admin_key: str, *, source: str) -> None:
        if _KEY.fullmatch(admin_key) is None:
            raise ConfigurationError(
                f"the admin key ({source}) is no key: it has spaces or other characters that no key has"
            )
        self._url, self._key, self._source = url.rstrip("/"), admin_key, source
        self._connection, self._root = _connection(url, source)

    @property
    def name(self) -> str:
        return self._url

    @property
    def admin_key(self) -> str:
        """The operator's key, for those who speak to the server in another way."""
        return self._key

    def call(self, path: str, args: str = "{}", *, identity: Mapping[str, object] | None = None) -> Answer:
        body = f'{{"path":{json.dumps(path)},"format":"convex_encoded_json","args":{args}}}'
        answered = self._post("/api/function", body, identity, f"{path} was carried out")
        found = cast("dict[str, Any]", answered)
        lines: list[str] = found.get("logLines") or []
        if found.get("status") == "success":
            return Answer(found.get("value"), None, lines)
        return Answer(None, str(found.get("errorMessage", "")), lines)

    def sql(self, statement: str, *, limit: int) -> Rows:
        answered = self._post(
            "/api/camber/sql", json.dumps({"statement": statement, "limit": limit}), None, "it was run"
        )
        if isinstance(answered, list):  # a named tuple travels as an array
            columns, rows, more = cast("tuple[list[str], list[list[object]], bool]", answered)
        else:
            found = cast("dict[str, Any]", answered)
            columns, rows, more = found["columns"], found["rows"], found["more"]
        return Rows(columns, rows, more)

    def ended_runs(self, cursor: float) -> EndedRuns:
        """The runs of functions that ended since this cursor, 0 for all that the server remembers; where there are none, it waits for one.

        Raises LostConnectionError where the server went away.
        """
        headers = {"Authorization": f"Convex {self._key}"}
        self._connect(LONG_POLL_SECONDS)
        try:
            self._connection.request("GET", f"{self._root}/api/stream_function_logs?cursor={cursor!r}", headers=headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise LostConnectionError(f"{self._url} gave no answer ({error or type(error).__name__})") from error
        answered = _json_of(content)
        if response.status != http.client.OK or not isinstance(answered, dict):
            raise self._refusal(response.status, answered)
        found = cast("dict[str, Any]", answered)
        return EndedRuns(found["entries"], float(found["newCursor"]), bool(found.get("missed")))

    def reload(self) -> Reloaded:
        """Have it load its code anew. Raises LoadError, SchemaMismatchError, RequestError: then the code before goes on."""
        status, answered = self._exchange("/api/camber/reload", "{}", None, "the code was loaded anew")
        found = cast("dict[str, Any]", answered) if isinstance(answered, dict) else {}
        if status == http.client.OK and "workers" in found:
            return Reloaded(found["changes"], found["warnings"], int(found["workers"]))
        problems = [str(problem) for problem in found.get("problems", [])]
        match found.get("code"):
            case "LoadError":
                raise LoadError(problems)
            case "SchemaMismatch":
                raise SchemaMismatchError(problems, total=int(found["total"]))
            case "ReloadIncomplete" if problems:
                raise RequestError(status, "ReloadIncomplete", "\n  ".join([str(found["message"]), *problems]))
            case _:
                raise self._refusal(status, found)

    def answers(self) -> bool:
        """Whether a deployment is there right now."""
        try:
            self._connection.timeout = CONNECT_SECONDS
            self._connection.request("GET", f"{self._root}/instance_name")
            response = self._connection.getresponse()
            response.read()
            return response.status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, body: str, identity: Mapping[str, object] | None, in_doubt: str) -> object:
        status, answered = self._exchange(path, body, identity, in_doubt)
        if status == http.client.OK and answered is not None:
            return answered
        raise self._refusal(status, answered)

    def _exchange(
        self, path: str, body: str, identity: Mapping[str, object] | None, in_doubt: str
    ) -> tuple[int, object]:
        headers = {"Content-Type": "application/json", "Authorization": f"Convex {self._key}{_impersonating(identity)}"}
        self._connect()
        try:
            self._connection.request("POST", self._root + path, body.encode("utf-8", "surrogatepass"), headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            why = str(error) or type(error).__name__
            raise FunctionError(f"{self._url} gave no answer ({why}): whether {in_doubt} is not known") from error
        return response.status, _json_of(content)

    def _connect(self, answer_seconds: float = ANSWER_SECONDS) -> None:
        if self._connection.sock is not None:
            return
        try:
            self._connection.timeout = CONNECT_SECONDS
            self._connection.connect()
            cast("socket.socket", self._connection.sock).settimeout(answer_seconds)
        except OSError as error:
            raise LostConnectionError(
                f"nothing answers at {self._url} ({self._source}): {error.strerror or error}. Is the server running?"
            ) from error

    def _refusal(self, status: int, answered: object) -> Exception:
        said = cast("dict[str, object]", answered) if isinstance(answered, dict) else {}
        code, message = str(said.get("code", "")), str(said.get("message", ""))
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return ConfigurationError(
                f"{self._url} refuses the admin key ({self._source}): {message or f'status {status}'}"
            )
        if not code:
            return ConfigurationError(
                f"{self._url} ({self._source}) answers with status {status}, but not as a deployment does: is the address right?"
            )
        return RequestError(status, code, message)


def _connection(url: str, source: str) -> tuple[http.client.HTTPConnection, str]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            return kind(parts.hostname, parts.port), parts.path.rstrip("/")
    raise ConfigurationError(f"{url!r} ({source}) is no address of a deployment; it looks like http://127.0.0.1:3210")


def _impersonating(identity: Mapping[str, object] | None) -> str:
    """What stands behind the key to act as somebody (protocol 4.4)."""
    return "" if identity is None else ":" + base64.b64encode(json.dumps(identity).encode()).decode()


def _json_of(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None
