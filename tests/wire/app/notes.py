"""Reading and writing a table."""

from __future__ import annotations

from typing import Any

from camber import ActionCtx, MutationCtx, QueryCtx, action, internal_query, mutation, query

from .schema import notes


@mutation
def add(ctx: MutationCtx, *, title: str, value: Any) -> str:
    """Keep a value under a title; returns the note's id."""
    return ctx.db.insert(notes, {"title": title, "value": value})


@query
def by_title(ctx: QueryCtx, *, title: str) -> list[Any]:
    """The values under this title, in the order they came."""
    return [note["value"] for note in ctx.db.query(notes).with_index("by_title", title=title)]


@internal_query
def count_all(ctx: QueryCtx) -> float:
    """How many notes there are; only for the operator and other functions."""
    return ctx.db.query(notes).count()


@action
async def add_twice(ctx: ActionCtx, *, title: str) -> list[Any]:
    """Two mutations and a query, each a transaction of its own."""
    await ctx.run_mutation(add, title=title, value="first")
    await ctx.run_mutation("notes:add", {"title": title, "value": "second"})
    return await ctx.run_query(by_title, title=title)
