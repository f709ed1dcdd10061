"""A new version goes over three servers, with an index more, one less and a stricter field, while everybody works: nobody notices.

Callers write and ask over HTTP, live clients write and watch, all at any server. No call of theirs fails, nothing that they are told
or shown is older than what they knew, and each parcel is where it belongs in every index. `CAMBER_TORTURE_ROUNDS` says how often a
server is killed as it starts, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple, Self

import psycopg
import pytest

from camber.client import Client
from camber.storage.postgres.building import SCHEMA_LOCK
from tests.cli.commands import camber
from tests.crashes.consistency import contents_of
from tests.crashes.ledger import Answer
from tests.crashes.servers import UNHURRIED, HttpClient, Server
from tests.faults.callers import Caller
from tests.faults.fleet import Fleet
from tests.faults.ledger import Ledger
from tests.faults.load import IS_LONG, SEED, only_long, rounds
from tests.postgres.cluster import old_reader

VERSIONS = Path(__file__).parent / "rolled"
SERVERS, MOVERS, LOOKERS, LIVE_CLIENTS = 3, 3, 2, 3
PARCELS = 200
"""So many each mover has when it begins: together more than a server gives keys at once."""
SHELVES = [f"shelf {number}" for number in range(20)]
OWNERS = 8
"""As whom one mover writes, so that one owner's parcels are not too many to watch."""
PATIENCE = 60.0
SECONDS_TO_CLOSE = 5.0
SECONDS_TO_CLEAR_AWAY = 28.0
"""Whoever leaves does it himself: others would wait for half a minute."""

# PostgreSQL's columns for the keys of indexes, in the order in which they were made.
BY_OWNER, BY_SHELF, BY_PLACE = "k1", "k2", "k3"

ANOTHER_VERSION = "the schema of another version of the application"
OWN_VERSION = "Object is missing the required field `rank`"

WAITS_FOR_ANOTHER = (
    "SELECT FROM pg_stat_activity"
    " WHERE datname = current_database() AND query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
)
"""Finds a server that waits until another one has made its changes to the tables."""


# What is known of each parcel


@dataclass(eq=False)
class Parcel:
    """One parcel of one mover. Each write is a step: with step 0 it comes, then it moves, and with the step `end` it goes."""

    mover: str
    number: int
    asked: int = -1
    """The last step that was asked for."""
    told: int = -1
    """The last one that was acknowledged."""
    end: int | None = None

    @property
    def owner(self) -> str:
        return f"{self.mover} {self.number % OWNERS}"

    @property
    def key(self) -> tuple[str, int]:
        return self.owner, self.number

    def shelf(self, step: int) -> str:
        return SHELVES[(7 * self.number + step) % len(SHELVES)]

    def is_there(self, step: int) -> bool:
        return step >= 0 and step != self.end


class Question(NamedTuple):
    """A query, and which parcels belong into its result."""

    kind: Literal["on", "of", "all"]
    name: str = ""

    @property
    def call(self) -> tuple[str, dict[str, Any]]:
        match self.kind:
            case "on":
                return "parcels:on", {"shelf": self.name}
            case "of":
                return "parcels:of", {"owner": self.name}
            case _:
                return "places:all", {}

    def has(self, parcel: Parcel, step: int) -> bool:
        where = {"on": parcel.shelf(step), "of": parcel.owner, "all": ""}[self.kind]
        return parcel.is_there(step) and where == self.name


class Stock:
    """The parcels of one mover, who asks for one step after another."""

    def __init__(self, mover: str) -> None:
        self.mover = mover
        self.parcels = [Parcel(mover, number, asked=0, told=0) for number in range(PARCELS)]

    def next_step(self, random: Random) -> tuple[Parcel, str, dict[str, Any]]:
        """The parcel and the call: now and then one comes, or one goes."""
        there = [parcel for parcel in self.parcels if parcel.end is None]
        kind = random.choices(["put", "take", "move"], [2, 1 if len(there) > PARCELS // 2 else 0, 5])[0]
        if kind == "put":
            parcel = Parcel(self.mover, len(self.parcels))
            self.parcels.append(parcel)
        else:
            parcel = random.choice(there)
        step = parcel.asked + 1
        args: dict[str, Any] = {"owner": parcel.owner, "number": parcel.number}
        if kind == "take":
            parcel.end = step
        else:
            args |= {"shelf": parcel.shelf(step), "rank": step}
        parcel.asked = step
        return parcel, f"parcels:{kind}", args


class View:
    """What somebody knows: of each parcel the earliest step at which it can be. What he is shown next may not be older."""

    def __init__(self, stocks: Sequence[Stock]) -> None:
        self._stocks = stocks
        self._since: dict[Parcel, int] = {}

    def catch_up(self) -> None:
        """Whatever anybody has been told so far must be in what is asked for from here on."""
        for parcel in self._parcels():
            self.note(parcel, parcel.told)

    def note(self, parcel: Parcel, step: int) -> None:
        self._since[parcel] = max(step, self._since.get(parcel, -1))

    def look_at(self, question: Question, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Take in a result; returns what is wrong with it."""
        ranks = {(owner, int(number)): int(rank) for owner, number, rank in rows}
        faults = [] if len(ranks) == len(rows) else [f"{len(rows) - len(ranks)} parcels are there twice"]
        for parcel in self._parcels():
            since, rank = self._since.get(parcel, -1), ranks.pop(parcel.key, None)
            possible = [
                step for step in range(since, parcel.asked + 1) if question.has(parcel, step) == (rank is not None)
            ]
            if rank is not None:
                possible = [rank] if rank in possible else []
            if possible:
                self._since[parcel] = possible[0]
            else:
                faults.append(f"{parcel} was at step {since} or later, and is shown with rank {rank}")
        return faults + [f"{key} can't be there" for key in ranks]

    def _parcels(self) -> list[Parcel]:
        return [parcel for stock in self._stocks for parcel in [*stock.parcels]]


# Those who work


class Mover(Caller):
    """Writes over HTTP, one step after another. Who finds a server closed goes to another one, as a load balancer does."""

    def __init__(self, fleet: Fleet, ledger: Ledger, stock: Stock, random: Random) -> None:
        super().__init__(fleet, ledger, stock.mover, random)
        self._stock = stock
        self._waiting: tuple[Parcel, str, dict[str, Any]] | None = None

    def _call(self, client: HttpClient, server: Server) -> bool:
        if self._waiting is None:
            self._waiting = self._stock.next_step(self.random)
        parcel, path, args = self._waiting
        if not is_done(client.call(path, args), server):
            return False
        parcel.told, self._waiting = parcel.asked, None
        return True

    def finish(self) -> None:
        """Carry out what was still to be done when it was told to stop; every server listens."""
        if self._waiting is not None:
            with self.fleet.client(self.fleet.servers[0]) as client:
                assert self._call(client, self.fleet.servers[0])


class Looker(Caller):
    """Asks over HTTP for any shelf and any owner."""

    def __init__(self, fleet: Fleet, ledger: Ledger, stocks: Sequence[Stock], number: int, random: Random) -> None:
        super().__init__(fleet, ledger, f"looker {number}", random)
        self._questions, self._view = questions_about(stocks), View(stocks)

    def _call(self, client: HttpClient, server: Server) -> bool:
        question = self.random.choice(self._questions)
        self._view.catch_up()
        path, args = question.call
        answer = client.call(path, args, query=True)
        if not is_done(answer, server):
            return False
        for fault in self._view.look_at(question, answer.value):
            self.ledger.faults.append(f"{self.name} asked {server.data.name} for {question}: {fault}")
        return True


def is_done(answer: Answer, server: Server) -> bool:
    """Whether a call was answered. That nobody listens is no answer; anything else than a result is a fault."""
    if answer.reason == "unreachable":
        return False
    assert answer.end == "done", f"{server.data.name} answered {answer}"
    return True


class LiveClient:
    """Watches some shelves and owners, and moves parcels of its own over the same socket."""

    def __init__(self, url: str, ledger: Ledger, stock: Stock, stocks: Sequence[Stock], random: Random) -> None:
        self.name, self._url, self._ledger = stock.mover, url, ledger
        self._stock, self._random = stock, random
        self._view = View(stocks)
        every = questions_about(stocks)
        shelves, owners = ([each for each in every if each.kind == kind] for kind in ("on", "of"))
        self.held: dict[Question, list[list[Any]] | None] = dict.fromkeys(
            [*random.sample(shelves, 3), *random.sample(owners, 2)]
        )
        self.moved = 0
        self.stops = False
        self.is_at_rest = False

    async def live(self) -> None:
        """Until this is cancelled; nothing is moved any more once `stops` is set."""
        try:
            self._view.catch_up()
            async with Client(self._url) as client, asyncio.TaskGroup() as group:
                for question in self.held:
                    group.create_task(self._watch(client, question))
                group.create_task(self._move(client))
        except Exception as error:  # noqa: BLE001
            self._ledger.faults.append(f"{self.name} met {error!r}")

    async def _watch(self, client: Client, question: Question) -> None:
        async for rows in client.subscribe(*question.call):
            for fault in self._view.look_at(question, rows):
                self._ledger.faults.append(f"{self.name} was shown {question}: {fault}")
            self.held[question] = rows

    async def _move(self, client: Client) -> None:
        while not self.stops:
            parcel, path, args = self._stock.next_step(self._random)
            await client.mutation(path, args)
            parcel.told = parcel.asked
            self._view.note(parcel, parcel.told)  # shown to who wrote it, as soon as he is told
            self.moved += 1
            await asyncio.sleep(self._random.choice([0.02, 0.05, 0.1]))
        self.is_at_rest = True


def questions_about(stocks: Sequence[Stock]) -> list[Question]:
    owners = [f"{stock.mover} {number}" for stock in stocks for number in range(OWNERS)]
    return [Question("on", shelf) for shelf in SHELVES] + [Question("of", owner) for owner in owners]


class Balancer:
    """Brings each connection to the next server that takes it; the live clients know this one address."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._lives: set[asyncio.Task[None]] = set()
        self.taken: Counter[str] = Counter()
        """How many connections each server, by the name of its folder, has taken."""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        life = asyncio.create_task(self._both_ways(reader, writer))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            there = await self._next_server()
            if there is not None:
                writers.append(there[1])
                pumps = [asyncio.create_task(pump(reader, there[1])), asyncio.create_task(pump(there[0], writer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            for each in writers:
                each.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_TO_CLOSE):
                    await asyncio.gather(*pumps, *(each.wait_closed() for each in writers), return_exceptions=True)

    async def _next_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = self.taken.total() % len(self._servers)
        for server in [*self._servers[turn:], *self._servers[:turn]]:
            with suppress(OSError):
                connection = await asyncio.open_connection("127.0.0.1", server.port)
                self.taken[server.data.name] += 1
                return connection
        return None


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()


# A site with traffic


class Site:
    """Three servers on one database that have loaded the old version, and the folder with the application."""

    def __init__(self, fleet: Fleet, application: Path, url: str) -> None:
        self.fleet, self.application, self.url = fleet, application, url
        self.ledger = Ledger()
        movers = [f"mover {number}" for number in range(MOVERS)] + [f"live {number}" for number in range(LIVE_CLIENTS)]
        self.stocks = [Stock(mover) for mover in movers]
        self._random = Random(SEED)
        own = iter(self.stocks)
        self.movers = [Mover(fleet, self.ledger, next(own), self._child()) for _ in range(MOVERS)]
        self._lookers = [Looker(fleet, self.ledger, self.stocks, number, self._child()) for number in range(LOOKERS)]
        self._stocks_of_clients = list(own)
        self.clients: list[LiveClient] = []
        self.balancer = Balancer(fleet.servers)
        for caller in self._callers:
            # Each call has its own connection: a server that goes refuses it, or answers.
            caller.fresh_connections = True
            if not IS_LONG:  # the machine has other tests to run, and servers to start
                caller.pauses = [0.01, 0.03, 0.05]

    def _child(self) -> Random:
        return Random(self._random.random())

    @property
    def _callers(self) -> list[Caller]:
        return [*self.movers, *self._lookers]

    # Working

    def fill(self) -> None:
        with self.fleet.client(self.fleet.servers[0]) as client:
            for stock in self.stocks:
                rows = [[*parcel.key, parcel.shelf(0)] for parcel in stock.parcels]
                assert client.call("parcels:fill", {"rows": rows}).end == "done"

    def run(self, story: Callable[[], None]) -> None:
        """Go through the story, in a thread, while everybody works."""
        asyncio.run(self._run(story))

    async def _run(self, story: Callable[[], None]) -> None:
        async with asyncio.timeout(6 * PATIENCE), self.balancer as balancer, asyncio.TaskGroup() as group:
            self.clients = [
                LiveClient(balancer.url, self.ledger, stock, self.stocks, self._child())
                for stock in self._stocks_of_clients
            ]
            lives = [group.create_task(client.live()) for client in self.clients]
            try:
                for caller in self._callers:
                    caller.start()
                await asyncio.to_thread(story)
            finally:
                for caller in self._callers:
                    caller.ask_to_stop()
                for caller in self._callers:
                    await asyncio.to_thread(caller.join)
                for life in lives:
                    life.cancel()

    def wait_for_writes(self, servers: Sequence[Server], count: int = 8) -> None:
        """Wait until each of these servers has acknowledged so many more writes, and each live client some."""

        def counts() -> list[int]:
            return [self.done_by(server) for server in servers] + [2 * client.moved for client in self.clients]

        before = counts()
        self.wait_until(lambda: all(now >= then + count for now, then in zip(counts(), before, strict=True)))

    def done_by(self, server: Server) -> int:
        """How many writes over HTTP this server has acknowledged."""
        return sum(mover.done[server.data.name] for mover in self.movers)

    def wait_until(self, what: Callable[[], bool], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            self.raise_faults()
            assert time.monotonic() < deadline, f"that takes too long\n{self.fleet.printed}"
            time.sleep(0.02)
        self.raise_faults()

    def raise_faults(self) -> None:
        if faults := self.ledger.faults:
            listed = "\n".join(faults[:20])
            raise AssertionError(f"{len(faults)} faults:\n{listed}\n{self.fleet.printed}")

    # Looking

    def columns(self) -> set[str]:
        """PostgreSQL's columns for the keys of the indexes of the parcels."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'camber' AND table_name = 't10001'"
            )
            return {name for (name,) in found if name[0] == "k"} - {"k0"}

    def has_built(self, column: str) -> bool | None:
        """Whether PostgreSQL's index on it can be used; None where there is none."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (f'camber."t10001.{column}"',)
            ).fetchone()
            return None if found is None else found[0]

    def end_building(self) -> None:
        """End the statement that makes an index, as PostgreSQL does when it finds out that its client is gone."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
            )

    def _ask(self, client: HttpClient, question: Question) -> list[list[Any]]:
        path, args = question.call
        answer = client.call(path, args, query=True)
        assert answer.end == "done", answer
        return answer.value

    def version(self, server: Server) -> str:
        with self.fleet.client(server) as client:
            answer = client.call("parcels:version", {}, query=True)
        assert answer.end == "done", answer
        return answer.value

    def put_unranked(self, server: Server) -> Answer:
        """What fits the old version only."""
        with self.fleet.client(server) as client:
            return client.call("parcels:putUnranked", {})

    def check_whole_index(self, server: Server) -> None:
        """The index that is new has all parcels, in its order, though everybody writes."""
        view, question = View(self.stocks), Question("all")
        view.catch_up()
        with self.fleet.client(server) as client:
            rows = self._ask(client, question)
        self.ledger.faults += view.look_at(question, rows)
        self.raise_faults()
        self._check_order(rows)

    def _check_order(self, rows: Sequence[Sequence[Any]]) -> None:
        parcels = {parcel.key: parcel for stock in self.stocks for parcel in [*stock.parcels]}
        places = [(parcels[owner, int(number)].shelf(int(rank)), rank) for owner, number, rank in rows]
        assert places == sorted(places)

    # Comparing

    def settle(self) -> None:
        """Everybody rests: what each server answers by each index, and what each live client holds, is what was acknowledged."""
        for caller in self._callers:
            caller.ask_to_stop()
        for caller in self._callers:
            caller.join()
        for client in self.clients:
            client.stops = True
        self.wait_until(lambda: all(client.is_at_rest for client in self.clients))
        for mover in self.movers:
            mover.finish()
        truth = {question: self.truth(question) for question in [*questions_about(self.stocks), Question("all")]}
        for server in self.fleet.servers:
            with self.fleet.client(server) as client:
                for question in truth:
                    rows = self._ask(client, question)
                    assert sorted(rows) == truth[question], (server.data.name, question)
                    if question.kind == "all":
                        self._check_order(rows)
        for client in self.clients:
            for question in client.held:
                self.wait_until(lambda q=question, c=client: sorted(c.held[q] or []) == truth[q])

    def truth(self, question: Question) -> list[list[Any]]:
        """What the answer must be, by what was acknowledged, when nothing is under way."""
        parcels = [parcel for stock in self.stocks for parcel in stock.parcels]
        assert all(parcel.told == parcel.asked for parcel in parcels)
        found = [parcel for parcel in parcels if question.has(parcel, parcel.told)]
        return sorted([*parcel.key, parcel.told] for parcel in found)


@pytest.fixture
def site(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    application = tmp_path / "application"
    shutil.copytree(VERSIONS / "old", application, ignore=shutil.ignore_patterns("__pycache__"))
    with Fleet(tmp_path, [postgres_url] * SERVERS, application=application, env=[UNHURRIED] * SERVERS) as fleet:
        site = Site(fleet, application, postgres_url)
        site.fill()
        yield site


# Rolling out


def put_in_place(site: Site) -> None:
    """The files of the new version; nobody has loaded them yet."""
    for file in (VERSIONS / "new").glob("*.py"):
        shutil.copyfile(file, site.application / file.name)


def restart(site: Site, server: Server) -> None:
    assert server.end(signal.SIGTERM) == 0, server.printed[-4000:]
    site.fleet.restart(server)


def reload(site: Site, server: Server) -> None:
    done = camber(site.application.parent, "reload", "--data", str(server.data))
    assert done.code == 0, done
    assert "index parcels.by_place is new" in done.out


def check_rules(site: Site, old: Sequence[Server], new: Sequence[Server]) -> None:
    """What does not fit the new version is refused by all, and the old ones say why."""
    for servers, reason in ((old, ANOTHER_VERSION), (new, OWN_VERSION)):
        for server in servers:
            answer = site.put_unranked(server)
            assert answer.end == "refused", f"{server.data.name} answers {answer}"
            assert reason in answer.reason


def check_replaced(site: Site, old: Sequence[Server], new: Sequence[Server]) -> None:
    """One more server has the new version, and what the others need is still there."""
    assert [site.version(server) for server in [*old, *new]] == ["old"] * len(old) + ["new"] * len(new)
    site.check_whole_index(new[-1])
    site.wait_for_writes([*old, *new])
    check_rules(site, old, new)
    if old:
        assert site.columns() == {BY_OWNER, BY_SHELF, BY_PLACE}
    site.check_whole_index(new[-1])


def replace_one_after_the_other(
    site: Site, old: Sequence[Server], new: Sequence[Server], replace: Callable[[Site, Server], None]
) -> None:
    for count, server in enumerate(old, 1):
        serving = [other for other in [*old, *new] if other is not server]
        with ThreadPoolExecutor(1) as pool:
            with psycopg.connect(site.url, autocommit=True) as another:
                another.execute("SELECT pg_advisory_lock(%s)", (SCHEMA_LOCK,))  # it waits, in the middle of its start
                replacing = pool.submit(replace, site, server)
                site.wait_until(lambda sql=another: sql.execute(WAITS_FOR_ANOTHER).fetchone() is not None)
                site.wait_for_writes(serving, 1)
                assert not replacing.done()
            replacing.result(PATIENCE)
        check_replaced(site, old[count:], [*new, *old[:count]])


def check_rolled_out(site: Site) -> None:
    """The new version is everywhere, and nothing is left of the old one."""
    site.wait_until(lambda: site.columns() == {BY_OWNER, BY_PLACE}, SECONDS_TO_CLEAR_AWAY)
    site.wait_for_writes(site.fleet.servers)
    site.settle()
    assert site.has_built(BY_OWNER)
    assert site.has_built(BY_PLACE)


def check_stored(site: Site) -> None:
    """What the servers leave behind agrees with itself: every document and each of its keys."""
    site.fleet.stop()
    contents = contents_of(site.fleet.servers[0].data, database_url=site.url)
    assert len(contents["parcels"]) == len(site.truth(Question("all")))


@pytest.mark.parametrize("replace", [restart, reload])
def test_a_new_version_goes_from_server_to_server_and_nobody_notices(
    site: Site, replace: Callable[[Site, Server], None]
) -> None:
    first, *others = site.fleet.servers

    def story() -> None:
        site.wait_for_writes(site.fleet.servers)
        assert [site.put_unranked(server).end for server in site.fleet.servers] == ["done"] * SERVERS
        put_in_place(site)

        # The first one makes the index, and takes its time: everybody else goes on.
        with ThreadPoolExecutor(1) as pool:
            with old_reader(site.url):
                replacing = pool.submit(replace, site, first)
                site.wait_until(lambda: site.has_built(BY_PLACE) is False)
                serving = others if replace is restart else site.fleet.servers
                site.wait_for_writes(serving, 15)
                check_rules(site, serving, [])
                assert site.columns() == {BY_OWNER, BY_SHELF, BY_PLACE}
                assert not replacing.done()
            replacing.result(PATIENCE)
        check_replaced(site, others, [first])

        replace_one_after_the_other(site, others, [first], replace)
        check_rolled_out(site)

        came = site.balancer.taken.total()
        assert came == LIVE_CLIENTS if replace is reload else came > LIVE_CLIENTS

    site.run(story)
    check_stored(site)


@only_long
@pytest.mark.torture
def test_a_server_that_is_killed_as_it_makes_the_index_is_started_again_and_nobody_notices(site: Site) -> None:
    first, *others = site.fleet.servers
    random = Random(SEED)

    def start_and_kill(when: Callable[[], bool]) -> None:
        first.start()
        site.wait_until(when)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL, first.printed[-4000:]
        if random.random() < 0.7:  # else PostgreSQL does so by itself, half a second later
            site.end_building()
        site.wait_for_writes(others)
        check_rules(site, others, [])

    def story() -> None:
        site.wait_for_writes(site.fleet.servers)
        put_in_place(site)
        assert first.end(signal.SIGTERM) == 0, first.printed[-4000:]
        with old_reader(site.url):
            start_and_kill(lambda: BY_PLACE in site.columns())
            start_and_kill(lambda: site.has_built(BY_PLACE) is False)
            for _ in range(rounds(20)):
                until = time.monotonic() + random.uniform(1.0, 4.0)
                start_and_kill(lambda until=until: time.monotonic() > until)
        site.fleet.restart(first)
        check_replaced(site, others, [first])

        replace_one_after_the_other(site, others, [first], restart)
        check_rolled_out(site)

    site.run(story)
    check_stored(site)
