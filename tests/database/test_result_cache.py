"""Kept results of queries: as fresh as a run would be, and only for those who may have them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_schema, define_table, internal_query, query, seconds, v
from camber.errors import FunctionNotFoundError
from camber.functions import application_of
from camber.identity import OPERATOR, Caller, Identity
from camber.settings import Settings
from camber.testing import Backend
from camber.testing.kit import Person
from tests.database.playground import PATIENCE, UNHURRIED, Call

THINGS = define_table("things", v.any()).index("by_tier", ["tier"])
SCHEMA = define_schema(THINGS)


class World:
    """A backend with one query, `things:ask`, that counts how often it is run, and a mutation to insert with."""

    def __init__(
        self, body: Callable[[QueryCtx], object], *, settings: Settings | None = None, internal: bool = False
    ) -> None:
        self.runs = 0

        def ask(ctx: QueryCtx, **_: Any) -> Any:
            self.runs += 1
            return body(ctx)

        def insert(ctx: MutationCtx, *, table: str, tier: str) -> str:
            return ctx.db.insert(table, {"tier": tier})

        kind = internal_query if internal else query
        self.backend = Backend.in_memory(
            SCHEMA, {"things:ask": kind(name="ask")(ask), "things:insert": insert}, settings=settings or UNHURRIED
        )

    def ask(self, by: Person | None = None, **args: object) -> Any:
        return (by or self.backend).run("things:ask", args)

    def insert(self, tier: str, table: str = "things") -> str:
        return self.backend.run("things:insert", {"table": table, "tier": tier})


@pytest.fixture
def world_of() -> Iterator[Callable[..., World]]:
    opened: list[World] = []

    def open_world(body: Callable[[QueryCtx], object], **options: Any) -> World:
        opened.append(World(body, **options))
        return opened[-1]

    yield open_world
    for world in opened:
        world.backend.close()


def golden(ctx: QueryCtx) -> int:
    return ctx.db.query("things").with_index("by_tier", tier="gold").count()


def who(ctx: QueryCtx) -> str | None:
    identity = ctx.auth.get_user_identity()
    return None if identity is None else identity.email


# Fresh


def test_a_result_is_reused_until_a_commit_touches_it(world_of: Callable[..., World]) -> None:
    world = world_of(golden)

    assert [world.ask(), world.ask(), world.runs] == [0, 0, 1]
    world.insert("silver")
    assert [world.ask(), world.runs] == [0, 1]
    for number in range(1, 4):
        world.insert("gold")
        assert [world.ask(), world.ask(), world.runs] == [number, number, 1 + number]


def test_results_are_kept_for_each_arguments_in_any_spelling(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    texts = [b'{"a":1,"b":[2]}', b'{ "b": [2.0], "a": 1e0 }', b'[{"a": 1.0, "b": [2]}]', b'{"a": 2, "b": [2]}']
    answers = [world.backend.engine.run_sync("things:ask", text, OPERATOR).value for text in texts]

    assert len(set(answers)) == 1
    assert world.runs == 2
    assert [world.backend.engine.cached("things:ask", text, OPERATOR) is not None for text in texts] == [True] * 4
    assert world.backend.engine.cached("things:ask", b'{"a":3}', OPERATOR) is None


def test_a_path_in_any_spelling_is_the_same_function(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    for path in ("things:ask", "things.js:ask"):
        world.backend.run(path, {})

    assert world.runs == 1


def test_what_is_cached_is_gone_as_soon_as_the_write_is_acknowledged(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    world.ask()
    world.insert("gold")

    assert world.backend.engine.cached("things:ask", b"{}", OPERATOR) is None


def test_an_error_is_not_kept(world_of: Callable[..., World]) -> None:
    def fails_at_first(ctx: QueryCtx) -> int:
        if world.runs == 1:
            raise ZeroDivisionError
        return golden(ctx)

    world = world_of(fails_at_first)
    with pytest.raises(ZeroDivisionError):
        world.ask()

    assert [world.ask(), world.ask(), world.runs] == [0, 0, 2]


def test_a_table_that_was_not_there_is_seen_once_it_is(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: [ctx.db.query("later").count(), ctx.db.normalize_id("later", "x" * 32)])

    assert [world.ask(), world.ask(), world.runs] == [[0, None], [0, None], 1]
    world.insert("gold", table="later")
    assert world.ask() == [1, None]
    world.insert("gold", table="later")
    assert world.ask() == [2, None]


def test_a_changed_environment_variable_is_seen(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: ctx.env.get("COLOUR", "none"))

    def set_variable(name: str, value: str) -> None:
        world.backend.run("_system/camber/environment:update", {"changes": [{"name": name, "value": value}]})

    assert [world.ask(), world.ask(), world.runs] == ["none", "none", 1]
    set_variable("COLOUR", "red")
    assert [world.ask(), world.ask(), world.runs] == ["red", "red", 2]
    set_variable("SIZE", "large")
    assert [world.ask(), world.runs] == ["red", 2]


def test_a_result_that_depends_on_the_time_is_given_for_five_seconds_at_most(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: ctx.now)
    clock = world.backend.clock

    first = world.ask()
    clock.advance(seconds(4.9))
    assert world.ask() == first
    clock.advance(seconds(0.2))
    assert world.ask() == clock.now_ms
    clock.advance(-seconds(3600))
    assert world.ask() == clock.now_ms


def test_random_numbers_are_not_kept_for_long_either(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: ctx.random.random())
    first = world.ask()
    world.backend.clock.advance(seconds(6))

    assert world.ask() != first


def test_a_result_that_does_not_depend_on_the_time_is_kept_for_long(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    world.ask()
    world.backend.clock.advance(seconds(3600))
    world.ask()

    assert world.runs == 1


def test_after_a_reload_nothing_of_the_old_functions_is_left(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    world.ask()

    def ask(_: QueryCtx) -> str:
        return "new"

    world.backend.engine.reload_sync(application_of("in_memory", SCHEMA, {"things:ask": query(ask)}))
    assert world.backend.run("things:ask", {}) == "new"


def test_a_run_of_the_old_function_that_ends_after_the_reload_is_not_kept(world_of: Callable[..., World]) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(_: QueryCtx) -> str:
        started.set()
        go_on.wait(PATIENCE)
        return "old"

    world = world_of(slow)
    call = Call(world.ask)
    assert started.wait(PATIENCE)

    def ask(_: QueryCtx) -> str:
        return "new"

    world.backend.engine.reload_sync(application_of("in_memory", SCHEMA, {"things:ask": query(ask)}))
    go_on.set()

    assert call.outcome() == "old"
    assert world.backend.run("things:ask", {}) == "new"


@pytest.mark.parametrize(
    "limits", [{"cache_entries": 2}, {"cache_bytes": 20_000}, {"cache_entries": 0}, {"cache_bytes": 0}]
)
def test_a_small_cache_answers_as_well(world_of: Callable[..., World], limits: dict[str, int]) -> None:
    world = world_of(golden, settings=replace(UNHURRIED, **limits))  # pyright: ignore[reportArgumentType]
    for number in range(3):
        for argument in range(60):
            assert world.ask(n=argument) == number
        world.insert("gold")


# For whom


def test_a_result_that_depends_on_who_asks_is_for_that_one_only(world_of: Callable[..., World]) -> None:
    world = world_of(who)
    ann, bob = world.backend.as_user(email="ann@example.com"), world.backend.as_user(email="bob@example.com")

    for _ in range(2):
        assert world.ask(ann) == "ann@example.com"
        assert world.ask(bob) == "bob@example.com"
        assert world.ask(world.backend.anonymous) is None
        assert world.ask() is None
    assert world.runs == 4


def test_the_same_person_with_another_claim_is_somebody_else(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: (ctx.auth.get_user_identity() or {}).get("role"))

    for role in ("admin", "reader", "admin"):
        assert world.ask(world.backend.as_user(email="ann@example.com", role=role)) == role


def test_being_the_operator_is_part_of_who_asks(world_of: Callable[..., World]) -> None:
    world = world_of(lambda ctx: ctx.auth.is_operator)
    ann = Identity({"issuer": "i", "subject": "ann", "tokenIdentifier": "i|ann"})
    callers = [OPERATOR, Caller(), Caller(ann), Caller(ann, is_admin=True), OPERATOR]

    answers = [world.backend.engine.run_sync("things:ask", b"{}", caller).value for caller in callers]
    assert [json.loads(answer or b"") for answer in answers] == [True, False, False, False, True]


def test_a_result_that_does_not_depend_on_who_asks_is_for_everybody(world_of: Callable[..., World]) -> None:
    world = world_of(golden)
    for by in (world.backend.anonymous, world.backend.as_user(email="ann@example.com"), None):
        world.ask(by)

    assert world.runs == 1


def test_a_shared_result_that_turns_out_to_depend_on_who_asks_is_no_longer_shared(
    world_of: Callable[..., World],
) -> None:
    world = world_of(lambda ctx: who(ctx) if golden(ctx) else "everybody")
    ann, bob = world.backend.as_user(email="ann@example.com"), world.backend.as_user(email="bob@example.com")

    assert [world.ask(ann), world.ask(bob), world.runs] == ["everybody", "everybody", 1]
    world.insert("gold")
    assert [world.ask(ann), world.ask(bob)] == ["ann@example.com", "bob@example.com"]
    assert [world.ask(ann), world.ask(bob), world.ask(world.backend.anonymous)] == [
        "ann@example.com",
        "bob@example.com",
        None,
    ]
    assert world.runs == 4


def test_those_who_wait_for_one_run_get_their_own_if_it_depends_on_them(world_of: Callable[..., World]) -> None:
    blocked, go_on = threading.Semaphore(0), threading.Event()

    def slow(ctx: QueryCtx) -> str | None:
        if "block" in (who(ctx) or ""):
            blocked.release()
            go_on.wait(PATIENCE)
        return who(ctx)

    world = world_of(slow, settings=replace(UNHURRIED, query_threads=1))
    blocker = Call(world.ask, world.backend.as_user(email="block"))
    assert blocked.acquire(timeout=PATIENCE)
    # With the only thread busy, these wait together for one run.
    people = [world.backend.as_user(email=f"{number}@example.com") for number in range(5)]
    calls = [Call(world.ask, person) for person in people for _ in range(2)]
    go_on.set()

    assert [call.outcome() for call in calls] == [f"{number}@example.com" for number in range(5) for _ in range(2)]
    assert blocker.outcome() == "block"


def test_an_internal_function_s_result_is_not_given_to_those_who_can_not_call_it(
    world_of: Callable[..., World],
) -> None:
    world = world_of(golden, internal=True)
    ann = Identity({"issuer": "i", "subject": "ann"})

    assert world.ask() == 0
    for caller in (Caller(), Caller(ann)):
        assert world.backend.engine.cached("things:ask", b"{}", caller) is None
    with pytest.raises(FunctionNotFoundError):
        world.ask(world.backend.anonymous)
    assert world.backend.engine.cached("things:ask", b"{}", Caller(ann, is_admin=True)) is not None
    assert world.runs == 1


def test_what_a_called_query_depends_on_counts_for_the_caller(world_of: Callable[..., World]) -> None:
    backend = Backend.in_memory(
        SCHEMA,
        {
            "a:outer": query(name="outer")(_calls_inner),
            "a:inner": query(name="inner")(_says_who),
        },
        settings=UNHURRIED,
    )
    with backend:
        ann, bob = backend.as_user(email="ann@example.com"), backend.as_user(email="bob@example.com")
        assert [ann.run("a:outer", {}), bob.run("a:outer", {})] == ["ann@example.com", "bob@example.com"]


def _says_who(ctx: QueryCtx) -> str | None:
    return who(ctx)


def _calls_inner(ctx: QueryCtx) -> Any:
    return ctx.run_query("a:inner", {})


# Which are kept


def test_where_hardly_any_result_is_asked_for_again_one_in_eight_is_kept_until_that_changes(
    world_of: Callable[..., World],
) -> None:
    world = world_of(golden)
    for number in range(1200):
        world.ask(n=number)

    world.runs = 0
    for number in range(1000, 1160):
        world.ask(n=number)
    assert 130 <= world.runs <= 150

    for _ in range(200):
        world.ask(n=-1)
    world.runs = 0
    for number in (*range(5000, 5050), *range(5000, 5050)):
        world.ask(n=number)
    assert world.runs == 50
