"""Asking an ASGI application, as a server does, and what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from camber.backend import Backend
from camber.server import admin_key
from camber.server.asgi import ASGIApp, Message


@dataclass
class Reply:
    """What an application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The short word of a refused request; its message is never empty."""
        assert self.json["message"]
        return self.json["code"]


class Client:
    """Sends requests to an application on an event loop of its own."""

    def __init__(self, app: ASGIApp, runner: asyncio.Runner, backend: Backend) -> None:
        self.app, self.runner, self.backend = app, runner, backend

    @property
    def admin_key(self) -> str:
        return admin_key(self.backend.data)

    def post(self, path: str, content: object = None, **more: Any) -> Reply:
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        return self.ask("POST", path, parts=[body], **more)

    def get(self, path: str, **more: Any) -> Reply:
        return self.ask("GET", path, **more)

    def ask(self, method: str, path: str, **more: Any) -> Reply:
        return self.runner.run(ask(self.app, method, path, **more))

    def query(self, path: str, args: object = None, **more: Any) -> Any:
        return self.call("query", path, args, **more)

    def mutation(self, path: str, args: object = None, **more: Any) -> Any:
        return self.call("mutation", path, args, **more)

    def call(self, kind: str, path: str, args: object = None, **more: Any) -> Any:
        """The value of a call that must succeed."""
        answered = self.post(f"/api/{kind}", call(path, args), **more)
        assert answered.status == 200, answered
        assert answered.json["status"] == "success", answered
        return answered.json["value"]


def call(path: str, args: object = None, **more: object) -> dict[str, object]:
    """The body of a call, as the clients send it."""
    return {"path": path, "args": {} if args is None else args, "format": "convex_encoded_json", **more}


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    parts: Iterable[bytes] = (b"",),
    query: str = "",
    client: tuple[str, int] | None = ("192.0.2.1", 50_000),
    root_path: str = "",
    wait: Callable[[], Any] | None = None,
) -> Reply:
    """One request. After `parts`, the client waits for `wait()` (until it does, its body is unfinished) and then hangs up."""
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = wait is not None
    pairs = headers.items() if isinstance(headers, Mapping) else headers or []
    reply = Reply()

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        if wait is not None:
            await wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            reply.body += message["body"]

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": client,
    }
    await app(scope, receive, send)
    return reply
