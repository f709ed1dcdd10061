"""Functions that don't stop: what becomes of them, of those who wait behind them, and of the server."""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from camber import MutationCtx, QueryCtx, define_table, v
from camber.database import Usage, Watchdog
from camber.database.watchdog import Slot
from camber.errors import CamberError, FunctionError, FunctionTimeoutError
from tests.database.playground import PATIENCE, UNHURRIED, Call, Playground, playground

# An interruption may strike in a finalizer or a callback of the garbage collector, where Python drops it with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

COUNTERS = define_table("counters", v.any()).index("by_name", ["name"])
SECONDS = 0.3
LONG = 60.0
"""How long a function stays away that is not to come back; a test that waits for it fails at its end."""
BOUNDLESS = replace(UNHURRIED, ranges_read=1_000_000_000, documents_read=1_000_000_000, bytes_read=1 << 40)
TEST_IS_OVER = threading.Event()
WAITED_FOR: list[str] = []
"""What has come back before the test was over."""


@pytest.fixture
def world() -> Any:
    TEST_IS_OVER.clear()
    WAITED_FOR.clear()
    try:
        with playground(COUNTERS, settings=BOUNDLESS) as opened:
            yield opened
        assert not WAITED_FOR
    finally:
        TEST_IS_OVER.set()


def count(ctx: MutationCtx) -> float:
    """Count one up; gives what is reached."""
    found = ctx.db.query("counters").with_index("by_name", name="c").unique()
    if found is None:
        ctx.db.insert("counters", {"name": "c", "value": 1})
        return 1.0
    ctx.db.patch(found["_id"], {"value": found["value"] + 1})
    return found["value"] + 1


def counted(world: Playground) -> float:
    return world.read(lambda ctx: sum(one["value"] for one in ctx.db.query("counters").collect()))


def loops(_: object) -> None:
    while True:
        pass


def loops_in_the_database(ctx: QueryCtx) -> None:
    while True:
        ctx.db.query("counters").with_index("by_name", name="c").first()


def catches_and_goes_on(_: object) -> str:
    try:
        while True:
            pass
    except BaseException:  # noqa: BLE001
        return "got away"


def catches_and_raises(_: object) -> None:
    try:
        while True:
            pass
    except BaseException:  # noqa: BLE001
        raise ValueError("something else") from None


def sleeps(_: object) -> None:
    if not TEST_IS_OVER.wait(LONG):
        WAITED_FOR.append("sleeps")


def catches_for_ever(_: object) -> None:
    until = time.monotonic() + LONG
    while not TEST_IS_OVER.is_set():
        with suppress(BaseException):
            time.sleep(0.01)
            if time.monotonic() > until:
                WAITED_FOR.append("catches_for_ever")
                return


ENDLESS: list[Callable[[Any], Any]] = [loops, loops_in_the_database, catches_and_goes_on, sleeps, catches_for_ever]


@pytest.mark.parametrize("body", ENDLESS)
def test_a_mutation_that_does_not_stop_is_refused_and_leaves_nothing(
    world: Playground, body: Callable[[Any], Any]
) -> None:
    world.write(count)

    def write_and_go_on(ctx: MutationCtx) -> None:
        count(ctx)
        body(ctx)

    refused = pytest.raises(FunctionTimeoutError, match=r"Function execution timed out \(maximum duration: 0\.3s\)")
    with world.limited(SECONDS), refused:
        world.write(write_and_go_on)

    assert world.write(count) == 2
    assert counted(world) == 2


@pytest.mark.parametrize("body", ENDLESS)
def test_a_query_that_does_not_stop_is_refused(world: Playground, body: Callable[[Any], Any]) -> None:
    with world.limited(SECONDS), pytest.raises(FunctionTimeoutError, match="timed out"):
        world.read(body)

    assert counted(world) == 0


def test_a_mutation_that_answers_the_interruption_with_an_error_of_its_own_leaves_nothing(world: Playground) -> None:
    with world.limited(SECONDS), pytest.raises((ValueError, CamberError)):
        world.write(lambda ctx: (count(ctx), catches_and_raises(ctx)))

    assert counted(world) == 0
    assert world.write(count) == 1


@contextmanager
def not_interrupted_before(seconds: float, usage: Usage | None = None) -> Iterator[None]:
    """What is called in this block may run out of time only where it took so long: this machine may stand still."""
    began = time.perf_counter()
    try:
        yield
    except FunctionTimeoutError:
        assert time.perf_counter() - began - (usage.database_seconds if usage else 0.0) > seconds


def test_a_function_within_its_time_is_left_alone(world: Playground) -> None:
    reached: list[float] = []

    def takes_a_while(ctx: MutationCtx) -> float:
        until = time.perf_counter() + SECONDS * 0.6
        while time.perf_counter() < until:
            pass
        return count(ctx)

    for _ in range(3):
        with not_interrupted_before(SECONDS), world.limited(SECONDS):
            reached.append(world.write(takes_a_while))

    assert reached == [float(number) for number in range(1, len(reached) + 1)]


def test_the_next_function_on_the_thread_is_not_struck_by_the_last_one_s_end(world: Playground) -> None:
    """Functions that end just when their time is over: whatever became of each, the next one runs undisturbed."""

    def ends_at_the_limit(ctx: MutationCtx) -> None:
        until = time.perf_counter() + SECONDS - 0.005
        while time.perf_counter() < until:
            pass

    for _ in range(5):
        with suppress(FunctionTimeoutError), world.limited(SECONDS):
            world.write(ends_at_the_limit)
        world.write(count)

    assert counted(world) == 5


@pytest.mark.parametrize("body", [loops, catches_and_goes_on, catches_and_raises, sleeps, catches_for_ever])
def test_the_others_in_the_group_run_again_and_get_the_right_answers(
    world: Playground, body: Callable[[Any], Any]
) -> None:
    def stuck(ctx: MutationCtx) -> None:
        count(ctx)
        body(ctx)

    bodies = (count, count, stuck, count, count)
    before, second, error, after, last = world.in_one_group(*bodies, limits={stuck: SECONDS})

    assert (before, second, after, last) == (1, 2, 3, 4)
    assert isinstance(error, Exception)
    assert counted(world) == 4


def test_one_that_was_given_up_can_do_nothing_any_more(world: Playground) -> None:
    given_up, came_back, errors = threading.Event(), threading.Event(), []

    def late(ctx: MutationCtx) -> None:
        while not given_up.is_set():
            with suppress(BaseException):  # also what interrupts it
                given_up.wait(LONG)
        for attempt in (
            lambda: count(ctx),
            lambda: ctx.db.insert("counters", {"name": "late", "value": 100}),
            lambda: ctx.db.query("counters").collect(),
            lambda: ctx.run_mutation("play:write", {"body": 0}),
        ):
            try:
                attempt()
            except Exception as error:  # noqa: BLE001
                errors.append(error)
        came_back.set()

    with world.limited(SECONDS), pytest.raises(FunctionTimeoutError):
        world.write(late)
    assert world.write(count) == 1
    given_up.set()
    assert came_back.wait(PATIENCE)

    assert len(errors) == 4
    assert counted(world) == 1
    assert world.write(count) == 2


def test_one_that_comes_back_the_moment_it_is_given_up_is_answered_all_the_same(
    world: Playground, caplog: pytest.LogCaptureFixture
) -> None:
    given_up, threads = threading.Event(), []

    def until_given_up(ctx: MutationCtx) -> None:
        count(ctx)
        threads.append(threading.current_thread())
        while not given_up.is_set():
            with suppress(BaseException):
                given_up.wait(3)

    class Meanwhile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "given up" in record.getMessage():  # on the watchdog's thread, which has only just begun to give it up
                given_up.set()
                threads[0].join(PATIENCE)

    caplog.set_level(logging.ERROR)
    logger, meanwhile = logging.getLogger("camber.backend"), Meanwhile()
    logger.addHandler(meanwhile)
    try:
        before, error, after = world.in_one_group(count, until_given_up, count, limits={until_given_up: SECONDS})
    finally:
        logger.removeHandler(meanwhile)

    assert (before, after) == (1, 2)
    assert isinstance(error, FunctionTimeoutError)
    assert not threads[0].is_alive()


def test_closing_does_not_wait_for_functions_that_were_given_up(world: Playground) -> None:
    for run in (world.write, world.read):
        with world.limited(SECONDS), pytest.raises(FunctionTimeoutError):
            run(sleeps)

    world.close()


def test_a_context_that_outlives_its_function_is_closed(world: Playground) -> None:
    kept: list[Any] = []
    world.write(kept.append)
    world.read(kept.append)
    for ctx in kept:
        with pytest.raises(CamberError, match="has ended"):
            ctx.db.query("counters").collect()
    with pytest.raises(CamberError, match="has ended"):
        kept[0].db.insert("counters", {})

    assert counted(world) == 0


def test_after_three_that_never_came_back_the_server_is_to_be_replaced(world: Playground) -> None:
    engine = world.backend.engine
    replacements = []
    engine.on_unhealthy = lambda: replacements.append(1)

    for number in range(1, 4):
        assert engine.ready() is None
        with world.limited(SECONDS), pytest.raises(FunctionTimeoutError):
            (world.write if number % 2 else world.read)(sleeps)

    assert world.write(count) == 1  # it goes on until then
    assert "3 functions did not stop" in (engine.ready() or "")
    assert replacements == [1]


def test_one_that_loops_and_stops_when_told_costs_no_thread(world: Playground) -> None:
    for _ in range(4):
        with world.limited(SECONDS), pytest.raises(FunctionTimeoutError):
            world.write(loops)

    assert world.backend.engine.ready() is None


def test_queries_go_on_beside_one_that_loops(world: Playground) -> None:
    begun, enough = threading.Semaphore(0), threading.Event()

    def loops_on(_: object) -> None:
        begun.release()
        while not enough.is_set():
            pass

    world.write(count)
    slow = [Call(world.read, loops_on) for _ in range(2)]
    try:
        assert all(begun.acquire(timeout=PATIENCE) for _ in slow)
        assert [counted(world) for _ in range(5)] == [1.0] * 5
        assert all(one.is_alive() for one in slow)
    finally:
        enough.set()
    assert [one.outcome() for one in slow] == [None, None]


def test_mutations_go_on_beside_queries_that_loop(world: Playground) -> None:
    begun = threading.Semaphore(0)

    def loops_on(_: object) -> None:
        begun.release()
        loops(None)

    with world.limited(SECONDS):
        slow = [Call(world.read, loops_on) for _ in range(2)]
        assert all(begun.acquire(timeout=PATIENCE) for _ in slow)
    assert [world.write(count) for _ in range(3)] == [1, 2, 3]
    assert all(isinstance(one.outcome(), FunctionTimeoutError) for one in slow)


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_function_can_not_end_the_thread_that_serves_everybody(
    world: Playground, ending: type[BaseException]
) -> None:
    def leaves(_: object) -> None:
        raise ending

    for run in (world.write, world.read):
        with pytest.raises(FunctionError, match=ending.__name__):
            run(leaves)

    assert world.write(count) == 1


def test_a_recursion_without_end_is_an_error_like_any_other(world: Playground) -> None:
    def deeper(ctx: MutationCtx) -> None:
        count(ctx)
        deeper(ctx)

    with pytest.raises((RecursionError, CamberError)):
        world.write(deeper)

    assert world.write(count) == 1


def waits(usage: Usage, seconds: float) -> None:
    """As a transaction does around a call of the database."""
    usage.waiting_since = time.perf_counter()
    try:
        time.sleep(seconds)
    finally:
        usage.waited()


@contextmanager
def supervised(*, database_seconds: float) -> Iterator[Slot]:
    watchdog = Watchdog(database_seconds=database_seconds)
    try:
        yield watchdog.slot(lambda: None)
    finally:
        watchdog.close()


def test_one_long_call_of_the_database_is_not_the_function_s_own_time() -> None:
    with supervised(database_seconds=LONG) as slot:
        usage = Usage()
        with not_interrupted_before(0.1, usage):
            slot.run(lambda: waits(usage, 0.4), 0.1, usage)

        usage = Usage()
        with pytest.raises(FunctionTimeoutError, match="maximum duration"):
            slot.run(lambda: (waits(usage, 0.2), loops(None)), 0.1, usage)


def test_waiting_for_the_database_has_a_limit_of_its_own() -> None:
    with supervised(database_seconds=0.2) as slot:
        usage = Usage()
        with pytest.raises(FunctionTimeoutError, match="timed out performing too many system operations"):
            slot.run(lambda: [waits(usage, 0.02) for _ in range(3_000)], LONG, usage)

        usage = Usage()
        slot.run(lambda: [waits(usage, 0.02) for _ in range(50)], math.inf, usage)


def test_waiting_for_the_database_is_not_the_function_s_own_time(world: Playground) -> None:
    world.insert("counters", *({"name": "x", "value": 0, "n": n} for n in range(200)))

    def reads_a_lot(ctx: QueryCtx) -> int:
        # The time of reading itself is the database's; decoding is ours.
        usage = ctx._run.state.transaction.usage  # pyright: ignore[reportPrivateUsage]
        ctx.db.query("counters").collect()
        return int(usage.database_seconds > 0)

    assert world.read(reads_a_lot) == 1


STOPPED_MEANWHILE = """
import time
from camber.database.limits import Usage
from camber.database.watchdog import Watchdog

def works(seconds):
    print("begun", flush=True)
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return "done"

watchdog = Watchdog()
print(watchdog.slot(lambda: None).run(lambda: works(0.2), 2.5, Usage()))
watchdog.close()
"""


def test_time_in_which_the_process_is_stopped_is_no_function_s_time() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED_MEANWHILE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGSTOP)
            time.sleep(3.5)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.read() == "done\n"
        finally:
            process.kill()


def test_time_limits_go_on_where_a_look_at_what_runs_has_failed() -> None:
    watchdog = Watchdog()

    def fails() -> bool:
        raise RuntimeError("can't start new thread")

    try:
        watchdog.on_patrol(fails)
        slot = watchdog.slot(lambda: None)
        time.sleep(0.1)  # by now it has failed
        with pytest.raises(FunctionTimeoutError):
            slot.run(lambda: loops(None), 0.2, Usage())
    finally:
        watchdog.close()
