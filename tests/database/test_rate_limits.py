"""Rate limits: how many attempts pass, when the next one would, and that a failed attempt counts like any other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from camber import (
    ConfigurationError,
    DatabaseUsageError,
    MutationCtx,
    RateLimit,
    RateLimitStatus,
    define_table,
    fixed_window,
    minutes,
    seconds,
    token_bucket,
    v,
)
from camber.errors import FunctionTimeoutError
from tests.database.playground import PATIENCE, Playground, playground

THINGS = define_table("things", v.any())
WINDOW = fixed_window("window", 3, per=minutes(1))
BUCKET = token_bucket("bucket", rate=2, per=minutes(1), capacity=4)
TEST_IS_OVER = threading.Event()


@pytest.fixture
def world() -> Any:
    with playground(THINGS) as opened:
        yield opened


def attempt(world: Playground, rule: RateLimit, key: str = "ada") -> RateLimitStatus:
    return world.write(lambda ctx: ctx.rate_limit(rule, key))


def attempts(world: Playground, rule: RateLimit, count: int, key: str = "ada") -> list[bool]:
    return [attempt(world, rule, key).ok for _ in range(count)]


def test_a_window_lets_so_many_through_and_then_says_how_long_to_wait(world: Playground) -> None:
    assert attempts(world, WINDOW, 3) == [True, True, True]
    world.backend.clock.advance(seconds(15))

    assert attempt(world, WINDOW) == (False, seconds(45))


def test_a_window_begins_with_its_first_attempt_and_starts_over(world: Playground) -> None:
    attempts(world, WINDOW, 1)
    world.backend.clock.advance(seconds(59))
    assert attempts(world, WINDOW, 3) == [True, True, False]
    world.backend.clock.advance(seconds(1))
    assert attempts(world, WINDOW, 4) == [True, True, True, False]


def test_a_bucket_fills_up_steadily(world: Playground) -> None:
    assert attempts(world, BUCKET, 5) == [True, True, True, True, False]
    world.backend.clock.advance(seconds(15))
    assert attempt(world, BUCKET) == (False, seconds(15))
    world.backend.clock.advance(seconds(15))
    assert attempts(world, BUCKET, 2) == [True, False]
    world.backend.clock.advance(minutes(60))
    assert attempts(world, BUCKET, 5) == [True, True, True, True, False]


def test_a_refused_attempt_does_not_lengthen_the_wait(world: Playground) -> None:
    attempts(world, BUCKET, 4)
    waits = [attempt(world, BUCKET).retry_after for _ in range(3)]

    assert waits == [seconds(30)] * 3


def test_rules_and_keys_count_apart(world: Playground) -> None:
    other = fixed_window("other", 1, per=minutes(1))
    attempts(world, WINDOW, 3)

    assert attempts(world, WINDOW, 1, key="bob") == [True]
    assert attempts(world, WINDOW, 1, key="ada\0") == [True]
    assert attempts(world, other, 1) == [True]
    assert attempts(world, WINDOW, 1) == [False]


def test_an_attempt_counts_although_the_function_raises(world: Playground) -> None:
    def guess(ctx: MutationCtx) -> None:
        ctx.rate_limit(WINDOW, "ada")
        ctx.db.insert("things", {})
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            world.write(guess)

    assert not attempt(world, WINDOW).ok
    assert world.all("things") == []


def test_an_attempt_counts_although_its_sub_transaction_was_taken_back(world: Playground) -> None:
    def outer(ctx: MutationCtx) -> bool:
        def guess(ctx: MutationCtx) -> None:
            ctx.rate_limit(WINDOW, "ada")
            ctx.db.insert("things", {})
            raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                world.write_inside(ctx, guess)
        return ctx.rate_limit(WINDOW, "ada").ok and not ctx.rate_limit(WINDOW, "ada").ok

    assert world.write(outer)
    assert not attempt(world, WINDOW).ok
    assert world.all("things") == []


def test_an_attempt_in_two_rolled_back_levels_counts_once(world: Playground) -> None:
    def outer(ctx: MutationCtx) -> None:
        def middle(ctx: MutationCtx) -> None:
            def inner(ctx: MutationCtx) -> None:
                ctx.rate_limit(WINDOW, "ada")
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                world.write_inside(ctx, inner)
            raise ZeroDivisionError

        world.write_inside(ctx, middle)

    with pytest.raises(ZeroDivisionError):
        world.write(outer)

    assert attempts(world, WINDOW, 3) == [True, True, False]


def loops() -> None:
    while True:
        pass


def sleeps() -> None:
    TEST_IS_OVER.wait(PATIENCE)


@pytest.mark.parametrize("goes_on", [loops, sleeps])
def test_an_attempt_counts_once_although_its_mutation_ran_out_of_time(
    world: Playground, goes_on: Callable[[], None]
) -> None:
    TEST_IS_OVER.clear()

    def guess(ctx: MutationCtx) -> None:
        ctx.rate_limit(WINDOW, "ada")
        goes_on()

    try:
        with world.limited(0.1), pytest.raises(FunctionTimeoutError):
            world.write(guess)

        assert attempts(world, WINDOW, 3) == [True, True, False]
    finally:
        TEST_IS_OVER.set()


def test_an_attempt_of_a_mutation_that_ran_twice_counts_once(world: Playground) -> None:
    runs = 0

    def first_insert(ctx: MutationCtx) -> None:
        nonlocal runs
        runs += 1
        ctx.rate_limit(WINDOW, "ada")
        ctx.db.insert("new_table", {})  # makes the table, and runs the mutation again

    world.write(first_insert)

    assert runs == 2
    assert attempts(world, WINDOW, 3) == [True, True, False]


def test_counts_hold_across_a_restart(world: Playground) -> None:
    attempts(world, WINDOW, 3)
    world.restart()

    assert attempts(world, WINDOW, 1) == [False]


def test_a_clock_that_went_back_ends_no_window_early(world: Playground) -> None:
    attempts(world, WINDOW, 3)
    attempts(world, BUCKET, 4)
    world.backend.clock.advance(-minutes(60))

    assert not attempt(world, WINDOW).ok
    assert not attempt(world, BUCKET).ok


@pytest.mark.parametrize(
    "build",
    [
        lambda: fixed_window("x", 0, per=minutes(1)),
        lambda: fixed_window("x", 1, per=0),
        lambda: token_bucket("x", rate=0, per=1, capacity=1),
        lambda: token_bucket("x", rate=1, per=1, capacity=0.5),
        lambda: fixed_window("x", float("nan"), per=minutes(1)),  # pyright: ignore[reportArgumentType]
        lambda: fixed_window("x", 1, per=float("nan")),
        lambda: token_bucket("x", rate=float("inf"), per=1, capacity=1),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(build: Callable[[], RateLimit]) -> None:
    with pytest.raises(ConfigurationError, match='The rate limit "x"'):
        build()


def test_a_key_that_is_too_long_is_refused(world: Playground) -> None:
    attempt(world, WINDOW, "x" * 512)
    with pytest.raises(DatabaseUsageError, match="longer than 512 characters"):
        attempt(world, WINDOW, "x" * 513)
    attempt(world, WINDOW, "\U0010ffff" * 400)
