"""A client of the sync protocol that does everything at any time, comes back after every loss, and remembers what it held when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.sync.model import History, Question, Told, Who
from tests.wire.raw_client import START, number, timestamp

ANYBODY = Who()


@dataclass(eq=False)
class Request:
    """A mutation that was asked for and not answered yet."""

    number: int
    path: str
    args: Mapping[str, Any]
    who: Who
    sent: int = 0


@dataclass(frozen=True)
class Seen:
    """What a client held when a transition had been taken in."""

    client: str
    at: int
    held: Sequence[tuple[Question, Who, Told]]


@dataclass
class World:
    """Where clients live: the server, and what all of them have seen."""

    url: str
    admin_key: str
    history: History = field(default_factory=History)
    seen: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    transitions: int = 0

    def address(self, random: Random) -> str:
        """The URL of the server that somebody who connects, or asks over HTTP, comes to."""
        return self.url


class Chatter:
    """One client session, over many connections."""

    def __init__(self, world: World, name: str, random: Random) -> None:
        self.world, self.name, self.random = world, name, random
        self.session_id = str(UUID(int=random.getrandbits(128)))
        self.questions: dict[int, Question] = {}
        self.who = ANYBODY
        self.unanswered: dict[int, Request] = {}
        self.held: dict[int, Told] = {}
        self.newest = 0
        """The latest timestamp that it has been told, by a transition or an answer."""
        self.shown = 0
        """The latest timestamp of a transition."""
        self.answered_at = 0
        self.is_up_to_date = False
        self.connections = 0
        self._next_query = self._next_request = self._observed = 0
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._version = START
        self._sets: list[dict[int, Question]] = [{}]
        self._callers = [ANYBODY]

    # What it does

    async def watch(self, question: Question) -> None:
        self._next_query += 1
        self.questions[self._next_query] = question
        await self._modify([_adding(self._next_query, question)])

    async def unwatch(self) -> None:
        if self.questions:
            query = self.random.choice(list(self.questions))
            del self.questions[query]
            await self._modify([{"type": "Remove", "queryId": query}])

    async def modify_nothing(self) -> None:
        await self._modify([])

    async def ask(self, path: str, args: Mapping[str, Any]) -> None:
        """Ask for a mutation; nobody waits for it."""
        request = Request(self._next_request, path, args, self.who)
        self._next_request += 1
        self.unanswered[request.number] = request
        await self._ask(request)

    async def become(self, who: Who) -> None:
        self.who = who
        await self._become(who)

    async def go(self, *, rudely: bool) -> None:
        """Drop the connection."""
        if self._socket is not None:
            if rudely:
                self._socket.transport.abort()
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def come(self) -> None:
        """Connect, and say again what a new connection has to know, in any order that is allowed."""
        path = self.random.choice(["/api/sync", "/api/1.48.0/sync"])
        address = self.world.address(self.random).replace("http", "ws", 1) + path
        self._socket = await connect(address, compression=None, max_size=None, ping_interval=None, open_timeout=60)
        self._version, self._sets, self._callers, self.held = START, [{}], [ANYBODY], {}
        self.is_up_to_date = False
        self._observed = self.newest
        more = {"maxObservedTimestamp": timestamp(self.newest)} if self.newest else {}
        await self._say(
            "Connect",
            sessionId=self.session_id,
            connectionCount=self.connections,
            lastCloseReason="InitialConnect",
            clientTs=0,
            **more,
        )
        self.connections += 1
        self._reader = asyncio.create_task(self._read(self._socket))
        queries_at = self.random.randint(0, len(self.unanswered))
        who = ANYBODY
        for position, request in enumerate([*self.unanswered.values(), None]):
            if position == queries_at:
                await self._modify([_adding(number, question) for number, question in self.questions.items()])
            wanted = self.who if request is None else request.who
            if wanted != who:
                who = wanted
                await self._become(who)
            if request is not None:
                await self._ask(request)

    @property
    def is_connected(self) -> bool:
        return self._reader is not None and not self._reader.done()

    # Saying

    async def _modify(self, modifications: Sequence[Mapping[str, Any]]) -> None:
        self._sets.append(dict(self.questions))
        self.is_up_to_date = False
        version = len(self._sets) - 1
        await self._say("ModifyQuerySet", baseVersion=version - 1, newVersion=version, modifications=modifications)

    async def _become(self, who: Who) -> None:
        base = len(self._callers) - 1
        self._callers.append(who)
        self.is_up_to_date = False
        claim: dict[str, Any] = {"tokenType": "None"}
        if who.is_admin:
            claim = {"tokenType": "Admin", "value": self.world.admin_key}
            if who.subject is not None:
                claim["impersonating"] = {"issuer": "https://people.test", "subject": who.subject}
        await self._say("Authenticate", baseVersion=base, **claim)

    async def _ask(self, request: Request) -> None:
        request.sent += 1
        await self._say("Mutation", requestId=request.number, udfPath=request.path, args=[request.args])

    async def _say(self, kind: str, **fields: Any) -> None:
        if self._socket is not None:
            with suppress(ConnectionClosed):
                await self._socket.send(json.dumps({"type": kind, **fields}))

    # Hearing

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                message = json.loads(text)
                match message["type"]:
                    case "Transition":
                        self._take(message)
                    case "MutationResponse":
                        self._note(message)
                    case "Ping":
                        pass
                    case _:
                        self._fault(f"was told {message}")
        except ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001
            self._fault(f"{error!r}")

    def _take(self, message: dict[str, Any]) -> None:
        self.world.transitions += 1
        end = message["endVersion"]
        at = number(end["ts"])
        self._expect(message["startVersion"] == self._version, f"the chain of versions is broken: {message}")
        self._expect(at >= number(self._version["ts"]), "time went back on a connection")
        if self._version is START:
            self._expect(at >= self._observed, f"it had seen {self._observed} and is shown {at} on a new connection")
        self._expect(at >= self.shown, f"time went back from {self.shown} to {at}")
        self._version, self.shown = end, max(self.shown, at)
        self.newest = max(self.newest, at)
        questions = self._sets[end["querySet"]]
        for modification in message["modifications"]:
            self._modified(modification, questions, message)
        self._expect(self.held.keys() == questions.keys(), f"holds {list(self.held)} instead of {list(questions)}")
        who = self._callers[end["identity"]]
        held = [(questions[query], who, told) for query, told in self.held.items() if query in questions]
        self.world.seen.append(Seen(self.name, at, held))
        is_newest = end["querySet"] == len(self._sets) - 1 and end["identity"] == len(self._callers) - 1
        self.is_up_to_date = is_newest and at >= self.answered_at

    def _modified(self, modification: dict[str, Any], questions: Mapping[int, Question], message: object) -> None:
        query = modification["queryId"]
        if modification["type"] == "QueryRemoved":
            self._expect(query not in questions, f"query {query} is not to be removed")
            self.held.pop(query, None)
            return
        if query not in questions:
            self._fault(f"was told of query {query}, which it does not watch: {message}")
            return
        new = told(modification.get("value"))
        if modification["type"] == "QueryFailed":
            new = Told(modification["errorMessage"], failed=True, data=modification.get("errorData"))
        self._expect(self.held.get(query) != new, f"was told {new} once more")
        self.held[query] = new
        questions[query].journal = modification.get("journal") or questions[query].journal

    def _note(self, message: dict[str, Any]) -> None:
        request = self.unanswered.pop(message["requestId"], None)
        if request is None:
            self._fault(f"was answered twice: {message}")
            return
        if not message["success"]:
            self._expect(
                request.path == "board:fail" and message["errorData"] == {"took": "back"}, f"refused: {message}"
            )
            self._expect(message["ts"] is None, "a refusal has a timestamp")
            return
        at = number(message["ts"])
        first = request.sent == 1
        if request.path == "board:change":
            result = message["result"]
            self._expect(result["who"] == request.who.subject, f"{request.who} asked, {result['who']} was seen")
            # The answer to a repeated request has the timestamp of the state in which it was found to be done.
            self.world.history.made(int(result["serial"]), request.args["changes"], result["who"], at, exact=first)
            if first:
                shown = number(self._version["ts"])
                self._expect(shown < at, f"its change of {at} was shown, at {shown}, before it was answered")
        self.newest = max(self.newest, at)
        self.answered_at = max(self.answered_at, at)
        self.is_up_to_date = False

    def _expect(self, truth: bool, what: str) -> None:
        if not truth:
            self._fault(what)

    def _fault(self, what: str) -> None:
        self.world.faults.append(f"{self.name} (connection {self.connections}): {what}")


async def come_back(client: Chatter, deadline: float) -> None:
    """Connect as soon as the server can be reached."""
    loop = asyncio.get_running_loop()
    while not client.is_connected:
        try:
            await client.come()
        except (OSError, InvalidHandshake, TimeoutError, EOFError):
            assert loop.time() < deadline, "the server can't be reached"
            await asyncio.sleep(0.02)


def _adding(query: int, question: Question) -> dict[str, Any]:
    adding = {"type": "Add", "queryId": query, "udfPath": question.path, "args": [question.args]}
    return adding if question.journal is None else {**adding, "journal": question.journal}


def told(value: Any) -> Told:
    """A value as the model has it: without cursors."""
    if isinstance(value, dict) and "continueCursor" in value:
        value = {"page": value["page"], "isDone": value["isDone"]}
    return Told(value)


__all__ = ["ANYBODY", "Chatter", "Seen", "World", "come_back", "told"]
