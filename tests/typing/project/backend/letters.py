"""Letters to readers: actions, which may talk to the world."""

from __future__ import annotations

from typing import Any, assert_type

from camber import ActionCtx, Int64, action, internal_action

from .books import add, out_since
from .schema import Book


@action
async def remind(ctx: ActionCtx, *, since: float) -> int:
    """Write to everybody who is late."""
    late = await ctx.run_query(out_since, since=since)
    assert_type(late, list[Book])
    sent = 0
    for book in late:
        sent += await ctx.run_action(send, to=book["title"])
    assert_type(await ctx.run_query("books:counts", {}), Any)
    return sent


@internal_action
async def send(ctx: ActionCtx, *, to: str) -> int:
    """Write one letter."""
    ctx.log("to", to, ctx.env.get("SENDER"), ctx.now)
    return 1


@internal_action
async def order(ctx: ActionCtx, *, title: str) -> str:
    """Buy a book and put it on the shelf."""
    book_id = await ctx.run_mutation(
        add, title=title, isbn=Int64(9_780_000_000_000), place={"shelf": "new", "number": 1}
    )
    assert_type(book_id, str)
    return book_id
