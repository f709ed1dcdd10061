"""Commits: the order in which mutations take effect, their timestamps, and the creation times of documents."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber import MutationCtx, define_table, field, hours, v
from camber.clock import HeldClock, SystemEntropy
from camber.database import Database, Limits, committer
from camber.database.transaction import CreationTimes
from camber.errors import CamberError
from camber.storage import Timestamp
from tests.database.playground import Call, Playground, playground

EVENTS = define_table("events", v.any()).index("by_n", ["n"])


@pytest.fixture
def world() -> Any:
    with playground(EVENTS) as opened:
        yield opened


def insert(ctx: MutationCtx) -> str:
    return ctx.db.insert("events", {"n": ctx.db.query("events").count()})


def creation_times(world: Playground) -> list[float]:
    return [one["_creationTime"] for one in world.all("events")]


def timestamps_of_log(world: Playground) -> list[int]:
    storage = world.backend.engine.database.storage
    return [row.timestamp for row in storage.commits_after(Timestamp(0))]


def strictly_growing(numbers: list[Any]) -> bool:
    return all(one < other for one, other in pairwise(numbers))


def test_each_mutation_sees_those_before_it_and_is_committed_after_them(world: Playground) -> None:
    world.in_one_group(*([insert] * 10))

    events = world.all("events")
    assert [one["n"] for one in events] == [float(n) for n in range(10)]


def test_timestamps_grow_while_the_clock_stands_still(world: Playground) -> None:
    timestamps = [world.write_at(insert) for _ in range(20)]

    assert strictly_growing(timestamps)


def test_a_timestamp_is_the_time_of_the_commit(world: Playground) -> None:
    world.backend.clock.advance(hours(1))

    assert world.write_at(insert) == pytest.approx(world.backend.clock.now_ns(), abs=10_000)


def test_the_members_of_a_group_take_consecutive_timestamps_and_the_group_s_is_the_last(world: Playground) -> None:
    before = world.backend.engine.database.last_timestamp
    found: list[int] = []

    def in_a_group(number: int) -> None:
        outcome = world.backend.engine.run_sync("play:write", b'{"body": %d}' % number, world.backend.caller)
        found.append(outcome.timestamp)

    bodies = {1000 + n: insert for n in range(6)}
    world._bodies.update(bodies)
    world.in_one_group(*[lambda ctx, n=n: insert(ctx) for n in range(3)])
    calls = [Call(in_a_group, number) for number in bodies]
    for call in calls:
        assert call.outcome() is None

    last = world.backend.engine.database.last_timestamp
    assert strictly_growing(sorted(found))
    assert min(found) > before
    assert max(found) == last == timestamps_of_log(world)[-1]


def test_a_mutation_that_wrote_nothing_has_the_timestamp_of_what_it_saw(world: Playground) -> None:
    written = world.write_at(insert)

    assert world.write_at(lambda ctx: ctx.db.query("events").collect()) == written
    assert world.backend.engine.database.last_timestamp == written


def test_a_query_tells_the_timestamp_of_the_state_it_saw(world: Playground) -> None:
    written = world.write_at(insert)
    world._bodies[999] = lambda ctx: ctx.db.query("events").collect()

    assert world.backend.engine.run_sync("play:read", b'{"body": 999}', world.backend.caller).timestamp == written


def test_timestamps_and_creation_times_grow_across_a_restart_with_the_clock_set_back(world: Playground) -> None:
    timestamps = [world.write_at(insert) for _ in range(3)]
    for step in (-hours(24 * 365), 0, -hours(24 * 365)):
        world.restart(clock=HeldClock(world.backend.clock.now_ms + step))
        timestamps += [world.write_at(insert) for _ in range(3)]

    assert strictly_growing(timestamps)
    assert strictly_growing(creation_times(world))
    assert [one["n"] for one in world.all("events")] == [float(n) for n in range(12)]


def test_creation_times_grow_strictly_while_the_clock_stands_still(world: Playground) -> None:
    world.insert("events", *({} for _ in range(500)))
    world.in_one_group(insert, insert, insert)
    times = creation_times(world)

    assert strictly_growing(times)
    assert len(times) == 503
    assert times[0] == pytest.approx(world.backend.clock.now_ms, abs=0.01)


def test_a_creation_time_is_never_given_twice_even_to_what_was_rolled_back(world: Playground) -> None:
    seen: list[float] = []

    def fail(ctx: MutationCtx) -> None:
        found = ctx.db.get(ctx.db.insert("events", {})) or {}
        seen.append(found["_creationTime"])
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            world.write(fail)
    world.insert("events", {})

    assert strictly_growing([*seen, *creation_times(world)])


@given(st.floats(1e11, 9.2e12), st.integers(1, 50))
def test_what_a_timestamp_keeps_of_the_creation_times_is_not_below_them(now_ms: float, count: int) -> None:
    times = CreationTimes()
    last = [times.next(now_ms) for _ in range(count)][-1]

    assert CreationTimes(times.end_ns() / 1e6).next(now_ms - 1000) > last


def test_one_failure_in_a_group_takes_nothing_from_the_others(world: Playground) -> None:
    def fails(ctx: MutationCtx) -> None:
        insert(ctx)
        raise ZeroDivisionError

    first, error, second, other_error, third = world.in_one_group(insert, fails, insert, fails, insert)

    assert [type(one) for one in (error, other_error)] == [ZeroDivisionError] * 2
    assert [one["_id"] for one in world.all("events")] == [first, second, third]
    assert [one["n"] for one in world.all("events")] == [0, 1, 2]


def test_a_group_is_one_transaction_in_the_log(world: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        committer, "MAX_GROUP_SECONDS", 60.0
    )  # on a busy machine 20 may take longer than a group usually may
    before = len(timestamps_of_log(world))
    world.in_one_group(*([insert] * 20))

    assert len(timestamps_of_log(world)) == before + 1


def test_what_a_commit_touched_is_in_the_log(world: Playground) -> None:
    from camber.database.reads import Touched

    [id] = world.insert("events", {"n": 7})
    storage, table = world.backend.engine.database.storage, world.backend.engine.database.catalog.by_name["events"]
    touched = Touched.decode(storage.commits_after(Timestamp(0))[-1].touched)

    assert touched.keys[table.number, -1] == (b"\x07" + id.encode() + b"\x00",)
    assert len(touched.keys[table.number, 0]) == len(touched.keys[table.number, table.index("by_n").number]) == 1


def test_a_mutation_may_range_over_what_it_and_its_group_wrote(world: Playground) -> None:
    def newest(ctx: MutationCtx) -> list[float]:
        insert(ctx)
        return [one["n"] for one in ctx.db.query("events").with_index("by_n", field("n") >= 1).collect()]

    assert world.in_one_group(newest, newest, newest) == [[], [1], [1, 2]]


def test_mutations_that_come_after_the_end_are_refused(world: Playground) -> None:
    database: Database = world.backend.engine.database
    world.close()

    class Late:
        seconds = 1.0
        error: Exception | None = None

        def run(self, transaction: Any) -> None:
            raise AssertionError

        def settle(self, timestamp: Timestamp | None, error: Exception | None) -> None:
            self.error = error

    late = Late()
    database.submit(late)

    assert isinstance(late.error, CamberError)


def test_a_database_can_be_used_without_a_backend(tmp_path: Any, database_url: str) -> None:
    from camber import define_schema
    from camber.storage import open_storage

    storage = open_storage(tmp_path / "data", create=True, durable=False, database_url=database_url)
    database = Database(storage, define_schema(EVENTS), clock=HeldClock(), entropy=SystemEntropy(), limits=Limits())
    with database.snapshot() as snapshot:
        assert database.transaction(snapshot).table("events") is not None
    database.close()
