"""What most teams would add to fastapi_app.py for live pages: topics, each with the WebSockets that subscribed to it.

Who writes must know what it changes: after the commit it reads the row, makes the message once, and sends it to the topic's
sockets. The database is used in Starlette's threads, as in the other endpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi_app import app, get_app_state, set_app_state
from fastapi_tables import AppStateOut, Message

__all__ = ["app"]


class Subscribe(Message):
    subscribe: str


class AppStateMessage(Message):
    topic: str
    value: AppStateOut


APP_STATE = "app-state"
topics: defaultdict[str, set[WebSocket]] = defaultdict(set)


def app_state_message() -> str:
    return AppStateMessage(topic=APP_STATE, value=get_app_state()).model_dump_json(by_alias=True)


current: dict[str, Callable[[], str]] = {APP_STATE: app_state_message}
"""By topic: what reads its message from the database."""


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    """A client, which names the topics it wants and gets the current value of each."""
    await socket.accept()
    try:
        while True:
            wanted = Subscribe.model_validate_json(await socket.receive_text()).subscribe
            topics[wanted].add(
                socket
            )  # before it is read: a change in between is sent, perhaps twice, but never missed
            await socket.send_text(await run_in_threadpool(current[wanted]))
    except WebSocketDisconnect:
        pass
    finally:
        for subscribers in topics.values():
            subscribers.discard(socket)


@app.post("/app-state")
async def change_app_state(state: AppStateOut) -> None:
    """Write it, then tell all who subscribed."""
    await publish(APP_STATE, await run_in_threadpool(write_and_read, state))


def write_and_read(state: AppStateOut) -> str:
    set_app_state(state)
    return app_state_message()


async def publish(topic: str, text: str) -> None:
    for socket in list(topics[topic]):
        try:
            await socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):  # it has gone meanwhile
            topics[topic].discard(socket)
