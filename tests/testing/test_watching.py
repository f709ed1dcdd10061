"""The test kit's live queries: what is watched has seen what a call changed as soon as the call has ended."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from camber import (
    ActionCtx,
    ConvexError,
    Document,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    action,
    define_schema,
    define_table,
    internal_query,
    mutation,
    query,
)
from camber.errors import FunctionError
from camber.settings import Settings
from camber.testing import Backend

UNHURRIED = Settings(dev=True, mutation_seconds=60, query_seconds=60)


class Task(Document):
    text: str
    rank: int


tasks = define_table("tasks", Task).index("by_text", ["text"]).index("by_rank", ["rank"])
schema = define_schema(tasks)


@mutation
def add(ctx: MutationCtx, *, text: str, rank: int = 0) -> str:
    return ctx.db.insert(tasks, {"text": text, "rank": rank})


@mutation
def add_and_fail(ctx: MutationCtx, *, text: str) -> None:
    add(ctx, text=text)
    raise ConvexError("no")


@action
async def add_two(ctx: ActionCtx) -> None:
    await ctx.run_mutation(add, text="first")
    await ctx.run_mutation(add, text="second")


@query(name="list")
def list_tasks(ctx: QueryCtx, *, first_rank: int = 0) -> list[str]:
    return [task["text"] for task in ctx.db.query(tasks) if task["rank"] >= first_rank]


@query
def page(ctx: QueryCtx, *, pagination_opts: PaginationOptions) -> Page[Task]:
    return ctx.db.query(tasks).with_index("by_rank").paginate(pagination_opts)


@query
def rank_of(ctx: QueryCtx, *, text: str) -> int:
    task = ctx.db.query(tasks).with_index("by_text", text=text).unique()
    if task is None:
        raise ConvexError({"code": "NoSuchTask", "text": text})
    if task["rank"] < 0:
        raise ValueError("a rank below zero")
    return task["rank"]


@query
def who(ctx: QueryCtx) -> str:
    identity = ctx.auth.get_user_identity()
    return f"{identity.email if identity else 'nobody'}: {ctx.db.query(tasks).with_index('by_rank').count()}"


@internal_query
def hidden(ctx: QueryCtx) -> int:
    return ctx.db.query(tasks).with_index("by_rank").count()


FUNCTIONS = [add, add_and_fail, add_two, list_tasks, page, rank_of, who, hidden]


@pytest.fixture
def kit() -> Any:
    with Backend.in_memory(schema, FUNCTIONS, settings=UNHURRIED) as backend:
        yield backend


def test_what_a_call_changed_has_been_seen_when_it_has_ended(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen:
        assert seen.value == []
        for number in range(50):
            kit.anonymous.run(add, text=str(number))
            assert len(seen.value) == number + 1

    assert [len(value) for value in seen.values] == list(range(51))


def test_what_did_not_change_is_not_seen_again(kit: Backend) -> None:
    with kit.subscribe(list_tasks, first_rank=5) as seen:
        kit.run(add, text="low", rank=1)
        kit.run(add, text="high", rank=9)

    assert seen.values == [[], ["high"]]


def test_a_query_is_given_by_its_path_too(kit: Backend) -> None:
    with kit.subscribe("testWatching:list", {"firstRank": 5}) as seen, kit.subscribe("testWatching.js:list") as all_of:
        kit.run(add, text="low", rank=1)

    assert (seen.values, all_of.values) == ([[]], [[], ["low"]])


def test_results_are_what_run_returns(kit: Backend) -> None:
    kit.run(add, text="wash", rank=3)

    with kit.subscribe(rank_of, text="wash") as seen:
        assert (seen.value, type(seen.value)) == (3, int)
        assert seen.value == kit.run(rank_of, text="wash")


def test_a_result_can_be_changed_without_changing_what_was_seen(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen:
        seen.value.append("not mine")

        assert seen.values == [[]]


def test_what_an_action_and_a_step_change_has_been_seen(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen:
        kit.run(add_two)
        assert seen.value == ["first", "second"]

        kit.transact(lambda ctx: ctx.db.insert(tasks, {"text": "third", "rank": 0}))
        assert seen.value == ["first", "second", "third"]


def test_what_a_failed_call_wrote_is_never_seen(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen, pytest.raises(ConvexError):
        kit.run(add_and_fail, text="wash")

    assert seen.values == [[]]


def test_everybody_sees_their_own(kit: Backend) -> None:
    ann, bob = kit.as_user(email="ann@example.com"), kit.as_user(email="bob@example.com")
    with ann.subscribe(who) as ann_sees, bob.subscribe(who) as bob_sees, kit.anonymous.subscribe(who) as nobody_sees:
        ann.run(add, text="wash")

    assert ann_sees.values == ["ann@example.com: 0", "ann@example.com: 1"]
    assert bob_sees.values == ["bob@example.com: 0", "bob@example.com: 1"]
    assert nobody_sees.values == ["nobody: 0", "nobody: 1"]


def test_many_watch_the_same_and_one_who_leaves_takes_nobody_along(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as stays:
        with kit.subscribe(list_tasks) as leaves:
            kit.run(add, text="wash")
        kit.run(add, text="iron")

    assert stays.values == [[], ["wash"], ["wash", "iron"]]
    assert leaves.values == [[], ["wash"]]


def test_a_page_keeps_its_end_while_it_is_watched(kit: Backend) -> None:
    for rank in (1, 2, 3):
        kit.run(add, text="", rank=rank)
    with kit.subscribe(page, pagination_opts={"numItems": 2, "cursor": None}) as seen:
        kit.transact(lambda ctx: ctx.db.insert(tasks, {"text": "", "rank": 1}))

    assert [[task["rank"] for task in each["page"]] for each in seen.values] == [[1, 2], [1, 1, 2]]


def test_an_error_of_the_query_can_be_looked_at_and_is_over_when_it_is_over(kit: Backend) -> None:
    with kit.subscribe(rank_of, text="wash") as seen:
        assert isinstance(seen.error, ConvexError)
        assert seen.error.data == {"code": "NoSuchTask", "text": "wash"}
        with pytest.raises(ConvexError, match="NoSuchTask"):
            _ = seen.value

        kit.run(add, text="wash", rank=3)
        assert (seen.error, seen.value) == (None, 3)

    assert seen.values == [3]


def test_an_error_that_is_no_convex_error_is_what_a_client_is_told(kit: Backend) -> None:
    kit.run(add, text="wash", rank=-1)

    with kit.subscribe(rank_of, text="wash") as seen, pytest.raises(FunctionError, match="a rank below zero"):
        _ = seen.value


@pytest.mark.parametrize("path", ["testWatching:nothing", "testWatching:add", "testWatching:hidden", "not a path"])
def test_what_can_not_be_watched_is_an_error(kit: Backend, path: str) -> None:
    with kit.anonymous.subscribe(path) as seen:
        assert isinstance(seen.error, FunctionError)
        kit.run(add, text="wash")
        assert seen.values == []


def test_the_operator_may_watch_internal_queries(kit: Backend) -> None:
    with kit.subscribe(hidden) as seen:
        kit.run(add, text="wash")

    assert seen.values == [0, 1]


def test_one_can_wait_for_what_other_threads_do(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen:
        assert seen.wait_for(lambda titles: titles == []) == []
        thread = threading.Thread(target=lambda: [kit.run(add, text=text) for text in "abc"])
        thread.start()
        assert "b" in seen.wait_for(lambda titles: "b" in titles, seconds=60)
        thread.join()


def test_who_waits_in_vain_is_told_what_is_there_instead(kit: Backend) -> None:
    with kit.subscribe(list_tasks) as seen:
        kit.run(add, text="wash")

        with pytest.raises(TimeoutError, match=r"no such result came in 0.01 s; the newest is \['wash'\]"):
            seen.wait_for(lambda titles: titles == [], seconds=0.01)


def test_a_slow_query_is_waited_for() -> None:
    def slow(ctx: QueryCtx) -> int:
        count = ctx.db.query(tasks).with_index("by_rank").count()
        threading.Event().wait(0.1)
        return count

    with (
        Backend.in_memory(schema, {"a:slow": slow, "a:add": add}, settings=UNHURRIED) as kit,
        kit.subscribe("a:slow") as seen,
    ):
        kit.run(add, text="wash")
        kit.run(add, text="iron")

        assert seen.values == [0, 1, 2]


def test_a_query_that_takes_too_long_is_an_error() -> None:
    def endless(ctx: QueryCtx) -> None:
        while True:
            pass

    settings = Settings(dev=True, query_seconds=0.2)
    with (
        Backend.in_memory(schema, {"a:endless": endless}, settings=settings) as kit,
        kit.subscribe("a:endless") as seen,
    ):
        assert isinstance(seen.error, FunctionError)


def test_a_backend_that_ends_first_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    kit = Backend.in_memory(schema, FUNCTIONS)
    with kit.subscribe(list_tasks) as seen:
        kit.run(add, text="wash")
        kit.close()

    assert seen.value == ["wash"]
    assert {thread.name for thread in set(threading.enumerate()) - before if thread.name == "camber-watching"} == set()
