"""Many threads at once: nothing is lost, nobody wins twice, and every answer is of one moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from camber import MutationCtx, QueryBuildError, QueryCtx, UniqueIndexError, define_schema, define_table, v
from camber.functions import application_of
from camber.identity import Caller
from camber.testing import Backend
from tests.database.playground import PATIENCE, UNHURRIED, Call, Playground, playground

COUNTERS = define_table("counters", v.any()).index("by_name", ["name"])
APP_STATE = define_table("app_state", v.any()).index("by_key", ["key"], unique=True)
LOOSE_STATE = define_table("loose_state", v.any()).index("by_key", ["key"])
BACKERS = define_table("backers", v.any()).index("by_code", ["code"], unique=True).index("by_used", ["usedBy"])
TABLES = (COUNTERS, APP_STATE, LOOSE_STATE, BACKERS)


@pytest.fixture
def world() -> Iterator[Playground]:
    with playground(*TABLES) as opened:
        yield opened


def in_threads(count: int, body: Callable[[int], Any]) -> list[Any]:
    """Run the body in so many threads that begin together; gives what each returned or raised."""
    begin = threading.Barrier(count)

    def run(number: int) -> Any:
        begin.wait()
        return body(number)

    calls = [Call(run, number) for number in range(count)]
    return [call.outcome() for call in calls]


def increment(ctx: MutationCtx, *names: str) -> float:
    value = 0.0
    for name in names:
        found = ctx.db.query("counters").with_index("by_name", name=name).unique()
        value = 0.0 if found is None else found["value"]
        if found is None:
            ctx.db.insert("counters", {"name": name, "value": 1})
        else:
            ctx.db.patch(found["_id"], {"value": value + 1})
    return value + 1


def test_twenty_threads_that_read_and_write_back_lose_nothing(world: Playground) -> None:
    each = 50
    found = in_threads(20, lambda _: [world.write(lambda ctx: increment(ctx, "c")) for _ in range(each)])

    reached = [value for values in found for value in values]
    assert sorted(reached) == [float(n) for n in range(1, 20 * each + 1)]
    assert all(values == sorted(values) for values in found)
    assert [one["value"] for one in world.all("counters")] == [20 * each]


def test_every_outcome_is_that_of_the_order_of_the_timestamps(world: Playground) -> None:
    """Each mutation multiplies and adds, which gives another result in any other order."""
    [id] = world.insert("counters", {"name": "c", "value": 1})
    done: list[tuple[int, int]] = []

    def step(number: int) -> Callable[[MutationCtx], None]:
        def body(ctx: MutationCtx) -> None:
            found = ctx.db.get(id) or {}
            ctx.db.patch(id, {"value": (found["value"] * 3 + number) % 1_000_003})

        return body

    in_threads(
        8, lambda thread: [done.append((world.write_at(step(n)), n)) for n in range(thread * 20, thread * 20 + 20)]
    )

    value = 1
    for _, number in sorted(done):
        value = (value * 3 + number) % 1_000_003
    assert [one["value"] for one in world.all("counters")] == [value]
    assert len({timestamp for timestamp, _ in done}) == 160


@pytest.mark.parametrize("table", ["app_state", "loose_state"])
def test_first_upserts_of_a_singleton_at_the_same_moment_leave_one_document(world: Playground, table: str) -> None:
    def upsert(number: int) -> Callable[[MutationCtx], None]:
        def body(ctx: MutationCtx) -> None:
            found = ctx.db.query(table).with_index("by_key", key="config").first()
            if found is None:
                ctx.db.insert(table, {"key": "config", "value": number})
            else:
                ctx.db.patch(found["_id"], {"value": number})

        return body

    assert in_threads(10, lambda number: world.write(upsert(number))) == [None] * 10
    assert len(world.all(table)) == 1


def test_inserting_one_key_at_the_same_moment_has_one_winner(world: Playground) -> None:
    found = in_threads(10, lambda n: world.write(lambda ctx: ctx.db.insert("app_state", {"key": "config", "n": n})))

    winners = [one for one in found if isinstance(one, str)]
    assert [type(one) for one in found if not isinstance(one, str)] == [UniqueIndexError] * 9
    assert [one["_id"] for one in world.all("app_state")] == winners


def test_two_hundred_claims_of_one_code_have_one_winner(world: Playground) -> None:
    world.insert("backers", {"code": "X1", "usedBy": None}, {"code": "X2", "usedBy": None})

    def claim(number: int) -> Callable[[MutationCtx], bool]:
        def body(ctx: MutationCtx) -> bool:
            backer = ctx.db.query("backers").with_index("by_code", code="X1").unique()
            if backer is None or backer["usedBy"] is not None:
                return False
            ctx.db.patch(backer["_id"], {"usedBy": f"user {number}"})
            return True

        return body

    found = in_threads(200, lambda number: world.write(claim(number)))

    assert found.count(True) == 1
    assert found.count(False) == 199
    assert [one["usedBy"] for one in world.all("backers")] == [f"user {found.index(True)}", None]


def test_tables_that_many_create_at_once_are_created_once(world: Playground) -> None:
    names = ("red", "green", "blue")
    found = in_threads(12, lambda n: world.write(lambda ctx: ctx.db.insert(names[n % 3], {"n": n})))

    assert all(isinstance(one, str) for one in found)
    for place, name in enumerate(names):
        assert sorted(one["n"] for one in world.all(name)) == [n for n in range(12) if n % 3 == place]


# Readers beside writers


def test_every_query_sees_one_moment(world: Playground) -> None:
    """Two counters that are always raised together are never seen apart, however they are read."""
    world.write(lambda ctx: increment(ctx, "a", "b"))
    stop, looks = threading.Event(), [0] * 4

    def both(ctx: QueryCtx) -> list[float]:
        def value(name: str) -> float:
            found = ctx.db.query("counters").with_index("by_name", name=name).unique() or {}
            return found["value"]

        first = value("a")
        time.sleep(0.0005)
        everything = [one["value"] for one in ctx.db.query("counters").collect()]
        return [first, value("b"), *everything]

    def read_on(reader: int) -> None:
        last = 0.0
        while not stop.is_set():
            values = world.read(both)
            assert len(set(values)) == 1, values
            assert values[0] >= last
            last = values[0]
            looks[reader] += 1

    readers = [Call(read_on, reader) for reader in range(len(looks))]
    for _ in range(200):
        world.write(lambda ctx: increment(ctx, "a", "b"))
    while not all(looks) and all(reader.is_alive() for reader in readers):  # one of them may have come late
        world.write(lambda ctx: increment(ctx, "a", "b"))
    stop.set()

    assert [reader.outcome() for reader in readers] == [None] * len(readers)
    assert all(looks)


def counter_backend() -> Backend:
    """A backend whose query is cached, unlike the playground's."""

    def get(ctx: QueryCtx) -> float:
        return sum(one["value"] for one in ctx.db.query("counters").with_index("by_name", name="a").collect())

    def add(ctx: MutationCtx) -> float:
        return increment(ctx, "a")

    return Backend.in_memory(define_schema(*TABLES), {"c:get": get, "c:add": add}, settings=UNHURRIED)


def test_no_answer_is_older_than_an_acknowledged_write() -> None:
    with counter_backend() as backend:
        acknowledged, stop = [0.0], threading.Event()

        def read_on() -> int:
            seen = 0
            while not stop.is_set():
                at_least = acknowledged[0]
                found = backend.run("c:get", {})
                assert found >= at_least, (found, at_least)
                at_least = acknowledged[0]
                kept = backend.engine.cached("c:get", b"{}", Caller(is_admin=True))
                assert kept is None or float(kept.value or b"") >= at_least
                seen += 1
            return seen

        readers = [Call(read_on) for _ in range(4)]
        for _ in range(300):
            acknowledged[0] = backend.run("c:add", {})
        stop.set()

        assert all(isinstance(reader.outcome(), int) for reader in readers)
        assert backend.run("c:get", {}) == 300


def test_everybody_sees_their_own_acknowledged_writes() -> None:
    with counter_backend() as backend:

        def write_and_read(_: int) -> bool:
            for _ in range(40):
                mine = backend.run("c:add", {})
                if backend.run("c:get", {}) < mine:
                    return False
            return True

        assert in_threads(8, write_and_read) == [True] * 8
        assert backend.run("c:get", {}) == 320


def test_queries_go_on_while_the_schema_changes() -> None:
    """An index comes and goes under readers that use it while it is there, and writers that fill it."""

    def smallest(ctx: QueryCtx) -> Any:
        return ctx.db.query("counters").with_index("by_name").first()

    def through_the_new_one(ctx: QueryCtx) -> bool:
        try:
            found = ctx.db.query("counters").with_index("by_other").take(50)
        except QueryBuildError:
            return False
        assert [one["other"] for one in found] == sorted(one["other"] for one in found)
        return True

    def add(ctx: MutationCtx, *, n: int) -> None:
        ctx.db.insert("counters", {"name": f"{n}", "value": n, "other": -n})

    functions = {"c:smallest": smallest, "c:through": through_the_new_one, "c:add": add}
    plain = define_schema(COUNTERS)
    richer = define_schema(COUNTERS.index("by_other", ["other"]), define_table("extra", v.any()).index("by_x", ["x"]))
    with Backend.in_memory(plain, functions, settings=UNHURRIED) as backend:
        engine, stop = backend.engine, threading.Event()
        served = dict(engine.application.functions)

        def read_on() -> int:
            seen = 0
            while not stop.is_set():
                backend.run("c:smallest", {})
                seen += backend.run("c:through", {})
            return seen

        def write_on() -> int:
            written = 0
            while not stop.is_set():
                backend.run("c:add", {"n": written})
                written += 1
            return written

        calls = [Call(read_on), Call(read_on), Call(write_on)]
        for round_ in range(12):
            engine.reload_sync(application_of("in_memory", plain if round_ % 2 else richer, served))
        stop.set()
        seen = [call.outcome() for call in calls]

        assert all(isinstance(one, int) for one in seen), seen
        assert len(backend.sql("SELECT * FROM counters")) == seen[-1]


def test_closing_answers_everybody_who_waits(world: Playground) -> None:
    started = threading.Event()

    def slow(ctx: MutationCtx) -> str:
        started.set()
        time.sleep(0.2)
        return ctx.db.insert("counters", {"name": "slow"})

    first = Call(world.write, slow)
    assert started.wait(PATIENCE)
    others = [Call(world.write, lambda ctx: increment(ctx, "c")) for _ in range(20)]
    readers = [Call(world.read, lambda ctx: ctx.db.query("counters").count()) for _ in range(20)]
    time.sleep(0.05)
    world.close()

    assert isinstance(first.outcome(), str)
    for call in (*others, *readers):
        assert isinstance(call.outcome(), float | int | Exception)
