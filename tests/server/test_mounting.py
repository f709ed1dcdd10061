"""The applications as plain ASGI: inside other applications, with and without lifespan, and asked for a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from camber.server import create_site_app
from camber.server.asgi import ASGIApp, Message
from tests.server.asking import Client, call


@pytest.mark.parametrize("root_path", ["", "/backend", "/a/b"])
def test_it_answers_below_any_path(client: Client, root_path: str) -> None:
    answered = client.post(f"{root_path}/api/query", call("notes:same", {"value": 1}), root_path=root_path)
    assert answered.json["value"] == 1
    assert client.get(root_path or "/", root_path=root_path).status == 200


def test_it_answers_where_the_server_has_cut_the_mount_point_off(client: Client) -> None:
    assert client.get("/version", root_path="/backend").status == 200
    assert client.get("/version", root_path="/vers").status == 200


def test_it_can_be_mounted_in_another_application(client: Client) -> None:
    outer = Client(Starlette(routes=[Mount("/backend", client.app)]), client.runner, client.backend)
    assert outer.post("/backend/api/query", call("notes:same", {"value": 1})).json["value"] == 1
    assert outer.post("/backend/api/nope").code == "NotFound"


def test_it_takes_lifespan_events(client: Client) -> None:
    for app in (client.app, create_site_app(client.backend)):
        said = client.runner.run(_tell(app, {"type": "lifespan"}, "lifespan.startup", "lifespan.shutdown"))
        assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("path", ["/x", "/api/query", "/api/sync/x"])
def test_a_web_socket_elsewhere_is_refused_with_the_reason(client: Client, path: str) -> None:
    scope = {"type": "websocket", "path": path, "headers": []}
    (closed,) = client.runner.run(_tell(client.app, scope, "websocket.connect"))
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert "NotFound" in closed["reason"]

    start, body = client.runner.run(
        _tell(client.app, {**scope, "extensions": {"websocket.http.response": {}}}, "websocket.connect")
    )
    assert start["status"] == 404
    assert b"NotFound" in body["body"]


async def _tell(app: ASGIApp, scope: dict[str, Any], *events: str) -> list[Message]:
    coming = list(events)
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": coming.pop(0)}

    async def send(message: Message) -> None:
        said.append(message)

    await asyncio.wait_for(app(scope, receive, send), 60)
    return said
