"""Numbers that are added to, slowly if wanted, and that fail on demand."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from camber import ActionCtx, ConvexError, MutationCtx, QueryCtx, action, mutation, query

from .schema import Counters, counters


@query
def get(ctx: QueryCtx, *, name: str) -> float:
    """The number under this name. Fails while it was told to: with a ConvexError, or as broken code does."""
    found = _find(ctx, name)
    if found is None:
        return 0
    match found["failure"]:
        case None:
            return found["value"]
        case {"data": data}:
            raise ConvexError(data)
        case _:
            raise ValueError("the counter is broken")


@query
def both(ctx: QueryCtx, *, names: list[str]) -> list[float]:
    """Several numbers of one moment."""
    return [found["value"] if (found := _find(ctx, name)) else 0 for name in names]


@query
def is_large(ctx: QueryCtx, *, name: str) -> bool:
    """Whether the number is above 1,000: a result that stays the same while the number grows."""
    return (found := _find(ctx, name)) is not None and found["value"] > 1_000


@query
def get_slowly(ctx: QueryCtx, *, name: str, seconds: float) -> float:
    """The number, after a while."""
    value = get(ctx, name=name)
    threading.Event().wait(seconds)
    return value


@query
def logged(ctx: QueryCtx, *, name: str) -> float:
    """The number, with a line in the log."""
    ctx.log.info("counting")
    return get(ctx, name=name)


@mutation
def add(ctx: MutationCtx, *, name: str, by: float) -> float:
    """Add to the number; returns the sum."""
    ctx.log.info("adding")
    found = _find(ctx, name) or _create(ctx, name)
    value = found["value"] + by
    ctx.db.patch(counters, found["_id"], {"value": value})
    return value


@mutation
def move(ctx: MutationCtx, *, source: str, target: str, by: float) -> None:
    """Take from one number and add to another."""
    add(ctx, name=source, by=-by)
    add(ctx, name=target, by=by)


@mutation
def add_slowly(ctx: MutationCtx, *, name: str, by: float, seconds: float) -> float:
    """The same, but it takes its time, after writing."""
    value = add(ctx, name=name, by=by)
    threading.Event().wait(seconds)
    return value


@mutation
def add_and_fail(ctx: MutationCtx, *, name: str, data: Any = None) -> None:
    """Add 1, then refuse with the data; nothing of it stays."""
    add(ctx, name=name, by=1)
    raise ConvexError(data)


@mutation
def add_and_break(ctx: MutationCtx, *, name: str) -> None:
    """Add 1, then fail as broken code does."""
    add(ctx, name=name, by=1)
    raise ValueError("the cupboard is bare")


@mutation
def set_failure(ctx: MutationCtx, *, name: str, failure: Any) -> None:
    """What `get` does from now on: null for the number, {"data"} for a ConvexError, anything else for a plain failure."""
    found = _find(ctx, name) or _create(ctx, name)
    ctx.db.patch(counters, found["_id"], {"failure": failure})


@action
async def add_in_action(ctx: ActionCtx, *, name: str) -> float:
    """Two mutations and a query, each a transaction of its own."""
    ctx.log.info("acting")
    await ctx.run_mutation(add, name=name, by=1)
    await ctx.run_mutation("counters:add", {"name": name, "by": 1.0})
    return await ctx.run_query(get, name=name)


@action
async def refuse_in_action(ctx: ActionCtx, *, data: Any = None) -> None:
    """Refuse with the data."""
    raise ConvexError(data)


@action
async def break_in_action(ctx: ActionCtx) -> None:
    """Fail as broken code does."""
    raise ValueError("the cupboard is bare")


@action
async def wait(ctx: ActionCtx, *, seconds: float) -> None:
    """Do nothing for a while."""
    await asyncio.sleep(seconds)


def _find(ctx: QueryCtx, name: str) -> Counters | None:
    return ctx.db.query(counters).with_index("by_name", name=name).unique()


def _create(ctx: MutationCtx, name: str) -> Counters:
    made = ctx.db.get(counters, ctx.db.insert(counters, {"name": name, "value": 0.0, "failure": None}))
    assert made is not None
    return made
