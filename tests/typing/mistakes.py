"""What the type checker must find in a user's code: each line that is wrong says which rule of pyright's reports it.

The test puts this module beside those of `project/backend`. It is never run.
"""

from __future__ import annotations

from camber import (
    ActionCtx,
    Int64,
    MutationCtx,
    PaginationOptions,
    Query,
    QueryCtx,
    action,
    field,
    fixed_window,
    internal_query,
    mutation,
    query,
)

from .access import reader_mutation
from .books import add, borrow, counts, get_book, out_since
from .letters import remind, send
from .schema import Book, Reader, books, readers


@query
def calls_of_a_query(ctx: QueryCtx, *, book_id: str) -> int:
    ctx.run_query(out_since, since="yesterday")  # error: reportArgumentType
    ctx.run_query(get_book)  # error: reportCallIssue
    ctx.run_query(get_book, bookId=book_id)  # error: reportCallIssue
    ctx.run_query(borrow, book_id=book_id)  # error: reportArgumentType
    ctx.run_mutation(borrow, book_id=book_id)  # error: reportAttributeAccessIssue
    late: list[Reader] = ctx.run_query(out_since, since=0.0)  # error: reportAssignmentType
    return ctx.run_query(counts)["lost"] + len(late)  # error: reportGeneralTypeIssues


@query
def fields_of_a_row(ctx: QueryCtx, *, book_id: str) -> str | None:
    book = ctx.db.get(books, book_id)
    ctx.log(book["title"])  # error: reportOptionalSubscript
    assert book is not None
    ctx.log(book["titel"])  # error: reportGeneralTypeIssues
    ctx.log(book["borrowedAt"])  # error: reportTypedDictNotRequiredAccess
    number: str = book["place"]["number"]  # error: reportAssignmentType
    if book["state"] == "stolen":  # error: reportUnnecessaryComparison
        return None
    isbn: Int64 = book["isbn"]
    doubled: Int64 = isbn * 2  # error: reportAssignmentType
    return number + str(doubled)


@query
def queries(ctx: QueryCtx) -> list[Book]:
    found = ctx.db.query(readers).with_index("by_email", email="ann@example.com")
    first: Query[Book] = found  # error: reportAssignmentType
    ctx.db.query(books).filter("state == 'in'")  # error: reportArgumentType
    ctx.db.query(books).take("ten")  # error: reportArgumentType
    ctx.db.insert(books, {})  # error: reportAttributeAccessIssue
    return [*first, *found.collect()]  # error: reportReturnType


@mutation
def writes(ctx: MutationCtx, *, book_id: str) -> None:
    ctx.db.patch(book_id)  # error: reportCallIssue
    ctx.db.patch(books, book_id, [("state", "in")])  # error: reportArgumentType
    ctx.db.delete(books, 5)  # error: reportArgumentType
    ctx.rate_limit("borrowing", key=book_id)  # error: reportArgumentType
    fixed_window("borrowing", 5, 60_000)  # error: reportCallIssue
    field(5)  # error: reportArgumentType
    ctx.now = 0.0  # error: reportAttributeAccessIssue


@action
async def calls_of_an_action(ctx: ActionCtx) -> int:
    ctx.db.query(books)  # error: reportAttributeAccessIssue
    late = await ctx.run_query(out_since, since=None)  # error: reportArgumentType
    ctx.run_mutation(add, title="Emma")  # error: reportUnusedCoroutine
    sent: str = await ctx.run_action(send, to="Ann")  # error: reportAssignmentType
    await ctx.run_action(out_since, since=0.0)  # error: reportArgumentType
    return len(late) + len(sent) + await ctx.run_action(remind, since=0.0)


@reader_mutation
def guarded(ctx: QueryCtx) -> None:
    ctx.db.insert(books, {})  # error: reportAttributeAccessIssue


@action  # error: reportArgumentType
async def wrong_context(ctx: MutationCtx) -> None: ...


@internal_query
def page(ctx: QueryCtx, *, pagination_opts: PaginationOptions) -> list[Book]:
    return ctx.db.query(books).paginate(pagination_opts)  # error: reportReturnType
