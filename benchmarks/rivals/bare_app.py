"""The floor under any Python server: a bare ASGI application with msgspec under uvicorn, which answers a constant."""

from __future__ import annotations

from typing import Any

import msgspec


class Call(msgspec.Struct):
    path: str
    args: Any
    format: str = "json"


decode = msgspec.json.Decoder(Call).decode
encode = msgspec.json.Encoder().encode
STATE = {"crowdfundingActive": True, "key": "config"}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers every call with the application's state, and anything that is no call with an empty page."""
    if scope["type"] != "http":
        return
    body = b""
    if scope["method"] == "POST":
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        decode(body)
        body = encode({"status": "success", "value": STATE, "logLines": []})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
