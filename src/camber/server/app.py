"""The ASGI applications of a deployment: the API (port 3210) and the site (port 3211), for our own server or inside another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from camber.backend import Backend
from camber.errors import RequestError, StorageError
from camber.server.admin_keys import AdminKeys, SecretFile
from camber.server.answers import (
    CLOSE,
    Answer,
    Headers,
    Origins,
    answer_to,
    error_answer,
    preflight_answer,
    text_answer,
)
from camber.server.asgi import ASGIApp, Message, Receive, Scope, Send
from camber.server.bodies import Bodies, BodyTooLargeError, ClientGoneError
from camber.server.credentials import NotVerifiedYetError
from camber.server.endpoints import CALLS, Endpoints, Handler, Methods
from camber.server.not_offered import refusal
from camber.server.reloaded import Reload
from camber.server.reloading import Reloader
from camber.server.requests import Request
from camber.server.shared_secret import SharedSecret
from camber.server.sockets import SyncDoor, refuse_socket, serve_asgi

_NO_HTTP_ACTIONS: Final = "This Convex deployment does not have HTTP actions enabled."
_TOO_LARGE: Final = text_answer("The request's body is too large.", CLOSE, status=413)

_log = logging.getLogger("camber.server")


def create_app(backend: Backend, *, reload: Reload | None = None) -> Api:
    """The API of a deployment as one ASGI application, which can be mounted in another one.

    It needs no lifespan events, but takes them. Whoever opened `backend` closes it. `reload` is what the operator's request to load the
    code anew does, if not just that in this process. Where servers share the data the admin key is found out here, which raises
    DataFolderError and StorageError.
    """
    return Api(backend, reload or Reloader(backend).reload)


def create_site_app(backend: Backend) -> ASGIApp:  # noqa: ARG001  the routes of the application will come from it
    """The application's own HTTP routes as one ASGI application. There are none yet: everything is answered 404."""
    return _site


class Api:
    """Finds the endpoint for each request, and turns whatever comes of it into an answer."""

    def __init__(self, backend: Backend, reload: Reload) -> None:
        settings = backend.settings
        self._backend = backend
        self._bodies = Bodies(settings)
        self._origins = Origins()
        self._most_headers = settings.header_count
        self._loop: asyncio.AbstractEventLoop | None = None
        secret = SharedSecret(backend) if backend.is_shared else SecretFile(backend.data)
        self._endpoints = Endpoints(backend, self._bodies, AdminKeys(secret.look), reload)
        self._routes = self._endpoints.routes()
        self.sync = SyncDoor(backend, self._endpoints.credentials, self._endpoints.addresses)
        """Where live clients come in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            if self._loop is None:
                self._attach()
            await serve_asgi(self.sync, _path_of(scope), scope, receive, send)
        elif kind == "lifespan":
            with suppress(asyncio.CancelledError):  # a server that is told twice to stop waits for nothing
                await self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._loop is None:
            self._attach()
        request = Request(scope, receive, _path_of(scope))
        try:
            request.check_headers(self._most_headers)
            answer = await self._handler(request)(request)
        except ClientGoneError:
            return
        except BodyTooLargeError:
            await self._refuse_body(request, send)
            return
        except asyncio.CancelledError:
            # The server stops and does not wait any longer. Whether a mutation will still be committed is open.
            answer = _cut_short(request.path)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer and the log the reason
            answer = self._refusal(request, error)
        finally:
            if request.held:
                self._bodies.release(request)
        await send({"type": "http.response.start", "status": answer.status, "headers": self._headers(request, answer)})
        await send({"type": "http.response.body", "body": answer.body})

    def take(self, scope: Scope, body: bytes, done: Callable[[int, Headers, bytes], None]) -> bool:
        """Begin with a request that is all there, without a task of its own; False if it is not one that can go this way.

        That is a call of a function. `done` gets status, headers and body of the answer, often before this returns.
        """
        path = _path_of(scope)
        if scope["method"] != "POST" or path not in CALLS or len(body) > self._backend.settings.request_body_bytes:
            return False
        if self._loop is None:
            self._attach()
        request = Request(scope, _nothing_more, path)

        def answered(result: Answer | Exception) -> None:
            answer = result if isinstance(result, Answer) else self._refusal(request, result)
            done(answer.status, self._headers(request, answer), answer.body)

        try:
            request.check_headers(self._most_headers)
            self._endpoints.call(request, body, CALLS[path], answered)
        except NotVerifiedYetError:
            return False
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer and the log the reason
            answered(error)
        return True

    def stop(self) -> None:
        """The server stops: say so, and answer those who wait for something that may never happen."""
        self._endpoints.stop()

    def send_all_away(self) -> None:
        """It has waited long enough for what live clients asked for."""
        for worker in list(self.sync.hub.workers):
            worker.send_away()

    def cut_short(self, scope: Scope) -> tuple[int, Headers, bytes]:
        """The answer to a request that `take` began and that the server does not wait for any longer."""
        request = Request(scope, _nothing_more, _path_of(scope))
        answer = _cut_short(request.path)
        return answer.status, self._headers(request, answer), answer.body

    def _handler(self, request: Request) -> Handler:
        methods = self._routes.get(request.path)
        if methods is None:
            methods = self._endpoints.routes_below(request.path)
        if methods is None:
            return _not_here
        handler = methods.get(request.method)
        if handler is None:
            return _preflight if request.method == "OPTIONS" else _wrong_method(methods)
        return handler

    def _headers(self, request: Request, answer: Answer) -> Headers:
        headers = [*answer.headers, (b"convex-request-id", request.id.encode())]
        origin = request.headers.get(b"origin")
        if origin is not None and request.path.startswith("/api/"):
            headers += self._origins.headers(origin)
        return headers

    def _refusal(self, request: Request, error: Exception) -> Answer:
        answer = answer_to(error)
        about = {"request_id": request.id, "path": request.path}
        if isinstance(error, StorageError):
            _log.error("request failed", extra={**about, "reason": str(error)})
            if answer.status == 500 and self._backend.ready() is not None:
                return _stopping()
        elif answer.status == 500:
            _log.error("request failed", exc_info=error, extra=about)
        return answer

    async def _refuse_body(self, request: Request, send: Send) -> None:
        headers = self._headers(request, _TOO_LARGE)
        await send({"type": "http.response.start", "status": _TOO_LARGE.status, "headers": headers})
        await send({"type": "http.response.body", "body": _TOO_LARGE.body, "more_body": True})
        await self._bodies.discard(request.receive)
        await send({"type": "http.response.body", "body": b""})

    def _attach(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._backend.attach(self._loop)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._attach()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return


def _path_of(scope: Scope) -> str:
    """The path behind the mount point. Newer servers leave the mount point in `path`, older ones cut it off."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    if root and path.startswith(root) and path[len(root) :][:1] in {"", "/"}:
        return path[len(root) :] or "/"
    return path


async def _nothing_more() -> Message:
    raise AssertionError("the whole body is there already")


async def _not_here(request: Request) -> Answer:
    if (not_offered := refusal(request.path)) is not None:
        if request.method == "OPTIONS":
            return await _preflight(request)
        raise not_offered
    if request.path.startswith("/http/"):
        return text_answer(_NO_HTTP_ACTIONS, status=404)
    raise RequestError(404, "NotFound", f"There is nothing at {request.path}.")


async def _preflight(request: Request) -> Answer:
    return preflight_answer(request.headers.get(b"access-control-request-headers"))


def _wrong_method(methods: Methods) -> Handler:
    allowed = ", ".join(methods)

    async def refuse(request: Request) -> Answer:
        raise RequestError(
            405,
            "MethodNotAllowed",
            f"{request.path} takes {allowed}, not {request.method}.",
            headers={"Allow": allowed},
        )

    return refuse


def _cut_short(path: str) -> Answer:
    if path.startswith(("/api/query", "/api/stream_function_logs", "/healthz", "/readyz")):
        return _stopping()
    return error_answer(503, "CommitUnknown", "The server stopped before it knew how this call ended.")


def _stopping() -> Answer:
    return error_answer(503, "ShuttingDown", "The server is stopping. Try again in a moment.", {"Retry-After": "1"})


async def _site(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        with suppress(asyncio.CancelledError):
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await refuse_socket(_path_of(scope), scope, receive, send)
    elif scope["type"] == "http":
        answer = text_answer(_NO_HTTP_ACTIONS, status=404)
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body})
