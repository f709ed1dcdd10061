"""The floor under durable writes: a bare ASGI application over raw apsw, which commits what waits in one transaction.

`addBacker` only: the look-up whether the backer exists, the insert with all indexes, and an answer after the commit.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from typing import Any

import apsw
import msgspec

TABLE = """
    CREATE TABLE IF NOT EXISTS crowdfunding_backers (
        id INTEGER PRIMARY KEY, username TEXT NOT NULL, username_lower TEXT, access_code TEXT NOT NULL, tier TEXT NOT NULL,
        used_by_user_id INTEGER, used_at REAL, pending_claim_token TEXT, pending_claim_expires_at REAL, revoked_at REAL
    ) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS by_username_code ON crowdfunding_backers (username, access_code);
    CREATE UNIQUE INDEX IF NOT EXISTS by_username_lower_code ON crowdfunding_backers (username_lower, access_code);
    CREATE INDEX IF NOT EXISTS by_used_by_user_id ON crowdfunding_backers (used_by_user_id);
    CREATE INDEX IF NOT EXISTS by_tier ON crowdfunding_backers (tier);
    CREATE INDEX IF NOT EXISTS by_used_at ON crowdfunding_backers (used_at);
    CREATE INDEX IF NOT EXISTS by_tier_used_at ON crowdfunding_backers (tier, used_at);
"""
FIND = "SELECT id FROM crowdfunding_backers WHERE username = ? AND access_code = ?"
ADD = "INSERT INTO crowdfunding_backers (username, username_lower, access_code, tier) VALUES (?, ?, ?, ?) RETURNING id"


class Backer(msgspec.Struct, rename="camel"):
    username: str
    access_code: str
    tier: str


class Call(msgspec.Struct):
    path: str
    args: Backer
    format: str = "json"


Work = tuple[Backer, "asyncio.Future[bytes]"]
decode = msgspec.json.Decoder(Call).decode
encode = msgspec.json.Encoder().encode
waiting: queue.SimpleQueue[Work] = queue.SimpleQueue()


def write_forever(loop: asyncio.AbstractEventLoop) -> None:
    """Take all that waits, write it in one transaction, and answer when it is on disk."""
    connection = apsw.Connection(os.environ["BENCH_DATABASE"])
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(TABLE)
    while True:
        group = [waiting.get()]
        while not waiting.empty():
            group.append(waiting.get())
        connection.execute("BEGIN IMMEDIATE")
        answers = [_add(connection, backer) for backer, _ in group]
        connection.execute("COMMIT")
        loop.call_soon_threadsafe(_answer, [future for _, future in group], answers)


def _add(connection: apsw.Connection, new: Backer) -> dict[str, object]:
    existing = connection.execute(FIND, (new.username, new.access_code)).get
    if existing is not None:
        return {"success": False, "reason": "already_exists", "id": existing}
    added = connection.execute(ADD, (new.username, new.username.lower(), new.access_code, new.tier)).get
    return {"success": True, "id": added}


def _answer(futures: list[asyncio.Future[bytes]], answers: list[dict[str, object]]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(encode({"status": "success", "value": answer, "logLines": []}))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Adds the backer that a call brings, and answers anything that is no call with an empty page."""
    if scope["type"] == "lifespan":
        await receive()
        threading.Thread(target=write_forever, args=(asyncio.get_running_loop(),), daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    if scope["method"] == "POST":
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        future = asyncio.get_running_loop().create_future()
        waiting.put((decode(body).args, future))
        body = await future
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
