"""The test kit: a real backend in a temporary folder, people who call it, and a clock that a test holds."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from camber import (
    ActionCtx,
    ArgumentValidationError,
    ConfigurationError,
    ConvexError,
    Document,
    Int64,
    LoadError,
    MutationCtx,
    QueryCtx,
    SchemaEnforcementError,
    UniqueIndexError,
    define_schema,
    define_table,
    fixed_window,
    internal_query,
    minutes,
    mutation,
    query,
    v,
)
from camber.errors import ForbiddenIOError, FunctionNotFoundError, WrongKindError
from camber.settings import Settings
from camber.testing import Backend, HeldClock, ReadCounter
from tests.wire.running_server import free_ports

CROWDFUNDING = Path(__file__).parents[2] / "apps" / "crowdfunding"

UNHURRIED = Settings(dev=True, mutation_seconds=60, query_seconds=60)


class Task(Document):
    text: str
    rank: int


tasks = define_table("tasks", Task).index("by_text", ["text"], unique=True).index("by_rank", ["rank"])
schema = define_schema(tasks)


@mutation
def add(ctx: MutationCtx, *, text: str, rank: int = 0) -> str:
    ctx.log("adding", text)
    return ctx.db.insert(tasks, {"text": text, "rank": rank})


@query(name="list")
def list_tasks(ctx: QueryCtx, *, first_rank: int = 0) -> list[str]:
    return [task["text"] for task in ctx.db.query(tasks) if task["rank"] >= first_rank]


@query
def rank_of(ctx: QueryCtx, *, text: str) -> int:
    task = ctx.db.query(tasks).with_index("by_text", text=text).unique()
    if task is None:
        raise ConvexError({"code": "NoSuchTask", "text": text})
    return task["rank"]


@query
def who(ctx: QueryCtx) -> Any:
    identity = ctx.auth.get_user_identity()
    return {"operator": ctx.auth.is_operator, "claims": None if identity is None else dict(identity)}


@mutation
def where(ctx: MutationCtx) -> str | None:
    return ctx.client_address


@internal_query
def hidden(ctx: QueryCtx) -> str:
    return "hidden"


@mutation
def attempt(ctx: MutationCtx) -> bool:
    return ctx.rate_limit(fixed_window("attempts", 1, per=minutes(1)), "key").ok


FUNCTIONS = [add, list_tasks, rank_of, who, where, hidden, attempt]


@pytest.fixture
def kit() -> Any:
    with Backend.in_memory(schema, FUNCTIONS, settings=UNHURRIED) as backend:
        yield backend


# Calling


def test_a_function_is_called_by_itself_with_python_names(kit: Backend) -> None:
    task_id = kit.run(add, text="wash", rank=3)

    assert kit.run(list_tasks) == ["wash"]
    assert kit.run(list_tasks, first_rank=4) == []
    assert kit.transact(lambda ctx: ctx.db.get(tasks, task_id)) is not None


def test_a_function_is_called_by_its_path_with_wire_names(kit: Backend) -> None:
    kit.run("testKit:add", {"text": "wash", "rank": 3})

    assert kit.run("testKit:list", {"firstRank": 3}) == ["wash"]
    assert kit.run("testKit.js:list") == ["wash"]


def test_numbers_come_back_as_the_annotation_says(kit: Backend) -> None:
    kit.run(add, text="wash", rank=3)

    for found in (kit.run(rank_of, text="wash"), kit.run("testKit:rankOf", {"text": "wash"})):
        assert (found, type(found)) == (3, int)


def test_a_convex_error_reaches_the_test_with_its_data(kit: Backend) -> None:
    with pytest.raises(ConvexError) as raised:
        kit.run(rank_of, text="wash")

    assert raised.value.data == {"code": "NoSuchTask", "text": "wash"}


def test_an_error_of_the_engine_reaches_the_test_as_what_it_is(kit: Backend) -> None:
    kit.run(add, text="wash")

    with pytest.raises(UniqueIndexError) as raised:
        kit.run(add, text="wash")
    assert raised.value.index == "by_text"
    with pytest.raises(ArgumentValidationError, match="missing the required field `text`"):
        kit.run("testKit:add")


def test_an_error_says_in_a_note_what_a_client_would_be_told() -> None:
    def fail(ctx: QueryCtx) -> None:
        raise KeyError("x")

    with Backend.in_memory(schema, {"it:fail": fail}) as kit, pytest.raises(KeyError) as raised:
        kit.run("it:fail")
    (note,) = raised.value.__notes__
    assert re.search(r"Uncaught KeyError: 'x'\n    at fail \(testing/test_kit.py:\d+\)", note)


def test_a_function_of_another_backend_is_refused(kit: Backend) -> None:
    @query
    def other(ctx: QueryCtx) -> None: ...

    with pytest.raises(ConfigurationError, match="is no function of the application that this backend serves"):
        kit.run(other)


def test_arguments_that_python_would_refuse_are_refused(kit: Backend) -> None:
    with pytest.raises(TypeError):
        kit.run(add, "wash", 3)  # pyright: ignore
    with pytest.raises(ArgumentValidationError, match="extra field `rang`"):
        kit.run(add, text="wash", rang=3)  # pyright: ignore


# People


def test_the_backend_itself_is_the_operator(kit: Backend) -> None:
    assert kit.run(who) == {"operator": True, "claims": None}
    assert kit.run(hidden) == "hidden"


def test_somebody_who_is_not_signed_in(kit: Backend) -> None:
    assert kit.anonymous.run(who) == {"operator": False, "claims": None}


def test_somebody_who_is_signed_in(kit: Backend) -> None:
    ann = kit.as_user(email="ann@example.com", name="Ann", subject="ann", team="red", level=3)

    assert ann.run(who) == {
        "operator": False,
        "claims": {
            "issuer": "https://camber.test",
            "subject": "ann",
            "tokenIdentifier": "https://camber.test|ann",
            "email": "ann@example.com",
            "emailVerified": True,
            "name": "Ann",
            "team": "red",
            "level": 3.0,
        },
    }


def test_the_same_email_is_the_same_person_and_another_one_another(kit: Backend) -> None:
    def subject(**claims: Any) -> str:
        return kit.as_user(**claims).run(who)["claims"]["subject"]

    assert subject(email="ann@example.com") == subject(email="ann@example.com", email_verified=False)
    assert subject(email="ann@example.com") != subject(email="bob@example.com")
    assert subject(subject="x") == "x"
    assert kit.as_user(email="a@b.c", email_verified=False).run(who)["claims"]["emailVerified"] is False
    assert "email" not in kit.as_user(name="Ann").run(who)["claims"]


def test_where_somebody_is(kit: Backend) -> None:
    assert kit.from_address("192.0.2.1").run(where) == "192.0.2.1"
    assert kit.as_user(email="a@b.c", address="192.0.2.2").run(where) == "192.0.2.2"
    assert kit.run(where) is None


@pytest.mark.parametrize("path", ["testKit:hidden", "testKit:nope", "_system/cli/tables"])
def test_clients_can_not_reach_what_they_can_not_reach(kit: Backend, path: str) -> None:
    for person in (kit.anonymous, kit.as_user(email="ann@example.com")):
        with pytest.raises(FunctionNotFoundError, match="Could not find public function for"):
            person.run(path, {})
    with pytest.raises(FunctionNotFoundError):
        kit.anonymous.run(hidden)


# Making one


def test_paths_can_be_given_and_plain_functions_are_of_the_kind_their_context_says() -> None:
    def see(ctx: QueryCtx, *, n: int) -> int:
        return n + 1

    def write(ctx: MutationCtx) -> int:
        ctx.db.insert("anything", {"n": 1})
        return ctx.db.query("anything").count()

    async def act(ctx: ActionCtx) -> int:
        return await ctx.run_mutation("a/b:write")

    with Backend.in_memory(
        define_schema(), {"a:see": see, "a/b:write": write, "a:act": act, "a:list": list_tasks}
    ) as kit:
        assert kit.anonymous.run("a:see", {"n": 1}) == 2
        assert kit.anonymous.run("a:act") == 1
        assert kit.run(list_tasks) == []
        with pytest.raises(WrongKindError, match="run_query"):
            kit.transact(lambda ctx: ctx.run_mutation("a:see", {"n": 1}))


def test_a_plain_function_without_a_context_is_refused_with_what_to_write() -> None:
    def mystery(ctx: object) -> None: ...

    with pytest.raises(
        LoadError, match="a:mystery: the first parameter says what kind of function it is: `ctx: QueryCtx`"
    ):
        Backend.in_memory(schema, {"a:mystery": mystery})


def test_two_functions_with_one_path_are_refused() -> None:
    @query(name="list")
    def other_list(ctx: QueryCtx) -> None: ...

    with pytest.raises(LoadError, match="the path testKit:list is taken by the function at"):
        Backend.in_memory(schema, [list_tasks, other_list])


def test_without_functions_there_are_rows_to_work_with() -> None:
    with Backend.in_memory(schema) as kit:
        kit.transact(lambda ctx: ctx.db.insert(tasks, {"text": "wash", "rank": 1}))
        assert [text for (text,) in kit.sql("SELECT text FROM tasks")] == ["wash"]


def test_an_application_is_loaded_from_its_folder() -> None:
    with Backend.load(CROWDFUNDING) as kit:
        assert kit.anonymous.run("appState:get") == {"crowdfundingActive": False}
    with pytest.raises(LoadError, match="there is no such folder"):
        Backend.load("nowhere")


def test_two_backends_do_not_know_of_each_other() -> None:
    with Backend.in_memory(schema, FUNCTIONS) as one, Backend.in_memory(schema, FUNCTIONS) as other:
        one.run(add, text="wash")
        assert (one.run(list_tasks), other.run(list_tasks)) == (["wash"], [])


def test_settings_are_taken() -> None:
    with Backend.in_memory(schema, FUNCTIONS, settings=Settings(dev=True, documents_written=1)) as kit:

        def two(ctx: MutationCtx) -> None:
            add(ctx, text="a")
            add(ctx, text="b")

        with pytest.raises(Exception, match="Too many writes"):
            kit.transact(two)


def test_its_folder_goes_with_it() -> None:
    with Backend.in_memory(schema) as kit:
        folder = kit.engine.data.parent
        assert folder.exists()
    assert not folder.exists()


def test_what_it_stored_goes_with_it() -> None:
    for _ in range(2):
        with Backend.in_memory(schema, FUNCTIONS) as kit:
            assert kit.run(list_tasks) == []
            kit.run(add, text="wash")


def test_it_is_on_the_engine_that_the_environment_chooses(engine: str) -> None:
    with Backend.in_memory(schema) as kit:
        assert bool(kit.database_url) == (engine == "postgres")
        [(version,)] = kit.sql("SELECT version()" if engine == "postgres" else "SELECT 'SQLite ' || sqlite_version()")
    assert str(version).startswith("PostgreSQL" if engine == "postgres" else "SQLite")


def test_a_server_that_is_not_there_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBER_TEST_DATABASE_URL", f"postgresql://127.0.0.1:{free_ports(1)[0]}/postgres")
    with pytest.raises(ConfigurationError, match="CAMBER_TEST_DATABASE_URL: no database for tests can be made there"):
        Backend.in_memory(schema)


# Time


def test_the_clock_is_held_and_moves_when_it_is_told_to(kit: Backend) -> None:
    start = kit.clock.now_ms
    assert kit.transact(lambda ctx: ctx.now) == start
    assert [kit.run(attempt), kit.run(attempt)] == [True, False]
    kit.clock.advance(minutes(1))

    assert kit.transact(lambda ctx: ctx.now) == start + 60_000
    assert kit.run(attempt)


def test_it_can_start_at_any_time() -> None:
    with Backend.in_memory(schema, now_ms=1000.0) as kit:
        assert isinstance(kit.clock, HeldClock)
        assert kit.transact(lambda ctx: ctx.now) == 1000


# Transactions of the test's own


def test_transact_arranges_rows_and_looks_at_them(kit: Backend) -> None:
    def arrange(ctx: MutationCtx) -> list[str]:
        return [ctx.db.insert(tasks, {"text": text, "rank": 1}) for text in ("wash", "dry")]

    ids = kit.transact(arrange)

    assert kit.run(list_tasks) == ["wash", "dry"]
    assert kit.transact(lambda ctx: [task["_id"] for task in ctx.db.query(tasks)]) == ids


def test_transact_returns_whatever_the_step_returns(kit: Backend) -> None:
    marker = object()

    assert kit.transact(lambda ctx: marker) is marker
    assert kit.transact(lambda ctx: {1: {2, 3}}) == {1: {2, 3}}


def test_transact_is_one_transaction(kit: Backend) -> None:
    def fail(ctx: MutationCtx) -> None:
        add(ctx, text="wash")
        ctx.run_mutation(add, text="dry")
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        kit.transact(fail)
    assert kit.run(list_tasks) == []


def test_transact_keeps_to_the_schema(kit: Backend) -> None:
    with pytest.raises(SchemaEnforcementError):
        kit.transact(lambda ctx: ctx.db.insert("tasks", {"text": 5}))


def test_transact_is_the_operators_and_may_do_anything(kit: Backend, tmp_path: Path) -> None:
    def step(ctx: MutationCtx) -> Any:
        (tmp_path / "seen.txt").write_text("seen")
        return [ctx.auth.is_operator, ctx.client_address, ctx.run_query("testKit:hidden")]

    assert kit.transact(step) == [True, None, "hidden"]


def test_transact_creates_tables_that_are_not_there() -> None:
    with Backend.in_memory(define_schema()) as kit:
        assert kit.transact(lambda ctx: [ctx.db.insert("new", {"n": Int64(1)}), ctx.db.query("new").count()][1]) == 1


def test_a_function_sees_what_transact_wrote_at_once(kit: Backend) -> None:
    for number in range(20):
        kit.transact(lambda ctx, number=number: ctx.db.insert(tasks, {"text": str(number), "rank": number}))
        assert len(kit.run(list_tasks)) == number + 1


# The log


def test_the_log_lines_are_those_of_the_most_recent_call(kit: Backend) -> None:
    assert kit.log_lines == []
    kit.run(add, text="wash")
    assert kit.log_lines == ["[LOG] 'adding' 'wash'"]
    kit.anonymous.run(list_tasks)
    assert kit.log_lines == []


def test_the_log_lines_are_there_after_an_error_too(kit: Backend) -> None:
    kit.run(add, text="wash")
    with pytest.raises(UniqueIndexError):
        kit.as_user(email="ann@example.com").run(add, text="wash")
    assert kit.log_lines == ["[LOG] 'adding' 'wash'"]


def test_the_log_lines_of_a_step(kit: Backend) -> None:
    kit.transact(lambda ctx: ctx.log.info("in a step"))
    assert kit.log_lines == ["[INFO] 'in a step'"]

    def fail(ctx: MutationCtx) -> None:
        ctx.log("before")
        raise LookupError

    with pytest.raises(LookupError):
        kit.transact(fail)
    assert kit.log_lines == ["[LOG] 'before'"]


# Looking closely


def test_reads_are_counted(kit: Backend) -> None:
    kit.run(add, text="wash", rank=1)
    kit.run(add, text="dry", rank=2)
    with kit.counting_reads() as reads:
        kit.run(rank_of, text="wash")
    assert isinstance(reads, ReadCounter)
    assert (reads.ranges, reads.documents) == (1, 1)
    with kit.counting_reads() as reads:
        kit.run(list_tasks)
        kit.run(list_tasks)  # kept from before: it reads nothing
    assert (reads.ranges, reads.documents) == (1, 2)


def test_rows_can_be_read_with_sql(kit: Backend) -> None:
    kit.run(add, text="wash", rank=3)

    assert kit.sql("SELECT text, rank FROM tasks WHERE rank > 2") == [("wash", 3.0)]
    with pytest.raises(Exception, match="can't be changed|cannot modify|cannot delete from view"):
        kit.sql("DELETE FROM tasks")


def test_several_threads_may_call_at_once(kit: Backend) -> None:
    threads = [threading.Thread(target=lambda n=n: kit.run(add, text=str(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, kit.run(list_tasks))) == list(range(20))


def test_the_rules_of_functions_hold_in_the_kit() -> None:
    import socket

    def reach(ctx: MutationCtx) -> None:
        socket.socket()

    with Backend.in_memory(schema, {"a:reach": reach}) as kit, pytest.raises(ForbiddenIOError):
        kit.run("a:reach")


def test_a_table_of_validators_works_as_well() -> None:
    plain = define_table("plain", {"from": v.string()})

    @query
    def first(ctx: QueryCtx) -> Any:
        row = ctx.db.query(plain).first()
        return row and row["from"]

    with Backend.in_memory(define_schema(plain), [first]) as kit:
        kit.transact(lambda ctx: ctx.db.insert(plain, {"from": "here"}))
        assert kit.run(first) == "here"
