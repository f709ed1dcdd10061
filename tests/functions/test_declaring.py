"""Declaring functions: what the decorators take, what they refuse, and names on the wire."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from camber import (
    ActionCtx,
    ArgumentValidationError,
    ConvexError,
    DatabaseUsageError,
    LoadError,
    MutationCtx,
    QueryCtx,
    RegisteredFunction,
    ReturnsValidationError,
    action,
    define_table,
    internal_mutation,
    internal_query,
    mutation,
    query,
    v,
)
from camber.errors import FunctionNotFoundError, WrongKindError
from camber.functions import wire_name
from tests.functions.conftest import Serve
from tests.functions.deployments import OPERATOR, call, declared, message, somebody

BookId = Annotated[str, v.id("books")]
Shelf = Literal["left", "right"]

BOOKS = define_table("books", {"title": v.string(), "shelf": v.optional(v.string())})


class Book(TypedDict):
    title: str
    shelf: NotRequired[str]


def args_of(function: RegisteredFunction[..., Any]) -> Any:
    return declared(function).args.json


def fields_of(function: RegisteredFunction[..., Any]) -> dict[str, Any]:
    return args_of(function)["value"]


# The decorators


def test_a_function_is_named_after_its_python_name_in_camel_case() -> None:
    @query
    def books_by_title(ctx: QueryCtx, *, book_title: str) -> None: ...

    assert books_by_title.name == "booksByTitle"
    assert list(fields_of(books_by_title)) == ["bookTitle"]


def test_a_name_of_its_own_stays_as_it_is_written() -> None:
    @query(name="get")
    def get_book(ctx: QueryCtx) -> None:
        """One book."""

    assert get_book.name == "get"
    assert get_book.__doc__ == "One book."


@pytest.mark.parametrize(
    ("python", "wire"),
    [
        ("tier", "tier"),
        ("from_", "from"),
        ("class__", "class"),
        ("access_code", "accessCode"),
        ("a_b_c", "aBC"),
        ("already_Camel", "alreadyCamel"),
        ("camelCase", "camelCase"),
        ("_hidden_one", "_hiddenOne"),
        ("two__lines", "twoLines"),
        ("version_2", "version2"),
        ("_", "_"),
    ],
)
def test_wire_names(python: str, wire: str) -> None:
    assert wire_name(python) == wire


def test_two_parameters_with_one_wire_name_are_refused() -> None:
    @query
    def get(ctx: QueryCtx, *, access_code: str, accessCode: str) -> None: ...  # noqa: N803

    with pytest.raises(LoadError, match=r"test_declaring.py:\d+: get: .*`access_code` and `accessCode`.*`accessCode`"):
        declared(get)


def test_a_trailing_underscore_clashes_with_the_name_without_it() -> None:
    @query
    def get(ctx: QueryCtx, *, limit: str, limit_: str) -> None: ...

    with pytest.raises(LoadError, match="`limit` and `limit_` both are `limit`"):
        declared(get)


# The colour


def test_an_async_query_is_refused_with_the_reason() -> None:
    with pytest.raises(LoadError, match=r"test_declaring.py:\d+: get is an `async def`.*only sees the database"):

        @query
        async def get(ctx: QueryCtx) -> None: ...


def test_an_async_mutation_is_refused_with_the_way_out() -> None:
    with pytest.raises(LoadError, match="Drop `async` and `await`, or declare it with @action"):

        @mutation(name="set")
        async def put(ctx: MutationCtx) -> None: ...


def test_a_plain_action_is_refused_with_the_reason() -> None:
    with pytest.raises(LoadError, match=r"send is a plain `def`, but an action is an `async def`.*Write `async def`"):

        @action
        def send(ctx: ActionCtx) -> None: ...  # pyright: ignore


def test_a_function_that_yields_is_refused() -> None:
    with pytest.raises(LoadError, match=r"stream has a `yield` in it"):

        @query
        def stream(ctx: QueryCtx) -> Any:
            yield 1


@pytest.mark.parametrize("kind", [query, mutation])
def test_a_context_of_another_kind_is_refused(kind: Any) -> None:
    @kind
    def get(ctx: ActionCtx) -> None: ...

    with pytest.raises(
        LoadError, match=r"get is a (query|mutation): its context is a (Query|Mutation)Ctx, no ActionCtx"
    ):
        declared(get)


def test_a_mutation_may_say_that_it_only_reads() -> None:
    @mutation
    def get(ctx: QueryCtx) -> None: ...

    assert declared(get).kind == "mutation"


def test_a_function_without_a_context_is_refused() -> None:
    with pytest.raises(LoadError, match="no_parameters has no first parameter for its context; write `ctx`"):
        declared(query(no_parameters))  # pyright: ignore


def no_parameters() -> None: ...


def test_decorators_of_ones_own_may_stand_below(serve: Serve) -> None:
    def loudly(handler: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(handler)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return handler(*args, **kwargs).upper()

        return wrapper

    @query
    @loudly
    def greet(ctx: QueryCtx, *, first_name: str) -> str:
        return f"hello {first_name}"

    assert serve({"it:greet": greet}).run("it:greet", {"firstName": "ann"}) == "HELLO ANN"


# Annotations and validators


def test_annotations_become_validators() -> None:
    @query
    def get(ctx: QueryCtx, *, book_id: BookId, shelf: Shelf, wanted: list[Book], note: str | None) -> Book | None: ...

    assert fields_of(get) == {
        "bookId": {"fieldType": {"type": "id", "tableName": "books"}, "optional": False},
        "shelf": {
            "fieldType": {
                "type": "union",
                "value": [{"type": "literal", "value": "left"}, {"type": "literal", "value": "right"}],
            },
            "optional": False,
        },
        "wanted": {
            "fieldType": {
                "type": "array",
                "value": {
                    "type": "object",
                    "value": {
                        "shelf": {"fieldType": {"type": "string"}, "optional": True},
                        "title": {"fieldType": {"type": "string"}, "optional": False},
                    },
                },
            },
            "optional": False,
        },
        "note": {"fieldType": {"type": "union", "value": [{"type": "string"}, {"type": "null"}]}, "optional": False},
    }
    returns = get.returns
    assert returns is not None
    assert returns.json["type"] == "union"


def test_a_parameter_with_a_default_is_optional_and_missing_gives_the_default(serve: Serve) -> None:
    backend = serve({"books:get": titled})

    assert backend.run("books:get", {}) == "Dune"
    assert backend.run("books:get", {"title": "Emma"}) == "Emma"
    assert backend.run("books:get", {"title": None}) is None


def titled(ctx: QueryCtx, *, title: str | None = "Dune") -> str | None:
    return title


def test_null_can_be_refused_where_none_is_the_default(serve: Serve) -> None:
    @query(args={"title": v.optional(v.string())})
    def get(ctx: QueryCtx, *, title: str | None = None) -> str | None:
        return title

    backend = serve({"books:get": get})
    assert backend.run("books:get", {}) is None
    with pytest.raises(ArgumentValidationError, match=r"Value does not match validator"):
        backend.run("books:get", {"title": None})


def test_args_and_returns_take_validators(serve: Serve) -> None:
    @query(args={"bookTitle": v.string()}, returns={"title": v.string()})
    def get(ctx: QueryCtx, *, book_title: Any) -> Any:
        return {"title": book_title} if book_title else {"titel": book_title}

    backend = serve({"books:get": get})
    assert backend.run("books:get", {"bookTitle": "Dune"}) == {"title": "Dune"}
    with pytest.raises(ArgumentValidationError):
        backend.run("books:get", {"bookTitle": 5})
    with pytest.raises(ReturnsValidationError, match="missing the required field `title`"):
        backend.run("books:get", {"bookTitle": ""})


def test_args_without_a_parameter_for_them_are_refused() -> None:
    @query(args={"title": v.string(), "shelf": v.string()})
    def get(ctx: QueryCtx, *, title: str) -> None: ...

    with pytest.raises(LoadError, match=r"get: `shelf` is in its args, but it has no parameter for it"):
        declared(get)


@pytest.mark.parametrize("args", [{}, {"title": v.optional(v.string())}])
def test_parameters_that_would_be_missing_are_refused(args: Any) -> None:
    @query(args=args)
    def get(ctx: QueryCtx, *, title: str) -> None: ...

    with pytest.raises(
        LoadError, match="the parameter `title` has no default, but `title` is not in its args or is optional"
    ):
        declared(get)


def test_keyword_arguments_take_everything_under_wire_names(serve: Serve) -> None:
    @query
    def echo(ctx: QueryCtx, **given: Any) -> Any:
        return given

    @query(args={"first_one": v.string(), "firstTwo": v.string(), "other": v.any()})
    def split(ctx: QueryCtx, *, first_two: str, **given: Any) -> Any:
        return [first_two, given]

    backend = serve({"books:echo": echo, "books:split": split})
    assert args_of(echo) == {"type": "any"}
    assert backend.run("books:echo", {"bookTitle": "Dune", "n": 1}) == {"bookTitle": "Dune", "n": 1.0}
    given = {"first_one": "1", "firstTwo": "2", "other": [3]}
    assert backend.run("books:split", given) == ["2", {"first_one": "1", "other": [3.0]}]


def test_a_parameter_without_an_annotation_is_refused_with_what_to_write() -> None:
    @query
    def get(ctx: QueryCtx, title) -> None: ...  # pyright: ignore

    with pytest.raises(LoadError, match="the parameter `title` has no annotation; write `title: str`"):
        declared(get)


def test_an_annotation_that_says_nothing_convex_can_check_is_refused() -> None:
    @query
    def get(ctx: QueryCtx, *, when: complex) -> None: ...

    with pytest.raises(LoadError, match=r"test_declaring.py:\d+: get: .*complex"):
        declared(get)


def test_an_annotation_that_names_nothing_is_refused() -> None:
    @query
    def get(ctx: QueryCtx, *, title: Titel) -> None: ...  # pyright: ignore  # noqa: F821  # pyright: ignore

    with pytest.raises(LoadError, match="the annotations of get can't be read: name 'Titel' is not defined"):
        declared(get)


@pytest.mark.parametrize("signature", ["positional only", "star"])
def test_parameters_that_can_not_be_named_are_refused(signature: str) -> None:
    def by_place(ctx: QueryCtx, title: str, /) -> None: ...

    def by_star(ctx: QueryCtx, *titles: str) -> None: ...

    with pytest.raises(LoadError, match="can't be given by name; arguments are always named"):
        declared(query(by_place if signature == "positional only" else by_star))


def test_without_a_returns_annotation_any_value_passes(serve: Serve) -> None:
    @query
    def get(ctx: QueryCtx):  # pyright: ignore
        return [1, {"a": None}]

    assert serve({"books:get": get}).run("books:get") == [1.0, {"a": None}]


# Names and paths


def test_a_name_of_64_letters_is_fine_and_65_are_not() -> None:
    @query(name="n" * 64)
    def long(ctx: QueryCtx) -> None: ...

    @query(name="n" * 65)
    def longer(ctx: QueryCtx) -> None: ...

    assert declared(long, f"books:{long.name}").path == "books:" + "n" * 64
    with pytest.raises(LoadError, match="at most 64"):
        declared(longer, f"books:{longer.name}")


@pytest.mark.parametrize("name", ["", "two words", "my-name", "1st", "ä", "___"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    @query(name=name or "placeholder")
    def get(ctx: QueryCtx) -> None: ...

    with pytest.raises(LoadError, match="is no name: letters, digits and _"):
        declared(get, f"books:{name}")


# Guards


def require_ann(ctx: QueryCtx) -> None:
    identity = ctx.auth.get_user_identity()
    if identity is None or identity.subject != "ann":
        raise ConvexError("only for ann")


ann_mutation = mutation.guarded(require_ann)
ann_query = query.guarded(require_ann)


@ann_mutation
def add_book(ctx: MutationCtx, *, title: str) -> None:
    """Put a book on the list."""
    ctx.db.insert(BOOKS, {"title": title})


@ann_query(name="titles")
def all_titles(ctx: QueryCtx) -> list[str]:
    return [book["title"] for book in ctx.db.query(BOOKS)]


@mutation
def add_two(ctx: MutationCtx) -> None:
    add_book(ctx, title="one")
    ctx.run_mutation(add_book, title="two")


GUARDED = {"books:add": add_book, "books:titles": all_titles, "books:addTwo": add_two}


def test_a_guard_refuses_before_the_function_runs(serve: Serve) -> None:
    backend = serve(GUARDED, BOOKS)

    assert (
        call(backend, "books:add", {"title": "Dune"}, by=somebody("bob"), kind="mutation").error_data
        == b'"only for ann"'
    )
    assert call(backend, "books:add", {"title": "Emma"}, by=somebody("ann"), kind="mutation").ok
    assert call(backend, "books:titles", by=somebody("ann")).value == b'["Emma"]'
    assert not call(backend, "books:titles", by=somebody("bob")).ok


def test_guards_hold_for_calls_from_other_functions_too(serve: Serve) -> None:
    backend = serve(GUARDED, BOOKS)

    assert not call(backend, "books:addTwo", by=somebody("bob"), kind="mutation").ok
    assert call(backend, "books:addTwo", by=somebody("ann"), kind="mutation").ok


def test_guards_add_up_in_the_order_they_were_given(serve: Serve) -> None:
    asked: list[str] = []
    kind = query.guarded(lambda ctx: asked.append("first")).guarded(lambda ctx: asked.append("second"))

    @kind
    def get(ctx: QueryCtx) -> None:
        asked.append("function")

    serve({"books:get": get}).run("books:get")
    assert asked == ["first", "second", "function"]


def test_a_guarded_kind_keeps_its_visibility(serve: Serve) -> None:
    @internal_query.guarded(require_ann)
    def get(ctx: QueryCtx) -> None: ...

    backend = serve({"books:get": get})
    assert "Could not find public function" in message(call(backend, "books:get", by=somebody("ann")))


async def require_books(ctx: ActionCtx) -> None:
    if not await ctx.run_query("books:titles"):
        raise ConvexError("no books yet")


@action.guarded(require_books)
async def print_titles(ctx: ActionCtx) -> str:
    return ", ".join(await ctx.run_query("books:titles"))


def test_the_guard_of_an_action_may_wait(serve: Serve) -> None:
    backend = serve({**GUARDED, "books:print": print_titles}, BOOKS)
    ann = somebody("ann")

    assert call(backend, "books:print", by=ann, kind="action").error_data == b'"no books yet"'
    call(backend, "books:add", {"title": "Dune"}, by=ann, kind="mutation")
    assert call(backend, "books:print", by=ann, kind="action").value == b'"Dune"'


def test_a_plain_guard_of_an_action_holds_as_well(serve: Serve) -> None:
    def nobody(ctx: ActionCtx) -> None:
        raise ConvexError("nobody")

    @action.guarded(nobody)
    async def send(ctx: ActionCtx) -> None: ...

    assert call(serve({"books:send": send}), "books:send", kind="action").error_data == b'"nobody"'


def test_a_guard_that_nothing_would_wait_for_is_refused() -> None:
    async def check(ctx: QueryCtx) -> None: ...

    with pytest.raises(LoadError, match=r"check is an `async def`, but it guards a query"):
        query.guarded(check)


# Calling each other


@internal_mutation(args={"title": v.string(), "twice": v.optional(v.boolean())})
def put(ctx: MutationCtx, title: str, twice: bool = False) -> int:
    ctx.db.insert(BOOKS, {"title": title})
    if twice:
        raise ConvexError("too many")
    return len(ctx.db.query(BOOKS).collect())


@query
def count(ctx: QueryCtx) -> int:
    return ctx.db.query(BOOKS).count()


@query
def meddle(ctx: QueryCtx) -> None:
    ctx.db.insert(BOOKS, {"title": "meddled"})  # pyright: ignore


CALLS: dict[str, Any] = {"books:put": put, "books:count": count, "books:meddle": meddle, "books:titles": all_titles}


def calling(serve: Serve, body: Any) -> Any:
    """What a mutation with this body gives to the operator."""

    @mutation
    def outer(ctx: MutationCtx) -> Any:
        return body(ctx)

    return serve({**CALLS, "books:outer": outer}, BOOKS).run("books:outer")


def test_a_function_called_from_python_runs_in_the_callers_transaction(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        put(ctx, title="one")
        return [put(ctx, "two"), count(ctx), ctx.db.query(BOOKS).count()]

    assert calling(serve, body) == [2.0, 2.0, 2.0]


def test_a_mutation_that_raises_in_the_callers_transaction_leaves_what_it_wrote_to_the_caller(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        with pytest.raises(ConvexError):
            put(ctx, "one", twice=True)
        return count(ctx)

    assert calling(serve, body) == 1.0


def test_run_mutation_is_a_sub_transaction_by_function_and_by_path(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        ctx.run_mutation(put, title="one")
        with pytest.raises(ConvexError):
            ctx.run_mutation(put, title="two", twice=True)
        with pytest.raises(ConvexError):
            ctx.run_mutation("books:put", {"title": "three", "twice": True})
        return [ctx.run_query(count), ctx.run_query("books:count"), ctx.run_mutation("books.js:put", {"title": "four"})]

    assert calling(serve, body) == [1.0, 1.0, 2.0]


def test_positional_arguments_are_taken_where_python_takes_them(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        ctx.run_mutation(put, "one")
        with pytest.raises(TypeError, match="takes 2 positional arguments, not 3"):
            ctx.run_mutation(put, "two", False, "three")  # pyright: ignore
        with pytest.raises(TypeError, match="`title` twice"):
            ctx.run_mutation(put, "two", title="three")  # pyright: ignore
        return ctx.run_query(count)

    assert calling(serve, body) == 1.0


def test_the_arguments_and_results_of_inner_calls_are_checked_and_handed_over(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        with pytest.raises(ArgumentValidationError, match="missing the required field `title`"):
            ctx.run_mutation("books:put", {})
        with pytest.raises(ArgumentValidationError, match="extra field `tittle`"):
            ctx.run_mutation(put, title="one", tittle="two")  # pyright: ignore
        found = ctx.run_mutation(put, title="one")
        return [type(found).__name__, found]

    assert calling(serve, body) == ["int", 1.0]


def test_a_query_called_by_a_mutation_sees_its_writes_and_can_not_write(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        put(ctx, "one")
        with pytest.raises(DatabaseUsageError, match="A query can't write. Declare the function with @mutation."):
            ctx.run_query(meddle)
        return ctx.run_query(count)

    assert calling(serve, body) == 1.0


def test_another_kind_is_refused_by_name(serve: Serve) -> None:
    def body(ctx: MutationCtx) -> Any:
        with pytest.raises(
            WrongKindError, match="books:count is a query; call it with ctx.run_query, not ctx.run_mutation"
        ):
            ctx.run_mutation("books:count")
        with pytest.raises(WrongKindError, match="books:put is a mutation; call it with ctx.run_mutation"):
            ctx.run_query(put, title="one")  # pyright: ignore
        with pytest.raises(FunctionNotFoundError, match="Could not find function for 'books:nope'"):
            ctx.run_query("books:nope")
        with pytest.raises(DatabaseUsageError, match="takes a function declared with @query, or its path"):
            ctx.run_query(len)  # pyright: ignore
        with pytest.raises(DatabaseUsageError, match="takes one mapping with the arguments' wire names"):
            ctx.run_query("books:count", title="one")  # pyright: ignore
        return "refused"

    assert calling(serve, body) == "refused"


def test_a_client_that_names_the_wrong_kind_is_told_both(serve: Serve) -> None:
    backend = serve(CALLS, BOOKS)

    told = message(call(backend, "books:count", kind="mutation"))
    assert told == "Trying to execute books.js:count as Mutation, but it is defined as Query."
    assert message(call(backend, "books:put", kind="mutation")) == "Could not find public function for 'books:put'."
    assert message(call(backend, "books:put", kind="query", by=OPERATOR)).startswith(
        "Trying to execute books.js:put as Query"
    )


def test_only_the_operator_is_told_names_that_are_near(serve: Serve) -> None:
    backend = serve(CALLS, BOOKS)

    assert re.search("Did you mean 'books:put'", message(call(backend, "books:putt", kind=None, by=OPERATOR)))
    assert message(call(backend, "books:putt", kind=None)) == "Could not find public function for 'books:putt'."


@pytest.mark.parametrize("path", ["books:count", "books.js:count"])
def test_a_path_may_be_written_with_js(serve: Serve, path: str) -> None:
    assert call(serve(CALLS, BOOKS), path).value == b"0.0"


def test_a_path_without_a_name_means_default(serve: Serve) -> None:
    @query(name="default")
    def get(ctx: QueryCtx) -> str:
        return "the default"

    backend = serve({"books:default": get, "shelf/books:default": get})
    assert backend.run("books") == backend.run("shelf/books.js") == "the default"
