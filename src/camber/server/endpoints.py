"""What each path of the API does (protocol 4.1, 4.6)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from camber.backend import Backend, Outcome, Timestamp, settle
from camber.errors import RequestError, StorageError
from camber.identity import Caller
from camber.server.addresses import ClientAddresses
from camber.server.admin_keys import AdminKeys
from camber.server.answers import JSON, Answer, json_answer, outcome_answer, outcome_body, sql_answer, text_answer
from camber.server.bodies import Bodies
from camber.server.calls import (
    Call,
    read_batch,
    read_call,
    read_call_at,
    read_changes,
    read_query_string,
    read_run,
    read_sql,
)
from camber.server.clients import Clients
from camber.server.credentials import Credentials, token_in
from camber.server.formats import Format
from camber.server.function_logs import FunctionLogs, newer_answer, read_cursor
from camber.server.reloaded import Reload
from camber.server.requests import Request

Kind = Literal["query", "mutation", "action"]
Handler = Callable[[Request], Awaitable[Answer]]
Methods = dict[str, Handler]
Answered = Callable[[Answer | Exception], None]

CALLS: Final[Mapping[str, Kind | None]] = {
    "/api/query": "query",
    "/api/mutation": "mutation",
    "/api/action": "action",
    "/api/function": None,
}
"""The paths that take a call of a function in their body, and the kind of it; None is any kind, for the operator."""

ALLOWED_OPERATIONS: Final = ("run", "data", "env", "sql")
"""What `/api/check_admin_key` says the key is good for."""

_RUN: Final = "/api/run/"
_RUNNING: Final = "This Convex deployment is running. See https://docs.convex.dev/."
_OCTETS: Final = ((b"content-type", b"application/octet-stream"), (b"x-content-type-options", b"nosniff"))

_KNOWN_CALLS: Final = 1_024
_KNOWN_CALL_BYTES: Final = 2 * 1024
_KEPT_ANSWER_BYTES: Final = 16 * 1024


class _KnownCall:
    """A query that was sent before in the same bytes, and the answer to its last outcome."""

    __slots__ = ("answer", "call", "format", "outcome")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.outcome: Outcome | None = None
        self.format: Format | None = None
        self.answer: Answer | None = None

    def answer_for(self, outcome: Outcome, format: Format) -> Answer:
        """The kept answer where it is for this very outcome. Whether an outcome still holds, the backend has said."""
        if outcome is self.outcome and format is self.format and self.answer is not None:
            return self.answer
        answer = outcome_answer(outcome, format)
        if len(answer.body) <= _KEPT_ANSWER_BYTES:
            self.outcome, self.format, self.answer = outcome, format, answer
        return answer


class Endpoints:
    """The endpoints of one deployment."""

    def __init__(self, backend: Backend, bodies: Bodies, keys: AdminKeys, reload: Reload) -> None:
        settings = backend.settings
        self._backend = backend
        self._bodies = bodies
        self._load_anew = reload
        self._is_stopping = False
        self.credentials = Credentials(keys, backend.tokens)
        self._clients = Clients()
        self._function_logs = FunctionLogs(backend.run_records)
        self.addresses = ClientAddresses(settings.trusted_proxies)
        self._known: dict[bytes, _KnownCall] = {}
        self._most_running = settings.concurrent_requests
        self._running = 0

    def routes(self) -> Mapping[str, Methods]:
        """Exact path → method → handler."""
        read_only = {
            "/": _always(text_answer(_RUNNING)),
            "/version": _always(text_answer(_version())),
            "/instance_version": _always(text_answer(_version())),
            "/instance_name": _always(text_answer(self._backend.instance_name)),
            "/healthz": _always(text_answer("ok")),
            "/readyz": self._ready,
            "/api/check_admin_key": self._check_admin_key,
        }
        return {
            **{path: {"POST": self._calling(kind)} for path, kind in CALLS.items()},
            "/api/query": {"POST": self._calling("query"), "GET": self._query_by_get},
            "/api/query_ts": {"POST": self._query_ts},
            "/api/query_at_ts": {"POST": self._query_at_ts},
            "/api/query_batch": {"POST": self._query_batch},
            "/api/update_environment_variables": {"POST": self._update_environment},
            "/api/camber/sql": {"POST": self._sql},
            "/api/camber/reload": {"POST": self._reload},
            "/api/stream_function_logs": {"GET": self._stream_function_logs},
            "/echo": {"POST": self._echo},
            **{path: {"GET": handler, "HEAD": handler} for path, handler in read_only.items()},
        }

    def routes_below(self, path: str) -> Methods | None:
        """The handlers of `/api/run/<path>`; None for any other path."""
        return {"POST": self._run} if path.startswith(_RUN) and len(path) > len(_RUN) else None

    # Functions.
    def call(self, request: Request, body: bytes, kind: Kind | None, done: Answered) -> None:
        """Call the function that this body names, of this kind (None: of any, for the operator); `done` gets the answer.

        Where the answer is there at once, `done` is called before this returns. Raises what the request itself does wrong, and
        NotVerifiedYetError: the request can't be answered without waiting for who its caller is.
        """
        if kind == "query":
            known = self._known.get(body) or self._remember(body)
            call, answer_for = known.call, known.answer_for
            caller = self._caller(request)
        else:
            caller = self._admin(request) if kind is None else self._caller(request)
            call, answer_for = read_call(body), outcome_answer
        format = self._format(request, call)
        if kind != "query" or not self._backend.is_shared:
            self._call_now(request, call, caller, kind, partial(answer_for, format=format), done, is_entered=False)
            return
        self._enter()

        def is_current(error: Exception | None) -> None:
            try:
                if error is not None:
                    raise error
                self._call_now(request, call, caller, kind, partial(answer_for, format=format), done, is_entered=True)
            except Exception as failure:  # noqa: BLE001  whoever waits must be told something
                self._running -= 1
                done(failure)

        self._backend.when_current(is_current)

    def _call_now(
        self,
        request: Request,
        call: Call,
        caller: Caller,
        kind: Kind | None,
        answer_for: Callable[[Outcome], Answer],
        done: Answered,
        *,
        is_entered: bool,
    ) -> None:
        """Answer from the cache, or have the function run. `is_entered`: the request is counted as running already."""
        if kind == "query" and (outcome := self._backend.cached(call.path, call.args, caller)) is not None:
            self._running -= is_entered
            done(answer_for(outcome))
            return

        def ended(result: Outcome | Exception) -> None:
            self._running -= 1
            try:
                answer = answer_for(result) if isinstance(result, Outcome) else result
            except Exception as error:  # noqa: BLE001  whoever waits must be told something
                answer = error
            done(answer)

        if not is_entered:
            self._enter()
        try:
            self._backend.start(
                call.path, call.args, caller, ended, kind=kind, request_id=request.id, is_current=is_entered
            )
        except BaseException:
            self._running -= not is_entered
            raise

    async def _query_by_get(self, request: Request) -> Answer:
        return await self._answer(request, read_query_string(request.scope.get("query_string", b"")), "query")

    async def _run(self, request: Request) -> Answer:
        call = read_run(request.path[len(_RUN) :], await self._body(request))
        return await self._answer(request, call, None)

    async def _answer(self, request: Request, call: Call, kind: Kind | None) -> Answer:
        caller, format = await self._verified_caller(request), self._format(request, call)
        return outcome_answer(await self._outcome(request, call, caller, kind), format)

    # Queries of one moment.
    async def _query_ts(self, request: Request) -> Answer:  # noqa: ARG002  it has neither body nor credentials
        at = await self._backend.hold_snapshot()
        return json_answer({"ts": base64.b64encode(at.to_bytes(8, "little")).decode()})

    async def _query_at_ts(self, request: Request) -> Answer:
        call, at = read_call_at(await self._body(request))
        caller, format = await self._verified_caller(request), self._format(request, call)
        return outcome_answer(await self._outcome(request, call, caller, "query", at=Timestamp(at)), format)

    async def _query_batch(self, request: Request) -> Answer:
        calls = read_batch(await self._body(request))
        caller = await self._verified_caller(request)
        at = await self._backend.hold_snapshot()
        results = [
            outcome_body(await self._outcome(request, call, caller, "query", at=at), self._format(request, call))
            for call in calls
        ]
        return Answer(200, b'{"results":[' + b",".join(results) + b"]}", JSON)

    # The operator's.
    async def _check_admin_key(self, request: Request) -> Answer:
        self._admin(request)
        return json_answer({"success": True, "allowedOps": ALLOWED_OPERATIONS, "isReadOnly": False})

    async def _update_environment(self, request: Request) -> Answer:
        caller = self._admin(request)
        call = Call("_system/camber/environment:update", read_changes(await self._body(request)), None)
        outcome = await self._outcome(request, call, caller, "mutation")
        if not outcome.ok:
            raise RequestError(400, "InvalidEnvironmentVariables", str(outcome.exception or outcome.error))
        return Answer(200, b"")

    async def _sql(self, request: Request) -> Answer:
        self._admin(request)
        asked = read_sql(await self._body(request))
        self._enter()
        try:
            result = await self._backend.sql(asked.statement, limit=asked.limit)
        except StorageError as error:
            raise RequestError(400, "BadSql", str(error)) from error
        finally:
            self._running -= 1
        return sql_answer(result)

    async def _stream_function_logs(self, request: Request) -> Answer:
        self._admin(request)
        cursor = read_cursor(request.scope.get("query_string", b""))
        newer = await self._function_logs.newer(cursor, request.receive)
        self._admin(request)  # the key may have been replaced meanwhile
        return await newer_answer(newer)

    async def _reload(self, request: Request) -> Answer:
        self._admin(request)
        await self._body(request)
        outcome = await self._load_anew()
        return json_answer(outcome.body, status=outcome.status)

    def stop(self) -> None:
        """The server stops: say so, and answer those who wait for something that may never happen."""
        self._is_stopping = True
        self._function_logs.stop()

    # Small ones.
    async def _ready(self, request: Request) -> Answer:  # noqa: ARG002
        reason = "shutting down" if self._is_stopping else self._backend.ready()
        return text_answer("ready") if reason is None else text_answer(reason, status=503)

    async def _echo(self, request: Request) -> Answer:
        # As bytes, whatever was sent: a page that is echoed under this origin would run here.
        return Answer(200, await self._body(request), *_OCTETS)

    # Steps.
    def _calling(self, kind: Kind | None) -> Handler:
        async def handler(request: Request) -> Answer:
            if kind is None:
                self._admin(request)  # whoever has no key needs no body read
            body = await self._body(request)
            await self.credentials.verify(request.headers.get(b"authorization"))
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self.call(request, body, kind, partial(settle, future))
            return await future

        return handler

    async def _body(self, request: Request) -> bytes:
        return await self._bodies.read(request)

    def _remember(self, body: bytes) -> _KnownCall:
        known = _KnownCall(read_call(body))
        if len(body) <= _KNOWN_CALL_BYTES:
            if len(self._known) >= _KNOWN_CALLS:
                del self._known[next(iter(self._known))]
            self._known[body] = known
        return known

    def _caller(self, request: Request) -> Caller:
        headers, client = request.headers, request.scope.get("client")
        forwarded = request.values(b"x-forwarded-for") if b"x-forwarded-for" in headers else ()
        address = self.addresses.of(client[0] if client else None, forwarded)
        return self.credentials.caller(headers.get(b"authorization"), address)

    async def _verified_caller(self, request: Request) -> Caller:
        await self.credentials.verify(request.headers.get(b"authorization"))
        return self._caller(request)

    def _admin(self, request: Request) -> Caller:
        authorization = request.headers.get(b"authorization")
        if authorization is None or token_in(authorization) is None:  # a token makes nobody the operator
            try:
                caller = self._caller(request)
            except RequestError as error:
                if error.short_code != "BadAdminKey":
                    raise
            else:
                if caller.is_admin:
                    return caller
        raise RequestError(
            403,
            "BadDeployKey",
            f"The provided deploy key was invalid for deployment '{self._backend.instance_name}'. "
            "Double check that the environment this key was generated for matches the desired deployment.",
        )

    def _format(self, request: Request, call: Call) -> Format:
        default = self._clients.default_format(request.headers.get(b"convex-client"))
        return call.format or default

    async def _outcome(
        self, request: Request, call: Call, caller: Caller, kind: Kind | None, *, at: Timestamp | None = None
    ) -> Outcome:
        self._enter()
        try:
            return await self._backend.run(call.path, call.args, caller, kind=kind, request_id=request.id, at=at)
        finally:
            self._running -= 1

    def _enter(self) -> None:
        if self._running >= self._most_running:
            raise RequestError(
                503,
                "TooManyConcurrentRequests",
                f"The server is at work on {self._most_running} requests, as many as it takes at once. Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        self._running += 1


def _always(answer: Answer) -> Handler:
    async def handler(request: Request) -> Answer:  # noqa: ARG001
        return answer

    return handler


def _version() -> str:
    try:
        return version("camber")
    except PackageNotFoundError:
        return "unknown"
