"""The interleavings that other databases get wrong, made certain: outcomes are those of one after another, and nobody's mutation fails.

On PostgreSQL two servers of one database run the two mutations at the same time, and what one of them has read is old by the time
it commits. On SQLite there is one server with one writer: they run one after another, and the outcome must be the same.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from camber import ConvexError, Document, MutationCtx, QueryCtx, define_schema, define_table, field
from camber.backend import Backend as Engine
from camber.database import committer
from camber.functions import application_of, mutation, query
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import open_storage
from tests.database.playground import Call

READ, WRITE = "play:read", "play:write"
PATIENCE = 30.0


class Thing(Document):
    """Something with a number, at a place; `key` is unique."""

    key: str
    place: float
    value: float


things = define_table("things", Thing).index("by_key", ["key"], unique=True).index("by_place", ["place"])
slow_things = define_table("slow_things", Thing)
"""A test makes reading them take a while."""

SCHEMA = define_schema(things, slow_things)


class Servers:
    """Two servers of one database, called 0 and 1; or one that answers to both numbers. Functions do what a test hands them."""

    def __init__(self, folder: Path, database_url: str, stack: ExitStack) -> None:
        self.are_two, self.database_url = bool(database_url), database_url
        self._bodies: dict[int, Callable[[Any], Any]] = {}
        self._numbers = itertools.count()
        opened = [self._open(folder / f"data {number}", database_url, stack) for number in range(1 + self.are_two)]
        self._engines = [opened[0], opened[-1]]

    def write(self, server: int, body: Callable[[MutationCtx], Any]) -> tuple[Any, int]:
        """Run this as a mutation of this server; what its last run returned, and the timestamp."""
        return self._run(server, WRITE, body)

    def read(self, server: int, body: Callable[[QueryCtx], Any]) -> tuple[Any, int]:
        """Run this as a query of this server; the same."""
        return self._run(server, READ, body)

    def wait_until_waiting(self, server: int, count: int) -> None:
        """Return when so many mutations wait for the writer of this server."""
        deadline = time.monotonic() + PATIENCE
        while self._engines[server].database.waiting_mutations < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _open(self, data: Path, database_url: str, stack: ExitStack) -> Engine:
        def read(ctx: QueryCtx, *, body: int) -> Any:
            return self._bodies[body](ctx)

        def write(ctx: MutationCtx, *, body: int) -> Any:
            return self._bodies[body](ctx)

        application = application_of("interleavings", SCHEMA, {READ: query(read), WRITE: mutation(write)})
        storage = open_storage(data, create=True, durable=False, database_url=database_url)
        # Those that wait for each other here do so for as long as a busy machine needs.
        settings = Settings(dev=True, mutation_seconds=PATIENCE, query_seconds=PATIENCE)
        return stack.enter_context(closing(Engine(application, storage, data=data, settings=settings)))

    def always(self, body: Callable[[QueryCtx], Any]) -> Callable[[int], Any]:
        """A query of always the same arguments, so that its result is kept; to be called with the number of a server."""
        number = next(self._numbers)
        self._bodies[number] = body
        return lambda server: self._call(server, READ, number)[0]

    def _run(self, server: int, path: str, body: Callable[[Any], Any]) -> tuple[Any, int]:
        number = next(self._numbers)
        self._bodies[number] = body
        return self._call(server, path, number)

    def _call(self, server: int, path: str, number: int) -> tuple[Any, int]:
        outcome = self._engines[server].run_sync(path, b'{"body": %d}' % number, OPERATOR)
        if isinstance(outcome.exception, ConvexError):
            raise ConvexError(outcome.exception.data)
        assert outcome.ok, outcome.error
        assert outcome.value is not None
        return json.loads(outcome.value), outcome.timestamp


@pytest.fixture(params=["sqlite", "postgres"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    database_url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    with ExitStack() as stack:
        yield Servers(tmp_path, database_url, stack)


class Overtaken:
    """A mutation on server 1 that has read, and goes on only when others have done something on server 0.

    `look` is the part that reads and `act` the rest, which is told what was read. On SQLite nobody can come between.
    """

    def __init__(self, servers: Servers, look: Callable[[MutationCtx], Any], act: Callable[[MutationCtx, Any], Any]):
        self.runs = 0
        self._servers, self._look, self._act = servers, look, act
        self._has_read, self._may_go_on = threading.Event(), threading.Event()
        self._call = Call(servers.write, 1, self._body)
        assert self._has_read.wait(PATIENCE)
        if not servers.are_two:
            self.outcome()

    def outcome(self) -> Any:
        """Let it go on; what it returned and the timestamp, or what it raised."""
        self._may_go_on.set()
        return self._call.outcome()

    @property
    def was_run_again(self) -> bool:
        """Whether it went as it must: what it had read was old where there are two servers."""
        return self.runs == (2 if self._servers.are_two else 1)

    def _body(self, ctx: MutationCtx) -> Any:
        self.runs += 1
        found = self._look(ctx)
        self._has_read.set()
        assert not self._servers.are_two or self._may_go_on.wait(PATIENCE)
        return self._act(ctx, found)


def put(servers: Servers, **values: float) -> None:
    """Put these on the shelf, in one mutation; key and value, which is the place too."""
    servers.write(0, lambda ctx: [insert(ctx, key, value) for key, value in values.items()])


def insert(ctx: MutationCtx, key: str, value: float) -> str:
    return ctx.db.insert(things, {"key": key, "place": value, "value": value})


def get(ctx: QueryCtx, key: str) -> float | None:
    found = ctx.db.query(things).with_index("by_key", key=key).unique()
    return None if found is None else found["value"]


def give(ctx: MutationCtx, key: str, value: float) -> float:
    found = ctx.db.query(things).with_index("by_key", key=key).unique()
    assert found is not None
    ctx.db.patch(things, found["_id"], {"value": value})
    return value


def all_values(servers: Servers, server: int = 0) -> dict[str, float]:
    return servers.read(server, lambda ctx: {each["key"]: each["value"] for each in ctx.db.query(things)})[0]


def test_an_update_is_not_lost(servers: Servers) -> None:
    put(servers, x=0)

    second = Overtaken(servers, lambda ctx: get(ctx, "x"), lambda ctx, x: give(ctx, "x", x + 1))
    first, _ = servers.write(0, lambda ctx: give(ctx, "x", (get(ctx, "x") or 0) + 1))
    returned, _ = second.outcome()

    assert {first, returned} == {1, 2}
    assert all_values(servers, 0) == all_values(servers, 1) == {"x": 2}
    assert second.was_run_again


def test_two_that_overtake_each_other_lose_nothing(servers: Servers) -> None:
    """Each has read when both go on: one of them commits first, whichever."""
    put(servers, x=0)
    meeting, runs = threading.Barrier(2 if servers.are_two else 1), list[int]()

    def count_on(ctx: MutationCtx) -> float:
        x = get(ctx, "x") or 0
        runs.append(threading.get_ident())
        if runs.count(threading.get_ident()) == 1:
            meeting.wait(PATIENCE)
        return give(ctx, "x", x + 1)

    calls = [Call(servers.write, server, count_on) for server in (0, 1)]

    assert sorted(call.outcome()[0] for call in calls) == [1, 2]
    assert all_values(servers) == {"x": 2}
    assert len(runs) == (3 if servers.are_two else 2)


def test_of_two_on_call_one_stays(servers: Servers) -> None:
    """Write skew: each leaves if the other one stays."""
    put(servers, ann=1, bob=1)

    def on_call(ctx: QueryCtx) -> list[float | None]:
        return [get(ctx, "ann"), get(ctx, "bob")]

    def leave(ctx: MutationCtx, name: str, there: list[float | None]) -> bool:
        if there == [1, 1]:
            give(ctx, name, 0)
        return there == [1, 1]

    bob = Overtaken(servers, on_call, lambda ctx, there: leave(ctx, "bob", there))
    ann_left, _ = servers.write(0, lambda ctx: leave(ctx, "ann", on_call(ctx)))
    bob_left, _ = bob.outcome()

    assert [ann_left, bob_left].count(True) == 1
    assert sorted(all_values(servers).values()) == [0, 1]
    assert bob.was_run_again


LOOKS: dict[str, Callable[[QueryCtx], int]] = {
    "count": lambda ctx: below_ten(ctx).count(),
    "collect": lambda ctx: len(below_ten(ctx).collect()),
    "first": lambda ctx: 0 if below_ten(ctx).first() is None else 1,
    "last": lambda ctx: 0 if below_ten(ctx).order("desc").first() is None else 1,
    "page": lambda ctx: len(below_ten(ctx).paginate({"numItems": 3, "cursor": None})["page"]),
    "filter": lambda ctx: len(ctx.db.query(things).filter(field("place") < 10).collect()),
    "key": lambda ctx: 0 if get(ctx, "new 0") is None and get(ctx, "new 1") is None else 1,
}


def below_ten(ctx: QueryCtx) -> Any:
    return ctx.db.query(things).with_index("by_place", field("place") < 10)


def put_if_none(ctx: MutationCtx, key: str, found: int) -> bool:
    if found == 0:
        insert(ctx, key, 5)
    return found == 0


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_a_row_that_was_not_there_is_noticed(servers: Servers, look: Callable[[QueryCtx], int]) -> None:
    """A phantom: each adds a row where it has found none."""
    put(servers, old=20)

    second = Overtaken(servers, look, lambda ctx, found: put_if_none(ctx, "new 1", found))
    first, _ = servers.write(0, lambda ctx: put_if_none(ctx, "new 0", look(ctx)))
    returned, _ = second.outcome()

    assert [first, returned].count(True) == 1
    assert len(all_values(servers)) == 2
    assert second.was_run_again


@pytest.mark.parametrize("look", [LOOKS[name] for name in ("count", "collect", "first", "last", "page", "filter")])
def test_a_row_that_moves_into_a_range_is_noticed(servers: Servers, look: Callable[[QueryCtx], int]) -> None:
    put(servers, ann=20, bob=30)

    def move_in(ctx: MutationCtx, key: str, found: int) -> bool:
        thing = ctx.db.query(things).with_index("by_key", key=key).unique()
        if found == 0 and thing is not None:
            ctx.db.patch(things, thing["_id"], {"place": 5})
        return found == 0

    bob = Overtaken(servers, look, lambda ctx, found: move_in(ctx, "bob", found))
    ann_is_in, _ = servers.write(0, lambda ctx: move_in(ctx, "ann", look(ctx)))
    bob_is_in, _ = bob.outcome()

    assert [ann_is_in, bob_is_in].count(True) == 1
    assert servers.read(0, lambda ctx: below_ten(ctx).count())[0] == 1
    assert bob.was_run_again


def test_a_row_that_goes_is_noticed(servers: Servers) -> None:
    put(servers, x=1)

    def drop(ctx: MutationCtx) -> None:
        found = ctx.db.query(things).with_index("by_key", key="x").unique()
        assert found is not None
        ctx.db.delete(things, found["_id"])

    writer = Overtaken(
        servers,
        lambda ctx: get(ctx, "x"),
        lambda ctx, x: insert(ctx, "x", 7) if x is None else give(ctx, "x", x + 1),
    )
    servers.write(0, drop)
    writer.outcome()

    assert all_values(servers) == ({"x": 7} if servers.are_two else {})
    assert writer.was_run_again


def test_who_makes_a_key_that_another_has_made_meanwhile_is_told_so_and_only_then(servers: Servers) -> None:
    """It did not look; the index is what it runs into. That is no conflict to be shown before it has been run again."""

    def make(ctx: MutationCtx, _: object) -> str:
        try:
            insert(ctx, "x", 2)
        except ConvexError as error:
            return f"{error.data}: there is {get(ctx, 'x')}"
        return "made"

    second = Overtaken(servers, lambda ctx: None, make)
    first, _ = servers.write(0, lambda ctx: make(ctx, None))
    told, _ = second.outcome()

    refusal = {"code": "UniqueIndexViolation", "table": "things", "index": "by_key"}
    assert sorted([first, told]) == ["made", f"{refusal}: there is 2.0"]
    assert all_values(servers) == {"x": 2}
    assert second.was_run_again


def test_a_report_between_two_does_not_make_them_impossible(servers: Servers) -> None:
    """The anomaly of a transaction that only reads (Fekete, O'Neil and O'Neil, 2004).

    Who withdraws pays a penalty if both accounts together have too little. A report shows the deposit and no withdrawal: so the
    withdrawal comes behind the deposit, and there is no penalty.
    """
    put(servers, x=0, y=0)

    def balances(ctx: QueryCtx) -> list[float]:
        return [get(ctx, "x") or 0, get(ctx, "y") or 0]

    def withdraw(ctx: MutationCtx, seen: list[float]) -> float:
        return give(ctx, "x", seen[0] - 10 - (1 if sum(seen) < 10 else 0))

    withdrawal = Overtaken(servers, balances, withdraw)
    _, deposited_at = servers.write(0, lambda ctx: give(ctx, "y", 20))
    reports = [servers.read(server, balances) for server in (0, 1)]
    x, withdrawn_at = withdrawal.outcome()

    if servers.are_two:
        assert [report for report, _ in reports] == [[0, 20], [0, 20]]
        assert deposited_at <= reports[0][1] < withdrawn_at
        assert x == -10
    else:
        assert [report for report, _ in reports] == [[-11, 20], [-11, 20]]
    assert all_values(servers) == {"x": x, "y": 20}
    assert withdrawal.was_run_again


def test_two_that_write_in_opposite_orders_both_end(servers: Servers) -> None:
    """Where rows were locked as they are written, they would wait for each other."""
    put(servers, x=0, y=0)

    second = Overtaken(servers, lambda ctx: give(ctx, "y", 2), lambda ctx, _: give(ctx, "x", 2))
    servers.write(0, lambda ctx: [give(ctx, "x", 1), give(ctx, "y", 1)])
    second.outcome()

    assert all_values(servers) == ({"x": 2, "y": 2} if servers.are_two else {"x": 1, "y": 1})


def test_a_mutation_that_only_reads_tells_the_state_of_its_timestamp(servers: Servers) -> None:
    put(servers, x=0)

    reader = Overtaken(servers, lambda ctx: get(ctx, "x"), lambda ctx, x: x)
    _, written_at = servers.write(0, lambda ctx: give(ctx, "x", 1))
    x, at = reader.outcome()

    assert x == (1 if at >= written_at else 0)


def test_a_mutation_that_writes_without_reading_is_in_nobodys_way(servers: Servers) -> None:
    second = Overtaken(servers, lambda ctx: None, lambda ctx, _: insert(ctx, "mine", 1))
    servers.write(0, lambda ctx: insert(ctx, "other", 1))
    second.outcome()

    assert all_values(servers) == {"mine": 1, "other": 1}
    assert second.runs == 1


def test_what_was_acknowledged_anywhere_is_seen_everywhere(servers: Servers) -> None:
    """Also by queries whose result was kept, and by mutations."""
    put(servers, x=0)
    always = servers.always(lambda ctx: get(ctx, "x"))
    for number in range(1, 20):
        servers.write(number % 2, lambda ctx, number=number: give(ctx, "x", number))
        asked = [always(server) for server in (0, 0, 1, 1)]
        asked += [servers.read(server, lambda ctx: get(ctx, "x"))[0] for server in (0, 1)]
        asked += [servers.write(server, lambda ctx: get(ctx, "x"))[0] for server in (0, 1)]
        assert asked == [number] * 8


def test_timestamps_are_of_one_order_on_all_servers(servers: Servers) -> None:
    put(servers, x=0)
    timestamps = [
        servers.write(number % 2, lambda ctx, number=number: give(ctx, "x", number))[1] for number in range(30)
    ]
    assert timestamps == sorted(set(timestamps))


class OpenGroup:
    """A group of mutations on server 1 that stays open, since its first member waits for PostgreSQL."""

    def __init__(self, servers: Servers) -> None:
        self._servers, self._calls = servers, list[Call]()
        self._blocking = psycopg.connect(servers.database_url)
        self._blocking.execute("LOCK TABLE camber.slow_things IN ACCESS EXCLUSIVE MODE")
        self._first = Call(servers.write, 1, lambda ctx: ctx.db.query(slow_things).first())
        deadline = time.monotonic() + PATIENCE
        with psycopg.connect(servers.database_url, autocommit=True) as onlooker:
            while not onlooker.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL").fetchall():
                assert time.monotonic() < deadline
                time.sleep(0.005)

    def join(self, body: Callable[[MutationCtx], Any]) -> None:
        """Have this run in the group: on its snapshot, behind those that joined before."""
        self._calls.append(Call(self._servers.write, 1, body))
        self._servers.wait_until_waiting(1, len(self._calls))

    def go_on(self) -> list[Any]:
        """Let it end; what those that joined returned, and their timestamps."""
        self._blocking.close()
        self._first.outcome()
        return [call.outcome() for call in self._calls]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._blocking.close()


@pytest.fixture
def two_servers(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """On PostgreSQL. A group takes in all that wait, however slow the machine is."""
    monkeypatch.setattr(committer, "MAX_GROUP_SECONDS", 60.0)
    with ExitStack() as stack:
        yield Servers(tmp_path, postgres_url, stack)


def test_who_joins_a_group_sees_what_was_acknowledged_before(two_servers: Servers) -> None:
    """The group's snapshot is older. Also for one that only reads: nothing that it writes would meet another's."""
    put(two_servers, x=0)

    with OpenGroup(two_servers) as group:
        _, written_at = two_servers.write(0, lambda ctx: give(ctx, "x", 1))
        group.join(lambda ctx: get(ctx, "x"))
        ((x, at),) = group.go_on()

    assert x == 1
    assert at >= written_at


def test_who_has_seen_the_writes_of_one_that_lost_loses_too(two_servers: Servers) -> None:
    put(two_servers, x=1, y=1, z=1, other=1)
    runs: Counter[str] = Counter()

    def copy(ctx: MutationCtx, source: str, target: str) -> float:
        runs[target] += 1
        return give(ctx, target, (get(ctx, source) or 0) * 10)

    with OpenGroup(two_servers) as group:
        group.join(lambda ctx: copy(ctx, "x", "y"))
        group.join(lambda ctx: copy(ctx, "y", "z"))
        group.join(lambda ctx: copy(ctx, "other", "other"))
        two_servers.write(0, lambda ctx: give(ctx, "x", 2))
        ended = group.go_on()

    assert [value for value, _ in ended] == [20, 200, 10]
    assert all_values(two_servers) == {"x": 2, "y": 20, "z": 200, "other": 10}
    assert runs == {"y": 2, "z": 2, "other": 1}


def test_the_timestamps_of_a_groups_members_follow_each_other(two_servers: Servers) -> None:
    put(two_servers, x=0)

    with OpenGroup(two_servers) as group:
        for number in (1, 2, 3):
            group.join(lambda ctx, number=number: give(ctx, "x", number))
        group.join(lambda ctx: get(ctx, "x"))
        ended = group.go_on()

    first = ended[0][1]
    assert ended == [(1, first), (2, first + 1), (3, first + 2), (3, first + 2)]
