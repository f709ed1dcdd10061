"""Adding, finding and lending books."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, assert_type

from camber import (
    MISSING,
    UNSET,
    ConvexError,
    Int64,
    MutationCtx,
    Page,
    PaginationOptions,
    Query,
    QueryCtx,
    RawDocument,
    UniqueIndexError,
    days,
    field,
    fixed_window,
    internal_query,
    minutes,
    mutation,
    pagination_options_validator,
    query,
    token_bucket,
    v,
)

from .access import reader_mutation, reader_query, require_reader, staff_mutation
from .schema import Book, BookId, Place, ReaderId, books, events, readers

LOAN = days(28)

borrowing = fixed_window("borrowing", 5, per=minutes(1))
searching = token_bucket("searching", rate=10, per=minutes(1), capacity=20)


class Counts(TypedDict):
    """How many books there are, and how many are out."""

    total: int
    out: int


@staff_mutation
def add(ctx: MutationCtx, *, title: str, isbn: Int64, place: Place, tags: list[str] | None = None) -> BookId:
    """Put a book on its shelf."""
    return ctx.db.insert(
        books,
        {
            "title": title,
            "isbn": isbn,
            "state": "in",
            "place": place,
            "tags": tags or [],
            "copiesByYear": {"2026": 1},
            "cover": None,
        },
    )


@query(name="get")
def get_book(ctx: QueryCtx, *, book_id: BookId) -> Book | None:
    """One book."""
    book = ctx.db.get(books, book_id)
    assert_type(book, Book | None)
    return book


@query
def anything(ctx: QueryCtx, *, text: str) -> Any:
    """Whatever has this id."""
    document = ctx.db.get(text)
    assert_type(document, RawDocument | None)
    return document if ctx.db.normalize_id(books, text) is None else None


@query
def out_since(ctx: QueryCtx, *, since: float, until: float | None = None) -> list[Book]:
    """What was borrowed in a span of time and is still out, the latest first."""
    borrowed = field("borrowedAt")
    found = ctx.db.query(books).with_index(
        "by_state_borrowedAt", borrowed >= since, borrowed < (until or ctx.now), state="out"
    )
    assert_type(found, Query[Book])
    return found.order("desc").take(50)


@reader_query
def mine(ctx: QueryCtx) -> list[Book]:
    """What the caller has borrowed."""
    reader = require_reader(ctx)
    return ctx.db.query(books).filter((field("borrowedBy") == reader["_id"]) & (field("state") != "lost")).collect()


@query
def on_shelf(ctx: QueryCtx, *, shelf: str) -> list[str]:
    """The titles on a shelf."""
    titles: list[str] = []
    for book in ctx.db.query(books).with_index("by_shelf", field("place.shelf") == shelf):
        assert_type(book, Book)
        titles.append(book["title"])
    return titles


@query(name="list")
def list_books(ctx: QueryCtx, *, pagination_opts: PaginationOptions, lost: bool = False) -> Page[Book]:
    """Books, a page at a time."""
    found = ctx.db.query(books).full_table_scan()
    page = found.filter(field("state") == "lost" if lost else ~(field("state") == "lost")).paginate(pagination_opts)
    assert_type(page, Page[Book])
    return page


@query(args={"paginationOpts": pagination_options_validator}, returns=v.any())
def events_page(ctx: QueryCtx, *, pagination_opts: Any) -> Page[RawDocument]:
    """The same, declared with validators."""
    return ctx.db.query(events).paginate(pagination_opts)


@query
def counts(ctx: QueryCtx) -> Counts:
    """Counted in the database."""
    return {
        "total": ctx.db.query(books).count(),
        "out": ctx.db.query("books").with_index("by_state_borrowedAt", state="out").count(),
    }


@reader_mutation
def borrow(ctx: MutationCtx, *, book_id: BookId) -> float:
    """Take a book home; returns when it is due."""
    reader = require_reader(ctx)
    attempt = ctx.rate_limit(borrowing, key=reader["_id"])
    if not attempt.ok:
        raise ConvexError({"code": "TooFast", "retryAfter": attempt.retry_after})
    book = get_book(ctx, book_id=book_id)
    if book is None or book["state"] != "in":
        raise ConvexError("Not here")
    ctx.db.patch(books, book_id, {"state": "out", "borrowedBy": reader["_id"], "borrowedAt": ctx.now})
    ctx.run_mutation(note, kind="borrowed", from_=reader["_id"])
    return ctx.now + LOAN


@mutation
def give_back(ctx: MutationCtx, *, book_id: BookId) -> None:
    """Bring a book back."""
    ctx.db.patch(book_id, {"state": "in", "borrowedBy": UNSET, "borrowedAt": UNSET})


@mutation
def note(ctx: MutationCtx, *, kind: Literal["borrowed", "came"], from_: ReaderId | None = None) -> str:
    """Write down what happened. On the wire the parameter is `from`."""
    return ctx.db.insert(events, {"kind": kind} if from_ is None else {"kind": kind, "from": from_})


@internal_query
def events_of(ctx: QueryCtx, *, reader_id: ReaderId) -> list[RawDocument]:
    """What a reader did, and what nobody did."""
    own = ctx.db.query(events).with_index("by_from", field("from") == reader_id).collect()
    nobody = ctx.db.query("events").with_index("by_from", field("from") == MISSING).first()
    assert_type(nobody, RawDocument | None)
    return own if nobody is None else [*own, nobody]


@mutation(
    args={"name": v.string(), "email": v.string(), "born": v.optional(v.number(whole=True))}, returns=v.id("readers")
)
def sign_up(ctx: MutationCtx, name: str, email: str, born: int | None = None) -> str:
    """A new reader. The address may be taken: then nothing is written, and the caller is told the id anyway."""
    row: dict[str, object] = {"name": name, "email": email}
    if born is not None:
        row["born"] = born
    try:
        return ctx.db.insert(readers, row)
    except UniqueIndexError:
        ctx.log.warn(f"signed up twice: {email}")
    known = ctx.db.query(readers).with_index("by_email", email=email).unique()
    assert known is not None
    return known["_id"]


@mutation
def tidy(ctx: MutationCtx) -> int:
    """Calls of every form, and how their results are typed."""
    ctx.rate_limit(searching, key=ctx.client_address or "operator")
    late = ctx.run_query(out_since, since=0.0)
    assert_type(late, list[Book])
    by_path = ctx.run_query("books:counts")
    assert_type(by_path, Any)
    assert_type(ctx.run_query(counts), Counts)
    for book in late:
        ctx.db.replace(book["_id"], {**book, "state": "lost"})
    for event in ctx.db.query(events).order("desc").take(1):
        ctx.db.delete(event["_id"])
    ctx.log.info(ctx.token(), ctx.uuid(), ctx.random.random(), ctx.env.get("LIBRARY", "ours"))
    return len(late)
