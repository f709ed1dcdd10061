"""Queries that share a run or a kept result: as fresh as a run of their own, and never somebody else's."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_table, internal_query, mutation, query, v
from camber.identity import Caller
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import ANONYMOUS, OPERATOR, PATIENCE, call, in_background, somebody, together, until

COUNTERS = define_table("counters", {"name": v.string(), "n": v.number()}).index("by_name", ["name"], unique=True)
FLAGS = define_table("flags", {"on": v.boolean()})

ANN, BOB = somebody("ann"), somebody("bob")
GATE, HELD = threading.Event(), threading.Event()
RUNS: list[str] = []


@pytest.fixture(autouse=True)
def _from_the_start(serve: Serve) -> Iterator[None]:
    GATE.clear()
    HELD.clear()
    RUNS.clear()
    yield
    GATE.set()


@query
def read(ctx: QueryCtx, *, name: str) -> float:
    RUNS.append(name)
    found = ctx.db.query(COUNTERS).with_index("by_name", name=name).unique()
    return found["n"] if found else 0.0


@mutation
def increment(ctx: MutationCtx, *, name: str) -> float:
    found = ctx.db.query(COUNTERS).with_index("by_name", name=name).unique()
    if found is None:
        ctx.db.insert(COUNTERS, {"name": name, "n": 1})
        return 1.0
    ctx.db.patch(found["_id"], {"n": found["n"] + 1})
    return found["n"] + 1


@query
def hold(ctx: QueryCtx) -> None:
    HELD.set()
    GATE.wait(PATIENCE)


@query
def greet(ctx: QueryCtx) -> str:
    """Looks at who asks only while a flag is set."""
    flag = ctx.db.query(FLAGS).first()
    if not flag or not flag["on"]:
        RUNS.append("everybody")
        return "hello"
    identity = ctx.auth.get_user_identity()
    RUNS.append(identity.subject if identity else "nobody")
    return f"hello {RUNS[-1]}"


@mutation
def set_flag(ctx: MutationCtx, *, on: bool) -> None:
    flag = ctx.db.query(FLAGS).first()
    if flag:
        ctx.db.patch(flag["_id"], {"on": on})
    else:
        ctx.db.insert(FLAGS, {"on": on})


@internal_query
def secret(ctx: QueryCtx) -> str:
    RUNS.append("secret")
    return "secret"


FUNCTIONS = {
    "it:read": read,
    "it:increment": increment,
    "it:hold": hold,
    "it:greet": greet,
    "it:setFlag": set_flag,
    "it:secret": secret,
}


def busy(backend: Backend) -> None:
    """Have the only query thread wait at the gate, so that what comes now waits together."""
    in_background(lambda: call(backend, "it:hold"))
    assert HELD.wait(PATIENCE)


def released(backend: Backend, *calls: tuple[str, dict[str, Any], Caller]) -> list[bytes | None]:
    """What calls give that come while the only thread is busy, and all wait when it is free again."""
    busy(backend)
    return [answer.value for answer in together(backend, *calls, then=GATE.set)]


@pytest.fixture
def backend(serve: Serve) -> Backend:
    return serve(FUNCTIONS, COUNTERS, FLAGS, query_threads=1)


# One run for many


def test_identical_queries_that_wait_run_once(backend: Backend) -> None:
    answers = released(backend, *[("it:read", {"name": "a"}, somebody(str(number))) for number in range(50)])

    assert answers == [b"0.0"] * 50
    assert RUNS == ["a"]


def test_the_order_of_fields_and_the_spelling_of_the_path_make_no_difference(serve: Serve) -> None:
    @query
    def pair(ctx: QueryCtx, *, a: float, b: float) -> float:
        RUNS.append("pair")
        return a + b

    backend = serve({"it:pair": pair})
    engine = backend.engine
    for path, args in (
        ("it:pair", b'{"a":1,"b":2}'),
        ("it.js:pair", b'[{"b":2.0,"a":1e0}]'),
        ("it:pair", b'{ "b": 2, "a": 1 }'),
    ):
        assert engine.run_sync(path, args, ANONYMOUS, kind="query").value == b"3.0"
    assert RUNS == ["pair"]


def test_different_arguments_are_run_apart(backend: Backend) -> None:
    released(backend, *[("it:read", {"name": name}, ANN) for name in "abab"])

    assert sorted(RUNS) == ["a", "b"]


# As fresh as a run of one's own


class SlowSnapshots:
    """A storage whose snapshots are open a while before anybody gets them."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def snapshot(self) -> Any:
        snapshot = self._storage.snapshot()
        time.sleep(0.005)
        return snapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_reads_are_never_older_than_writes_acknowledged_before_them(serve: Serve, threads: int, slowly: bool) -> None:
    backend = serve(FUNCTIONS, COUNTERS, FLAGS, query_threads=threads)
    if slowly:
        slow: Any = SlowSnapshots(backend.engine.database.storage)
        backend.engine.database.storage = slow
    names = "a" if slowly else "abc"  # many who ask for one thing, so that they share runs
    acknowledged = dict.fromkeys(names, 0.0)
    stop = threading.Event()
    stale: list[tuple[str, float, float]] = []

    def write(name: str) -> None:
        while not stop.is_set():
            acknowledged[name] = backend.run("it:increment", {"name": name})

    def look(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            name = chance.choice(names)
            least = acknowledged[name]
            found = backend.run("it:read", {"name": name})
            if found < least:
                stale.append((name, found, least))

    threads_ = [threading.Thread(target=write, args=(name,)) for name in names]
    threads_ += [threading.Thread(target=look, args=(seed,)) for seed in range(6)]
    for thread in threads_:
        thread.start()
    time.sleep(0.7)
    until(lambda: min(acknowledged.values()) > 1)
    stop.set()
    for thread in threads_:
        thread.join()

    assert stale == []


def test_a_query_that_has_begun_is_not_joined_by_one_that_may_know_more(serve: Serve) -> None:
    begun = threading.Event()

    @query
    def look(ctx: QueryCtx) -> int:
        found = ctx.db.query(COUNTERS).count()
        begun.set()
        GATE.wait(PATIENCE)
        return found

    backend = serve({**FUNCTIONS, "it:look": look}, COUNTERS, FLAGS)
    old = in_background(lambda: backend.run("it:look"))
    assert begun.wait(PATIENCE)
    backend.run("it:increment", {"name": "a"})
    new = in_background(lambda: backend.run("it:look"))
    time.sleep(0.1)
    GATE.set()

    assert (old.result(PATIENCE), new.result(PATIENCE)) == (0, 1)
    assert backend.run("it:look") == 1


# Never somebody else's


def test_everybody_in_a_shared_run_that_looks_at_its_caller_gets_their_own(backend: Backend) -> None:
    backend.run("it:setFlag", {"on": True})
    callers = [ANN, BOB, ANONYMOUS, ANN, OPERATOR, somebody("ann", team="red")]
    answers = released(backend, *[("it:greet", {}, caller) for caller in callers])

    assert answers == [f'"hello {name}"'.encode() for name in ("ann", "bob", "nobody", "ann", "nobody", "ann")]
    assert sorted(RUNS) == ["ann", "ann", "bob", "nobody", "nobody"]


def test_a_query_that_looks_at_its_caller_only_sometimes(backend: Backend) -> None:
    def greetings() -> list[bytes | None]:
        return [call(backend, "it:greet", by=caller).value for caller in (ANN, BOB, ANN, ANONYMOUS)]

    apart = [b'"hello ann"', b'"hello bob"', b'"hello ann"', b'"hello nobody"']
    assert greetings() == [b'"hello"'] * 4
    backend.run("it:setFlag", {"on": True})
    assert greetings() == apart
    assert greetings() == apart
    backend.run("it:setFlag", {"on": False})
    assert greetings() == [b'"hello"'] * 4
    assert RUNS == ["everybody", "ann", "bob", "nobody", "everybody"]


def test_it_never_leaks_while_it_turns_on_and_off(serve: Serve) -> None:
    backend = serve(FUNCTIONS, COUNTERS, FLAGS)
    stop = threading.Event()
    wrong: list[Any] = []

    def ask(name: str) -> None:
        while not stop.is_set():
            value = call(backend, "it:greet", by=somebody(name)).value
            if value not in (b'"hello"', f'"hello {name}"'.encode()):
                wrong.append((name, value))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("ann", "bob", "carl", "ann")]
    for thread in threads:
        thread.start()
    for turn in range(40):
        backend.run("it:setFlag", {"on": turn % 2 == 0})
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_same_person_from_two_places_shares(backend: Backend) -> None:
    backend.run("it:setFlag", {"on": True})
    here, there = Caller(ANN.identity, address="192.0.2.1"), Caller(ANN.identity, address="192.0.2.2")

    assert released(backend, ("it:greet", {}, here), ("it:greet", {}, there)) == [b'"hello ann"'] * 2
    assert RUNS == ["ann"]


def test_an_internal_result_is_kept_for_the_operator_alone(backend: Backend) -> None:
    assert [call(backend, "it:secret", by=OPERATOR).value for _ in range(2)] == [b'"secret"'] * 2
    assert RUNS == ["secret"]
    assert backend.engine.cached("it:secret", b"{}", OPERATOR) is not None
    for caller in (ANONYMOUS, ANN):
        assert backend.engine.cached("it:secret", b"{}", caller) is None
        assert not call(backend, "it:secret", by=caller).ok


# The fast way in


def test_what_is_cached_is_there_for_the_same_texts(backend: Backend) -> None:
    engine = backend.engine
    text = b'{"name":"a"}'
    assert engine.cached("it:read", text, ANN) is None
    first = engine.run_sync("it:read", text, ANN, kind="query")

    assert engine.cached("it:read", text, BOB) is first
    assert engine.cached("it.js:read", text, BOB) is None
    backend.run("it:increment", {"name": "b"})
    assert engine.cached("it:read", text, BOB) is not None
    backend.run("it:increment", {"name": "a"})
    assert engine.cached("it:read", text, BOB) is None


def test_what_is_cached_depends_on_who_asks(backend: Backend) -> None:
    backend.run("it:setFlag", {"on": True})
    call(backend, "it:greet", by=ANN)

    found = backend.engine.cached("it:greet", b"{}", ANN)
    assert found is not None
    assert found.value == b'"hello ann"'
    assert backend.engine.cached("it:greet", b"{}", BOB) is None
    assert backend.engine.cached("it:greet", b"{}", ANONYMOUS) is None


@pytest.mark.parametrize("limits", [{"cache_entries": 0}, {"cache_bytes": 0}, {"cache_entries": 2}])
def test_a_cache_without_room_only_runs_more(serve: Serve, limits: dict[str, int]) -> None:
    backend = serve(FUNCTIONS, COUNTERS, FLAGS, **limits)

    for _ in range(3):
        for name in "abcd":
            assert backend.run("it:read", {"name": name}) == 0
    assert len(RUNS) == 12
