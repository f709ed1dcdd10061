"""The floor under live queries on an ASGI server: a bare application that sends what is posted to every WebSocket, unread.

Who subscribes gets the latest text. There is no database, no query, no topic; nothing in Python on uvicorn's WebSockets is faster.
"""

from __future__ import annotations

from typing import Any

LATEST: dict[str, str] = {"type": "websocket.send", "text": '{"crowdfundingActive":false}'}
subscribers: dict[Any, None] = {}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A WebSocket that subscribes, or a request, whose body is sent to all who have."""
    if scope["type"] == "websocket":
        await subscribe(receive, send)
    elif scope["type"] == "http":
        if scope["method"] == "POST":
            await broadcast(await body_of(receive))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def subscribe(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    try:
        while (await receive())["type"] == "websocket.receive":
            subscribers[send] = None
            await send(LATEST)
    finally:
        subscribers.pop(send, None)


async def broadcast(text: bytes) -> None:
    LATEST["text"] = text.decode()
    message = dict(LATEST)
    for send in list(subscribers):
        try:
            await send(message)
        except OSError:  # it has gone meanwhile
            subscribers.pop(send, None)


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
