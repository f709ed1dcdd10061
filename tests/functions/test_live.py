"""Live queries: each view moves from moment to moment as a whole, sees only what is its own, and misses nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from random import Random
from typing import Any

import pytest

from camber import (
    ActionCtx,
    ConvexError,
    MutationCtx,
    PaginationOptions,
    QueryCtx,
    action,
    define_schema,
    define_table,
    internal_query,
    mutation,
    query,
    v,
)
from camber.backend import Outcome
from camber.functions import Application, application_of
from camber.functions.runner import Runner
from camber.identity import ANONYMOUS, OPERATOR, Caller, Identity
from camber.storage import Snapshot, Timestamp
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import somebody
from tests.functions.watchers import SECONDS, Watcher

NUMBERS = define_table("numbers", {"name": v.string(), "n": v.number()}).index("by_name", ["name"], unique=True)
ITEMS = define_table("items", {"place": v.number()}).index("by_place", ["place"])

ANN, BOB = somebody("ann"), somebody("bob")
RUNS: list[str] = []


def number(ctx: QueryCtx, name: str) -> float:
    found = ctx.db.query(NUMBERS).with_index("by_name", name=name).unique()
    return found["n"] if found else 0.0


@query
def read(ctx: QueryCtx, *, name: str) -> float:
    RUNS.append(name)
    return number(ctx, name)


@query
def greet(ctx: QueryCtx) -> list[Any]:
    """Looks at who asks only while a number is odd."""
    value = number(ctx, "flag")
    if value % 2 == 0:
        return ["everybody", value]
    return [name_of(ctx), value]


@query
def me(ctx: QueryCtx) -> str:
    return name_of(ctx)


def name_of(ctx: QueryCtx) -> str:
    identity = ctx.auth.get_user_identity()
    return identity.subject if identity else "the operator" if ctx.auth.is_operator else "nobody"


@query
def strict(ctx: QueryCtx, *, name: str) -> float:
    """Fails while the number is above 9, and in another way above 99."""
    value = number(ctx, name)
    if value > 99:
        raise ValueError("far too much")
    if value > 9:
        raise ConvexError("too much")
    return value


@query
def page(ctx: QueryCtx, *, pagination_opts: PaginationOptions) -> dict[str, Any]:
    found = ctx.db.query(ITEMS).with_index("by_place").paginate(pagination_opts)
    return {**found, "page": [item["place"] for item in found["page"]]}


@internal_query
def secret(ctx: QueryCtx) -> str:
    return "secret"


@query
def with_default(ctx: QueryCtx, *, name: str = "no name") -> str:
    return name


@mutation
def put(ctx: MutationCtx, *, name: str, n: float) -> None:
    found = ctx.db.query(NUMBERS).with_index("by_name", name=name).unique()
    if found is None:
        ctx.db.insert(NUMBERS, {"name": name, "n": n})
    else:
        ctx.db.patch(NUMBERS, found["_id"], {"n": n})


@mutation
def hang(ctx: MutationCtx, *, place: float) -> None:
    ctx.db.insert(ITEMS, {"place": place})


@action
async def greet_in_action(ctx: ActionCtx) -> list[Any]:
    return await ctx.run_query(greet)


FUNCTIONS = {
    "it:read": read,
    "it:greet": greet,
    "it:me": me,
    "it:strict": strict,
    "it:page": page,
    "it:secret": secret,
    "it:withDefault": with_default,
    "it:put": put,
    "it:hang": hang,
    "it:greetInAction": greet_in_action,
}


@pytest.fixture
def backend(serve: Serve) -> Backend:
    RUNS.clear()
    return serve(FUNCTIONS, NUMBERS, ITEMS)


def on_its_loop(backend: Backend, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run this on the event loop of the backend."""

    async def attached() -> None:
        backend.engine.attach(asyncio.get_running_loop())
        await main()

    asyncio.run(attached())


async def call(backend: Backend, path: str, by: Caller = ANONYMOUS, **args: Any) -> Outcome:
    async with asyncio.timeout(SECONDS):
        return await backend.engine.run(path, json.dumps(args).encode(), by, kind=None, request_id="")


async def value_of(backend: Backend, path: str, by: Caller = ANONYMOUS, **args: Any) -> Any:
    outcome = await call(backend, path, by, **args)
    assert outcome.value is not None, outcome.error
    return json.loads(outcome.value)


async def until(condition: Callable[[], object]) -> None:
    """Look again and again until this is so: for what nobody tells of."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


# Being told


def test_a_watcher_is_told_each_time_something_changed(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:read", {"name": "a"})
        await watcher.sees(1, 0)
        for n in (1, 2, 3):
            await call(backend, "it:put", name="a", n=n)
            await watcher.sees(1, n)
        assert len(watcher.moves) == 4

    on_its_loop(backend, main)


def test_what_did_not_change_is_not_told_again(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:read", {"name": "a"})
        watcher.watch(2, "it:greet")
        await watcher.sees(2, ["everybody", 0])
        await call(backend, "it:put", name="a", n=0)
        await call(backend, "it:put", name="flag", n=2)
        await watcher.sees(2, ["everybody", 2])

        assert sum(tags.count(1) for _, tags in watcher.moves) == 1

    on_its_loop(backend, main)


def test_a_query_that_fails_when_it_is_run_again_is_told_as_failed_once(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:strict", {"name": "a"})
        await watcher.sees(1, 0)
        for n in (10, 11, 100, 101):
            await call(backend, "it:put", name="a", n=n)
            watcher.ask()
            moves = len(watcher.moves)
            await watcher.until(lambda moves=moves: len(watcher.moves) > moves)
        assert watcher.held[1].error is not None
        assert watcher.held[1].error.split("\n")[1] == "Uncaught ValueError: far too much"
        assert watcher.held[1].error_data is None
        await call(backend, "it:put", name="a", n=5)
        await watcher.sees(1, 5)

        assert sum(tags.count(1) for _, tags in watcher.moves) == 4  # 0, too much, far too much, 5

    on_its_loop(backend, main)


def test_who_can_not_be_told_is_told_the_newest_later(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:read", {"name": "a"})
        await watcher.sees(1, 0)
        watcher.is_busy = True
        for n in range(1, 20):
            await call(backend, "it:put", name="a", n=n)
        watcher.take()
        await watcher.sees(1, 19)

        assert len(watcher.moves) == 2

    on_its_loop(backend, main)


def test_nobody_is_left_behind_in_memory(backend: Backend) -> None:
    async def main() -> None:
        random, engine = Random(1), backend.engine
        live = engine._runner.live
        for _ in range(60):
            watchers = [Watcher(backend, random.choice([ANN, BOB, ANONYMOUS])) for _ in range(5)]
            for tag, watcher in enumerate(watchers * 3):
                path, args = random.choice([("it:read", {"name": str(tag)}), ("it:greet", {}), ("it:me", {})])
                watcher.watch(tag, path, args)
                if random.random() < 0.5:
                    await call(backend, "it:put", name=random.choice(["flag", str(tag)]), n=random.randrange(9))
                if random.random() < 0.2:
                    watcher.view.remove(tag)
                if random.random() < 0.2:
                    watcher.become(random.choice([ANN, BOB, ANONYMOUS]))
            for watcher in watchers:
                watcher.view.close()
        async with asyncio.timeout(SECONDS):
            await until(lambda: not live._ticks)

        assert len(live) == 0
        assert not live._views
        assert not live._wanting
        readers = engine.database.feed._readers
        assert not readers._by_table
        assert not readers._by_range
        assert not readers._by_prefix

    on_its_loop(backend, main)


# Who asks

PEOPLE = {
    "ann": [ANN, Caller(ANN.identity, is_admin=True)],
    "bob": [BOB],
    "nobody": [ANONYMOUS, Caller(address="192.0.2.1")],
    "the operator": [OPERATOR],
}
"""By what `greet` calls them. Ann with the admin key and without are two callers."""


def test_a_shared_run_that_begins_to_look_at_who_asks_shows_nobody_what_is_another_s(backend: Backend) -> None:
    """The number decides whether the function looks: at the first run it does not, at later ones it does and does not."""

    async def main() -> None:
        random = Random(3)
        callers = [(name, caller) for name, callers in PEOPLE.items() for caller in callers]
        watchers = {Watcher(backend, caller): name for name, caller in callers for _ in range(2)}
        for watcher in watchers:
            watcher.watch(1, "it:greet")
        n = 0
        for round_ in range(400):
            if random.random() < 0.5:
                watcher = random.choice(list(watchers))
                watchers[watcher], caller = random.choice(callers)
                watcher.become(caller)
            watcher = random.choice(list(watchers))
            if watcher.is_busy:
                watcher.take()
            else:
                watcher.is_busy = True
            n += random.choice([1, 1, 1, 2])
            changing = asyncio.create_task(call(backend, "it:put", name="flag", n=n))
            asked = [(name, path, asyncio.create_task(value_of(backend, path, caller)))
                     for name, caller in random.sample(callers, 2)
                     for path in random.sample(["it:greet", "it:greetInAction"], random.randrange(3))]  # fmt: skip
            for _ in range(random.randrange(4)):
                await asyncio.sleep(random.choice([0, 0.0005]))
            for name, path, answer in asked:
                assert is_for(name, await answer), f"{path} for {name} in round {round_}"
            if random.random() < 0.7:
                await changing
            shown = [(name, watcher.value(1)) for watcher, name in watchers.items() if not watcher.view.unsettled]
            assert [each for each in shown if not is_for(*each)] == [], f"round {round_}"
        await call(backend, "it:put", name="flag", n=1001)
        for watcher, name in watchers.items():
            if watcher.is_busy:
                watcher.take()
            await watcher.sees(1, [name, 1001])

    on_its_loop(backend, main)


def is_for(name: str, told: list[Any]) -> bool:
    who, value = told
    return who == (name if value % 2 else "everybody")


class Suspect(Watcher):
    """A watcher that looks at everything it is told at once."""

    def __init__(self, backend: Backend, name: str, caller: Caller) -> None:
        super().__init__(backend, caller)
        self.name = name
        self.wrong: list[Any] = []

    def moved(self, timestamp: int, changes: Any) -> None:
        super().moved(timestamp, changes)
        if not is_for(self.name, self.value(1)):
            self.wrong.append((timestamp, self.value(1)))


@pytest.mark.parametrize("seed", range(3))
def test_each_is_told_only_its_own_while_identities_change(backend: Backend, seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        callers = [(name, caller) for name, callers in PEOPLE.items() for caller in callers]
        suspects = [Suspect(backend, name, caller) for name, caller in callers]
        for suspect in suspects:
            suspect.watch(1, "it:greet")
        for n in range(200):
            await call(backend, "it:put", name="flag", n=n)
            for suspect in random.sample(suspects, 2):
                suspect.name, caller = random.choice(callers)
                suspect.become(caller)
            await asyncio.sleep(random.choice([0, 0, 0.001]))
        for suspect in suspects:
            await suspect.sees(1, [suspect.name, 199])

        assert [suspect.wrong for suspect in suspects] == [[]] * len(suspects)

    on_its_loop(backend, main)


def test_one_identity_with_other_claims_is_another_caller(backend: Backend) -> None:
    async def main() -> None:
        assert ANN.identity is not None
        twin = Caller(Identity({**ANN.identity, "subject": "ann's twin"}))
        watchers = {Watcher(backend, ANN): "ann", Watcher(backend, twin): "ann's twin"}
        for watcher in watchers:
            watcher.watch(1, "it:greet")
        await call(backend, "it:put", name="flag", n=1)
        for watcher, name in watchers.items():
            await watcher.sees(1, [name, 1])

    on_its_loop(backend, main)


def test_an_internal_query_is_not_shown_to_those_who_are_the_operator_no_more(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend, OPERATOR)
        watcher.watch(1, "it:secret")
        await watcher.sees(1, "secret")
        watcher.become(ANONYMOUS)
        await watcher.until(lambda: watcher.held[1].error is not None)
        watcher.become(OPERATOR)
        await watcher.sees(1, "secret")

    on_its_loop(backend, main)


def test_arguments_that_can_not_be_read_are_not_run_when_somebody_else_asks(backend: Backend) -> None:
    async def main() -> None:
        watcher = Watcher(backend)
        watcher.view.add(1, "it:withDefault", b'[{"name":{"$integer":"?"}}]', None)
        watcher.ask()
        await watcher.until(lambda: 1 in watcher.held)
        error = watcher.held[1].error
        watcher.become(ANN)
        await watcher.until(lambda: len(watcher.moves) == 2)

        assert error is not None
        assert watcher.held[1].error == error
        assert watcher.moves[1][1] == []

    on_its_loop(backend, main)


# Moments


class SlowSnapshots:
    """Opens snapshots, and hands them over when told to: whoever gets them then has an old state."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = backend.engine.database.storage.snapshots
        self.is_open, self.hand_over = threading.Event(), threading.Event()
        monkeypatch.setattr(backend.engine.database.storage, "snapshots", self._snapshots)

    def _snapshots(self, count: int) -> list[Snapshot]:
        found = self._open(count)
        self.is_open.set()
        assert self.hand_over.wait(SECONDS)
        return found

    async def opened(self) -> None:
        async with asyncio.timeout(SECONDS):
            await until(self.is_open.is_set)


@pytest.fixture
def slow_snapshots(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSnapshots]:
    slow = SlowSnapshots(backend, monkeypatch)
    yield slow
    slow.hand_over.set()


def test_who_comes_while_a_tick_is_opened_is_not_shown_an_older_moment(
    backend: Backend, slow_snapshots: SlowSnapshots
) -> None:
    """It may have seen the newer one over HTTP, or on an earlier connection."""

    async def main() -> None:
        first = Watcher(backend)
        first.watch(1, "it:read", {"name": "a"})
        await slow_snapshots.opened()
        written = await call(backend, "it:put", name="a", n=7)
        second = Watcher(backend)
        second.watch(1, "it:read", {"name": "a"})
        slow_snapshots.hand_over.set()
        await second.until(lambda: 1 in second.held)
        assert second.moves[0][0] >= written.timestamp
        assert second.value(1) == 7
        await first.sees(1, 7)

    on_its_loop(backend, main)


def test_what_is_owed_from_a_moment_on_is_not_paid_with_an_older_one(
    backend: Backend, slow_snapshots: SlowSnapshots
) -> None:
    """A client calls its mutation done at the first transition that is not older, also where nothing changed for it."""

    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:read", {"name": "a"})
        await slow_snapshots.opened()
        written = await call(backend, "it:put", name="another", n=1)
        watcher.view.owe(Timestamp(written.timestamp))
        watcher.view.advance()
        slow_snapshots.hand_over.set()
        await watcher.until(lambda: watcher.timestamp >= written.timestamp)

    on_its_loop(backend, main)


def test_a_new_page_does_not_end_where_an_old_one_ends(backend: Backend, slow_snapshots: SlowSnapshots) -> None:
    slow_snapshots.hand_over.set()
    options = {"paginationOpts": {"numItems": 2, "cursor": None}}

    async def main() -> None:
        for place in (10, 20, 30):
            await call(backend, "it:hang", place=place)
        old = Watcher(backend)
        old.watch(1, "it:page", options)
        await old.until(lambda: 1 in old.held)
        slow_snapshots.hand_over.clear()
        slow_snapshots.is_open.clear()
        await call(backend, "it:hang", place=5)
        await slow_snapshots.opened()
        new = Watcher(backend)  # comes while the page is known to be stale, and has not been read again
        new.watch(1, "it:page", options)
        slow_snapshots.hand_over.set()
        await new.until(lambda: 1 in new.held)
        await old.until(lambda: len(old.value(1)["page"]) == 3)

        assert old.value(1)["page"] == [5, 10, 20]
        assert new.value(1)["page"] == [5, 10]

    on_its_loop(backend, main)


def test_a_page_that_was_never_shown_does_not_end_where_an_old_one_ends(backend: Backend) -> None:
    options = {"paginationOpts": {"numItems": 2, "cursor": None}}

    async def main() -> None:
        for place in (10, 20, 30):
            await call(backend, "it:hang", place=place)
        old, new = Watcher(backend), Watcher(backend)
        old.watch(1, "it:page", options)
        await old.until(lambda: 1 in old.held)
        new.is_busy = True  # it comes in time, but can't be told before the page has changed
        new.watch(1, "it:page", options)
        await call(backend, "it:hang", place=5)
        await old.until(lambda: len(old.value(1)["page"]) == 3)
        new.take()
        await new.until(lambda: 1 in new.held)

        assert new.value(1)["page"] == [5, 10]
        await call(backend, "it:hang", place=7)
        await new.until(lambda: len(new.value(1)["page"]) == 3)
        await old.until(lambda: len(old.value(1)["page"]) == 4)

    on_its_loop(backend, main)


# While a commit is on disk and not marked yet


class Pause:
    """Holds the committer where a commit is on disk: before results are marked, or behind that and before anybody is told."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch, *, behind_the_marks: bool) -> None:
        database = backend.engine.database
        # Behind the marks also means behind the lock under which they are made where other servers write.
        whose, name = (database._committer, "take_in") if behind_the_marks else (database.feed, "publish")
        self._marks, self._behind = getattr(whose, name), behind_the_marks
        self.is_on, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        monkeypatch.setattr(whose, name, self._paused)

    def _paused(self, *commit: Any, **more: Any) -> None:
        if self._behind:
            self._marks(*commit, **more)
        self.is_on.set()
        assert self.go_on.wait(SECONDS)
        if not self._behind:
            self._marks(*commit, **more)

    async def begun(self) -> None:
        async with asyncio.timeout(SECONDS):
            await until(self.is_on.is_set)


def paused_tasks(backend: Backend, watchers: list[Watcher]) -> list[asyncio.Task[Any]]:
    """Everything that a client can do to see a number."""
    asked = [value_of(backend, "it:read", by, name="a") for by in (ANONYMOUS, ANN, BOB)]
    asked.append(held_value(backend))
    for watcher in watchers:
        watcher.ask()
    new = Watcher(backend, BOB)
    new.watch(1, "it:read", {"name": "a"})
    watchers.append(new)
    return [asyncio.create_task(each) for each in asked]


async def held_value(backend: Backend) -> Any:
    """The number on a snapshot that is held for several queries."""
    at = await backend.engine.hold_snapshot()
    outcome = await backend.engine.run("it:read", b'{"name":"a"}', ANONYMOUS, kind="query", request_id="", at=at)
    return json.loads(outcome.value or b"null")


@pytest.mark.parametrize("is_cached", [True, False])
def test_nobody_sees_a_commit_before_results_are_marked(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    async def main() -> None:
        await call(backend, "it:put", name="a", n=1)
        watchers = [Watcher(backend), Watcher(backend, ANN)]
        watchers[0].watch(1, "it:read", {"name": "a"})
        await watchers[0].sees(1, 1)
        if is_cached:
            assert await value_of(backend, "it:read", name="a") == 1
        pause = Pause(backend, monkeypatch, behind_the_marks=False)
        pause.go_on.clear()
        before = backend.engine.marked
        try:
            writing = asyncio.create_task(call(backend, "it:put", name="a", n=2))
            await pause.begun()
            tasks = paused_tasks(backend, watchers)
            done, _ = await asyncio.wait([writing, *tasks], timeout=0.5)

            assert backend.engine.marked == before
            assert writing not in done
            assert all(task.result() == 1 for task in done)
            assert {watcher.value(1) for watcher in watchers if 1 in watcher.held} == {1}
            assert all(watcher.timestamp <= before for watcher in watchers)
        finally:
            pause.go_on.set()
        for task in tasks:
            assert await task in {1, 2}
        assert (await writing).ok
        for watcher in (watchers[0], watchers[2]):
            await watcher.sees(1, 2)

    on_its_loop(backend, main)


def test_when_results_are_marked_nobody_is_shown_the_old_state_as_the_new(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the writer and the watchers have been told: whoever asks now gets the new state."""

    async def main() -> None:
        await call(backend, "it:put", name="a", n=1)
        watchers = [Watcher(backend)]
        watchers[0].watch(1, "it:read", {"name": "a"})
        await watchers[0].sees(1, 1)
        assert await value_of(backend, "it:read", name="a") == 1
        pause = Pause(backend, monkeypatch, behind_the_marks=True)
        pause.go_on.clear()
        try:
            writing = asyncio.create_task(call(backend, "it:put", name="a", n=2))
            await pause.begun()
            for task in paused_tasks(backend, watchers):
                assert await task == 2
            for watcher in watchers:
                await watcher.sees(1, 2)
            assert not writing.done()
        finally:
            pause.go_on.set()
        assert (await writing).ok

    on_its_loop(backend, main)


# Another application


def test_a_function_that_is_gone_is_told_as_failed_and_is_back_when_it_is(backend: Backend) -> None:
    schema = define_schema(NUMBERS, ITEMS)
    without = {path: function for path, function in FUNCTIONS.items() if path != "it:read"}

    async def main() -> None:
        watcher = Watcher(backend)
        watcher.watch(1, "it:read", {"name": "a"})
        watcher.watch(2, "it:greet")
        await watcher.sees(2, ["everybody", 0])
        for _ in range(3):
            await backend.engine.reload(application_of("without", schema, without))
            await watcher.until(lambda: watcher.held[1].error is not None)
            assert "Could not find public function for 'it:read'" in (watcher.held[1].error or "")
            await call(backend, "it:put", name="flag", n=4)
            await watcher.sees(2, ["everybody", 4])
            await backend.engine.reload(application_of("with", schema, FUNCTIONS))
            await watcher.sees(1, 0)
            await call(backend, "it:put", name="flag", n=2)
            await watcher.sees(2, ["everybody", 2])

    on_its_loop(backend, main)


def test_nobody_is_told_that_a_reload_has_taken_the_index_that_the_code_before_it_read_by(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = Runner.serve

    def serve_slowly(runner: Runner, functions: Mapping[str, Any]) -> None:
        time.sleep(0.2)
        serve(runner, functions)

    def at_places(index: str) -> Application:
        @query(name="atPlace")
        def at_place(ctx: QueryCtx, *, place: float) -> int:
            return ctx.db.query(ITEMS).with_index(index, place=place).count()

        items = define_table("items", {"place": v.number()}).index(index, ["place"])
        return application_of(index, define_schema(NUMBERS, items), {**FUNCTIONS, "it:atPlace": at_place})

    async def main() -> None:
        await backend.engine.reload(at_places("by_place"))
        watchers: list[Watcher] = []
        monkeypatch.setattr(Runner, "serve", serve_slowly)
        reloading = asyncio.create_task(backend.engine.reload(at_places("by_room")))
        while not reloading.done():
            watchers.append(Watcher(backend))
            watchers[-1].watch(1, "it:atPlace", {"place": len(watchers)})
            await asyncio.sleep(0.01)
        await reloading
        for watcher in watchers:
            await watcher.sees(1, 0)
        assert {error for watcher in watchers for error in watcher.errors} == set()

    on_its_loop(backend, main)


def test_reloading_under_load_leaves_everybody_with_the_newest(backend: Backend) -> None:
    schema = define_schema(NUMBERS, ITEMS)

    @query
    def other_read(ctx: QueryCtx, *, name: str) -> list[Any]:
        return ["other", number(ctx, name)]

    others = {**FUNCTIONS, "it:read": other_read}

    async def main() -> None:
        random, functions = Random(5), FUNCTIONS
        watchers = [Watcher(backend, caller) for caller in (ANN, BOB, ANONYMOUS, OPERATOR)]
        for watcher in watchers:
            watcher.watch(1, "it:read", {"name": "a"})
            watcher.watch(2, "it:me")
        for n in range(1, 41):
            functions = random.choice([FUNCTIONS, others])
            writing = asyncio.create_task(call(backend, "it:put", name="a", n=n))
            await backend.engine.reload(application_of("next", schema, functions))
            await writing
        value = 40 if functions is FUNCTIONS else ["other", 40]
        for watcher, name in zip(watchers, ["ann", "bob", "nobody", "the operator"], strict=True):
            await watcher.sees(1, value)
            await watcher.sees(2, name)
        async with asyncio.timeout(SECONDS):
            await until(lambda: not backend.engine._runner.live._ticks)
        assert sum(tags.count(2) for watcher in watchers for _, tags in watcher.moves) == 4

    on_its_loop(backend, main)
