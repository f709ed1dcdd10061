"""Clients over HTTP and over sockets that take random steps on any of several servers, and tell a workload what they were told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.serializability.workload import Step, When, Workload
from tests.wire.raw_client import START, number, timestamp

RUN, FAIL, LOOK = "steps:run", "steps:fail", "steps:look"
PATIENCE = 60.0
"""How long an answer may take."""

WATCHED = 3
"""So many queries a client over a socket watches at most."""


class HttpCaller:
    """Makes one request after another, each to any server. What it gives up may still be carried out."""

    def __init__(self, workload: Workload, urls: Sequence[str], name: str, random: Random) -> None:
        self._workload, self._urls, self._name, self._random = workload, urls, name, random
        self._http = httpx.AsyncClient(timeout=PATIENCE)

    async def work(self, until: int) -> None:
        """Do anything until there are so many transactions of all."""
        while len(self._workload.history) < until:
            await self.step()
            await asyncio.sleep(self._random.choice([0, 0, 0.002, 0.01]))

    async def step(self) -> None:
        kinds = [self._run, self._fail, self._give_up, self._read, self._look, self._look_at, self._look_together]
        await self._random.choices(kinds, [50, 3, 3, 8, 10, 10, 5])[0]()

    async def run(self, steps: Sequence[Step]) -> None:
        """Take these steps in one mutation."""
        began = time.monotonic()
        response = await self._call("mutation", RUN, steps)
        self._take(steps, response, began)

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self) -> None:
        await self.run(self._workload.changes())

    async def _fail(self) -> None:
        steps = self._workload.changes()
        answer = (await self._call("mutation", FAIL, steps)).json()
        assert answer.get("errorData") == {"took": "back"}, answer
        self._workload.refused(steps, When(self._name))

    async def _give_up(self) -> None:
        """Ask, and don't wait for the answer: a proxy or a page that goes does so."""
        steps, began = self._workload.changes(), time.monotonic()
        try:
            async with asyncio.timeout(self._random.choice([0.001, 0.003, 0.01, 0.03])):
                response = await self._call("mutation", RUN, steps)
        except TimeoutError:
            self._workload.unknown(steps, When(f"{self._name}, given up", began))
        else:
            self._take(steps, response, began)

    async def _read(self) -> None:
        """A mutation that changes nothing."""
        await self.run(self._workload.looks())

    async def _look(self) -> None:
        steps, began = self._workload.looks(), time.monotonic()
        self._take(steps, await self._call("query", LOOK, steps), began)

    async def _look_at(self) -> None:
        """Ask for a moment, and then what was there at that moment."""
        steps, began, url = self._workload.looks(), time.monotonic(), self._random.choice(self._urls)
        moment = (await self._http.post(f"{url}/api/query_ts", json={})).json()["ts"]
        asked = time.monotonic()  # that was the time to see all that had been done before
        await asyncio.sleep(self._random.choice([0, 0.01, 0.05]))
        response = await self._call("query_at_ts", LOOK, steps, url=url, ts=moment)
        assert response.status_code == 200, response.text
        self._workload.done(steps, response.json()["value"], When(self._name, began, asked, number(moment)))

    async def _look_together(self) -> None:
        """Several queries that are of one moment."""
        steps, began = self._workload.looks(), time.monotonic()
        queries = [{"path": LOOK, "args": {"steps": [step]}, "format": "convex_encoded_json"} for step in steps]
        url = self._random.choice(self._urls)
        response = await self._http.post(f"{url}/api/query_batch", json={"queries": queries})
        results = [result["value"][0] for result in response.json()["results"]]
        self._workload.done(steps, results, When(self._name, began, time.monotonic()))

    async def _call(
        self, kind: str, path: str, steps: Sequence[Step], *, url: str | None = None, **more: str
    ) -> httpx.Response:
        body = {"path": path, "args": {"steps": steps}, "format": "convex_encoded_json", **more}
        return await self._http.post(f"{url or self._random.choice(self._urls)}/api/{kind}", json=body)

    def _take(self, steps: Sequence[Step], response: httpx.Response, began: float) -> None:
        answer = response.json()
        assert response.status_code == 200, answer
        assert answer["status"] == "success", answer
        self._workload.done(steps, answer["value"], When(self._name, began, time.monotonic()))


class SocketCaller:
    """One session over many connections to any of the servers. It asks for one thing at a time, and watches some queries."""

    def __init__(self, workload: Workload, urls: Sequence[str], name: str, random: Random) -> None:
        self._workload, self._urls, self._name, self._random = workload, urls, name, random
        self._begin_session()
        self._socket: ClientConnection | None = None

    async def work(self, until: int) -> None:
        """Do anything until there are so many transactions of all."""
        while len(self._workload.history) < until:
            await self.step()
            await asyncio.sleep(self._random.choice([0, 0, 0.002, 0.01]))

    async def step(self) -> None:
        """Do one thing; a connection that broke is followed by another one."""
        kinds = [self._run, self._fail, self._run_and_hop, self._give_up, self._look, self._watch, self._hop]
        await self._random.choices(kinds, [40, 3, 3, 2, 15, 5, 1])[0]()

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    # What it does

    async def _run(self) -> None:
        steps = self._workload.changes()
        began = time.monotonic()
        request = await self._ask(RUN, steps)
        answer = await self._response(request)
        assert answer["success"], answer
        when = When(self._name, began, time.monotonic(), number(answer["ts"]))
        self._workload.done(steps, answer["result"], when)

    async def _fail(self) -> None:
        steps = self._workload.changes()
        answer = await self._response(await self._ask(FAIL, steps))
        assert answer["errorData"] == {"took": "back"}, answer
        self._workload.refused(steps, When(self._name))

    async def _run_and_hop(self) -> None:
        """Ask, lose the connection before the answer, and ask for the same thing again on another server."""
        steps, began = self._workload.changes(), time.monotonic()
        request = await self._ask(RUN, steps)
        await asyncio.sleep(self._random.choice([0, 0.001, 0.005, 0.02]))
        await self._leave()
        await self._say("Mutation", requestId=request, udfPath=RUN, args=[{"steps": steps}])
        answer = await self._response(request)
        assert answer["success"], answer
        # The answer to a repeated request has the timestamp of the state in which it was found to be done.
        self._workload.done(steps, answer["result"], When(self._name, began, time.monotonic()))

    async def _give_up(self) -> None:
        """Ask, lose the connection, and never come back."""
        steps, began = self._workload.changes(), time.monotonic()
        await self._ask(RUN, steps)
        await asyncio.sleep(self._random.choice([0, 0.001, 0.005]))
        await self._leave()
        self._begin_session()
        self._workload.unknown(steps, When(f"{self._name}, given up", began))

    async def _look(self) -> None:
        """Watch a query until it has shown something."""
        steps, began = self._workload.looks(), time.monotonic()
        query = await self._add(steps)
        at = await self._shown()
        self._workload.done(steps, self._held[query], When(self._name, began, time.monotonic(), at))
        await self._remove(query)

    async def _watch(self) -> None:
        if len(self._watched) < WATCHED:
            await self._add(self._workload.looks())
        else:
            await self._remove(self._random.choice(list(self._watched)))
        await self._shown()

    async def _hop(self) -> None:
        await self._leave()

    # Saying

    def _begin_session(self) -> None:
        self._session = str(UUID(int=self._random.getrandbits(128)))
        self._connections = self._requests = self._queries = self._observed = 0
        self._watched: dict[int, list[Step]] = {}

    async def _leave(self) -> None:
        """Drop the connection; the next message goes to any server."""
        if self._socket is not None:
            self._socket.transport.abort()
            await self._socket.close()
            self._socket = None

    async def _come(self) -> ClientConnection:
        address = self._random.choice(self._urls).replace("http", "ws", 1) + "/api/sync"
        socket = self._socket = await connect(
            address, compression=None, max_size=None, ping_interval=None, open_timeout=PATIENCE
        )
        self._version, self._query_set, self._held = START, 0, dict[int, Any]()
        first = {"connectionCount": self._connections, "lastCloseReason": "InitialConnect", "clientTs": 0}
        if self._observed:
            first["maxObservedTimestamp"] = timestamp(self._observed)
        self._connections += 1
        await self._send(socket, "Connect", sessionId=self._session, **first)
        await self._modify([_adding(query, steps) for query, steps in self._watched.items()])
        return socket

    async def _say(self, kind: str, **fields: Any) -> None:
        await self._send(self._socket or await self._come(), kind, **fields)

    async def _send(self, socket: ClientConnection, kind: str, **fields: Any) -> None:
        with suppress(ConnectionClosed):
            await socket.send(json.dumps({"type": kind, **fields}))

    async def _modify(self, modifications: Sequence[Any]) -> None:
        if self._socket is None:
            await self._come()
        self._query_set += 1
        version = {"baseVersion": self._query_set - 1, "newVersion": self._query_set}
        await self._say("ModifyQuerySet", **version, modifications=modifications)

    async def _add(self, steps: list[Step]) -> int:
        if self._socket is None:
            await self._come()
        self._queries += 1
        self._watched[self._queries] = steps
        await self._modify([_adding(self._queries, steps)])
        return self._queries

    async def _remove(self, query: int) -> None:
        del self._watched[query]
        if self._socket is not None:
            await self._modify([{"type": "Remove", "queryId": query}])

    async def _ask(self, path: str, steps: Sequence[Step]) -> int:
        if self._socket is None:
            await self._come()
        request, self._requests = self._requests, self._requests + 1
        await self._say("Mutation", requestId=request, udfPath=path, args=[{"steps": steps}])
        return request

    # Hearing

    async def _response(self, request: int) -> dict[str, Any]:
        while True:
            message = await self._hear()
            if message["type"] == "MutationResponse":
                assert message["requestId"] == request, message
                if message["success"]:
                    self._observed = max(self._observed, number(message["ts"]))
                return message

    async def _shown(self) -> int:
        """Hear until all that was asked for is shown; the timestamp of that."""
        while self._version["querySet"] < self._query_set:
            assert (await self._hear())["type"] != "MutationResponse"
        return number(self._version["ts"])

    async def _hear(self) -> dict[str, Any]:
        assert self._socket is not None
        async with asyncio.timeout(PATIENCE):
            message = json.loads(await self._socket.recv())
        assert message["type"] in {"Transition", "MutationResponse", "Ping"}, message
        if message["type"] == "Transition":
            self._take(message)
        return message

    def _take(self, message: dict[str, Any]) -> None:
        """What is shown behind a transition is of one moment: one transaction that reads."""
        assert message["startVersion"] == self._version, "the chain of versions is broken"
        self._version = message["endVersion"]
        at = number(self._version["ts"])
        self._observed = max(self._observed, at)
        for modification in message["modifications"]:
            if modification["type"] == "QueryRemoved":
                self._held.pop(modification["queryId"], None)
            else:
                assert modification["type"] == "QueryUpdated", modification
                self._held[modification["queryId"]] = modification["value"]
        shown = [(self._watched[query], value) for query, value in self._held.items() if query in self._watched]
        steps = [step for asked, _ in shown for step in asked]
        results = [result for _, value in shown for result in value]
        if steps:  # what is shown may be older than what others were told meanwhile, but not than what was shown before
            when = When(f"{self._name}'s screen, {self._session}", None, time.monotonic(), at)
            self._workload.done(steps, results, when)


def _adding(query: int, steps: Sequence[Step]) -> dict[str, Any]:
    return {"type": "Add", "queryId": query, "udfPath": LOOK, "args": [{"steps": steps}]}


__all__ = ["HttpCaller", "SocketCaller"]
