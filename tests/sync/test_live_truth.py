"""What clients hold is true: after each transition it is exactly what their queries give in the state of its timestamp.

Clients ask for changes, watch, sign in and out, go and come back; servers are killed. All acknowledged changes are played again in
plain Python, and what every client held after every transition is compared with that. `CAMBER_TORTURE_ROUNDS` says how many
rounds are played, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.crashes.servers import Server
from tests.sync.chatter import ANYBODY, Chatter, Seen, World, come_back, told
from tests.sync.model import Board, Change, History, Question, Told, Who, agrees
from tests.wire.running_server import REPOSITORY, UNHURRIED

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "4"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
CLIENTS = 6
SECONDS_OF_A_ROUND = 1.2
PATIENCE = 60.0
TRANSITIONS_OF_A_ROUND = 50
ROOMS = ["attic", "cellar", "kitchen"]
MARKS = ["a", "b", "c"]
PEOPLE = [ANYBODY, Who("ann", is_admin=True), Who("bob", is_admin=True), Who(is_admin=True)]


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Server]:
    """A server of tests/sync/app that has not been started yet."""
    env = {**UNHURRIED, "CAMBER_DEV": "1", "CAMBER_DATABASE_URL": database_url}
    server = Server(REPOSITORY / "tests/sync/app", tmp_path / "data", env=env)
    yield server
    if server.process is not None:
        server.end(signal.SIGKILL)


@pytest.mark.torture
def test_all_that_clients_hold_is_true_at_its_timestamp(server: Server) -> None:
    server.start()
    server.wait_until_ready()
    world = World(f"http://127.0.0.1:{server.port}", server.admin_key)
    try:
        asyncio.run(play(world, server, Random(SEED)))
    except BaseException:
        print(f"CAMBER_TORTURE_SEED={SEED}; the server said:\n{server.printed[-4000:]}")  # noqa: T201
        raise
    print(f"{world.transitions} transitions, {len(world.history.changes)} changes")  # noqa: T201
    assert not [line for line in server.printed.splitlines() if is_trouble(line)]


def is_trouble(line: str) -> bool:
    """Whether this line of the log tells of more than a function that failed."""
    try:
        event = json.loads(line)
    except ValueError:
        return True
    return event["level"] in {"warning", "error", "critical"} and event["event"] != "a function failed"


async def play(world: World, server: Server, random: Random) -> None:
    clients = [Chatter(world, f"client {number}", Random(random.random())) for number in range(CLIENTS)]
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        caller = HttpCaller(world, http, Random(random.random()))
        for number in range(ROUNDS):
            stop = asyncio.Event()
            works = [asyncio.create_task(live(client, stop)) for client in clients]
            works.append(asyncio.create_task(caller.work(stop)))
            await asyncio.sleep(random.uniform(0.3, SECONDS_OF_A_ROUND))
            await enough(world, number + 1)
            if number % 2:
                await asyncio.to_thread(server.end, signal.SIGKILL if random.random() < 0.7 else signal.SIGTERM)
                server.start()
                await asyncio.to_thread(server.wait_until_ready)
                await asyncio.sleep(random.uniform(0.0, 0.5))
            stop.set()
            await asyncio.gather(*works)
            await settle(world, clients, caller)
    for client in clients:
        await client.go(rudely=False)


async def enough(world: World, rounds: int) -> None:
    """Wait until as much has been seen as belongs to so many rounds, where the machine stood still meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while world.transitions <= TRANSITIONS_OF_A_ROUND * rounds:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)


async def live(client: Chatter, stop: asyncio.Event) -> None:
    """Do anything, until told to stop; and come back after every loss."""
    while not stop.is_set():
        if not client.is_connected:
            await come_back(client, asyncio.get_running_loop().time() + PATIENCE)
        await act(client)
        await asyncio.sleep(client.random.choice([0, 0, 0.001, 0.01, 0.05]))


async def act(client: Chatter) -> None:
    random = client.random
    kind = random.choices(
        ["change", "fail", "nothing", "watch", "unwatch", "modify nothing", "become", "go"],
        [30, 3, 3, 10, 7, 2, 4, 1.5],
    )[0]
    match kind:
        case "change" | "fail":
            if len(client.unanswered) < 8:
                await client.ask(f"board:{kind}", {"changes": some_changes(random)})
        case "nothing":
            await client.ask("board:nothing", {})
        case "watch":
            if len(client.questions) < 9:
                await client.watch(some_question(random))
        case "unwatch":
            await client.unwatch()
        case "modify nothing":
            await client.modify_nothing()
        case "become":
            await client.become(random.choice(PEOPLE))
        case _:
            await client.go(rudely=random.random() < 0.5)


def some_changes(random: Random) -> list[Change]:
    return [some_change(random) for _ in range(random.choice([0, 1, 1, 1, 2, 4]))]


def some_change(random: Random) -> Change:
    key, room, place = f"note {random.randrange(25)}", random.choice(ROOMS), random.randrange(12)
    match random.choices(["put", "move", "drop", "add", "set"], [5, 3, 3, 4, 1])[0]:
        case "put":
            return {"do": "put", "key": key, "room": room, "place": place, "text": random.choice(["x", "y", "z"])}
        case "move":
            return {"do": "move", "key": key, "room": room, "place": place}
        case "drop":
            return {"do": "drop", "key": key}
        case "add":
            return {"do": "add", "name": random.choice(MARKS), "by": random.choice([-9, -1, 1, 1, 2, 8])}
        case _:
            return {"do": "set", "name": random.choice("XY"), "value": str(random.randrange(3))}


def some_question(random: Random) -> Question:
    room, name, low = random.choice(ROOMS), random.choice(MARKS), random.randrange(10)
    options = {"numItems": random.choice([1, 3, 5]), "cursor": None}
    return random.choice(
        [
            Question("board:room", {"room": room}),
            Question("board:between", {"room": room, "low": low, "high": low + random.randrange(1, 8)}),
            Question("board:last", {"room": room}),
            Question("board:count", {"room": room}),
            Question("board:page", {"room": room, "paginationOpts": options}),
            Question("board:page", {"room": room, "paginationOpts": options}),
            Question("board:mine", {}),
            Question("board:me", {}),
            Question("board:sometimes", {"name": name}),
            Question("board:sometimes", {"name": name}),
            Question("board:strict", {"name": name}),
            Question("board:total", {"names": random.sample(MARKS, 2)}),
            Question("board:slow", {"name": name}),
            Question("board:timed", {"name": name}),
            Question("board:variable", {"name": random.choice("XY")}),
            Question("board:serial", {}),
        ]
    )


class HttpCaller:
    """Makes changes over HTTP and asks queries, one after another; where an answer is lost, it finds out later."""

    def __init__(self, world: World, http: httpx.AsyncClient, random: Random) -> None:
        self._world, self._http, self._random = world, http, random
        self._notes = 0
        self.lost: list[Sequence[Change]] = []
        """Changes that were asked for and may have been made."""
        self.answers: list[tuple[Question, Who, Told, int]] = []
        """What was asked, by whom, what was answered, and how many changes were acknowledged before it was asked."""

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await (self._change() if self._random.random() < 0.5 else self._look())
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(self._random.choice([0, 0.005, 0.02]))

    async def _change(self) -> None:
        self._notes += 1
        # A note that nobody else touches tells later whether it was done.
        sign = {"do": "put", "key": f"by HTTP {self._notes}", "room": "HTTP", "place": self._notes, "text": ""}
        changes = [*some_changes(self._random), sign]
        try:
            answer = await self.post("mutation", "board:change", {"changes": changes})
        except httpx.ConnectError:
            raise
        except httpx.HTTPError:
            self.lost.append(changes)
            raise
        if answer is not None:
            self._world.history.made(int(answer["serial"]), changes, None, None)
        else:
            self.lost.append(changes)

    async def _look(self) -> None:
        question = some_question(self._random)
        if question.path == "board:strict":
            return
        who, acknowledged = self._random.choice(PEOPLE), max(self._world.history.changes, default=0)
        answer = await self.post("query", question.path, question.args, who)
        if answer is not None:
            self.answers.append((question, who, told(answer), acknowledged))

    def check(self) -> None:
        """What was answered was so at some time after everything that had been acknowledged."""
        for question, who, answer, acknowledged in self.answers:
            history = self._world.history
            states = (history.board(serial) for serial in range(acknowledged, len(history.changes) + 1))
            if not any(agrees(answer, question.answer(board, who)) for board in states):
                pytest.fail(f"{answer} for {question} as {who} was true at no time since change {acknowledged}")
        self.answers.clear()

    async def post(self, kind: str, path: str, args: Any, who: Who = ANYBODY) -> Any:
        """The value; None where there was none."""
        body = {"path": path, "args": args, "format": "convex_encoded_json"}
        credential = self._world.admin_key
        if who.subject is not None:
            claims = {"issuer": "https://people.test", "subject": who.subject}
            credential += ":" + b64encode(json.dumps(claims).encode()).decode()
        headers = {"Authorization": f"Convex {credential}"} if who.is_admin else {}
        response = await self._http.post(f"{self._world.address(self._random)}/api/{kind}", json=body, headers=headers)
        answer = response.json()
        assert response.status_code in {200, 503}, answer
        if response.status_code == 503:
            return None
        assert answer["status"] == "success", answer
        return answer["value"]


async def settle(world: World, clients: Sequence[Chatter], caller: HttpCaller) -> None:
    """Let everything be answered, and wait until every client holds the newest state."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while any(client.unanswered for client in clients):
        for client in clients:
            if not client.is_connected:
                await come_back(client, deadline)
        assert not world.faults, world.faults
        assert asyncio.get_running_loop().time() < deadline, "mutations are not answered"
        await asyncio.sleep(0.01)
    await find_lost(world.history, caller)
    count = int(await caller.post("query", "board:serial", {}))
    assert sorted(world.history.changes) == list(range(1, count + 1))
    board = world.history.board(count)
    check(world)
    caller.check()
    while behind := [fault for client in clients for fault in is_behind(client, board)]:
        for client in clients:
            if not client.is_connected:
                await come_back(client, deadline)
        assert not world.faults, world.faults
        assert asyncio.get_running_loop().time() < deadline, behind
        await asyncio.sleep(0.01)
        check(world)


async def find_lost(history: History, caller: HttpCaller) -> None:
    """Whether the change whose answer was lost was made: it is the one change that nobody else has been told of."""
    made = {note[0] for note in await caller.post("query", "board:room", {"room": "HTTP"})}
    there = [changes for changes in caller.lost if changes[-1]["key"] in made]
    caller.lost.clear()
    count = int(await caller.post("query", "board:serial", {}))
    missing = [serial for serial in range(1, count + 1) if serial not in history.changes]
    assert len(missing) == len(there), f"{missing} were made by nobody, {there} are there"
    for serial, changes in zip(missing, there, strict=True):  # one after another they were asked for
        history.made(serial, changes, None, None)


def is_behind(client: Chatter, board: Board) -> list[str]:
    """What a client does not hold as it is now."""
    if not client.is_up_to_date:
        return [f"{client.name} is not told of all it asked for"]
    who, held = client.who, client.held
    return [
        f"{client.name} holds {held.get(query)} for {question}"
        for query, question in client.questions.items()
        if query not in held or not agrees(held[query], question.answer(board, who))
    ]


def check(world: World) -> None:
    """Hold what was seen against the states there were; what has been checked is forgotten."""
    if world.faults:
        pytest.fail("\n".join(world.faults), pytrace=False)
    candidates = world.history.candidates()
    by_time: dict[int, list[Seen]] = defaultdict(list)
    for seen in world.seen:
        by_time[seen.at].append(seen)
    world.seen.clear()
    least = 0
    for at in sorted(by_time):
        least = state_at(world.history, by_time[at], [serial for serial in candidates(at) if serial >= least], at)


def state_at(history: History, all_seen: Sequence[Seen], possible: Sequence[int], at: int) -> int:
    """How many changes there were at this timestamp, so that everybody has seen the truth. Fails where there is no such number."""
    wrong: list[str] = []
    for serial in possible:
        board = history.board(serial)
        found = [
            f"at {at}, after {serial} changes, {seen.client} as {who} holds {told} for {question}, not {question.answer(board, who)}"
            for seen in all_seen
            for question, who, told in seen.held
            if not agrees(told, question.answer(board, who))
        ]
        if not found:
            for question in [question for seen in all_seen for question, _, _ in seen.held]:
                question.settle(board)
            return serial
        wrong += found
    pytest.fail("\n".join([f"no state fits what was seen at {at}: {possible}", *wrong]), pytrace=False)
