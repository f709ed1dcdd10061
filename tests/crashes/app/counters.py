"""Reading a number and writing the next one."""

from __future__ import annotations

from camber import MutationCtx, QueryCtx, mutation, query

from .schema import counters


@mutation
def increment(ctx: MutationCtx, *, name: str) -> int:
    """Count one on; returns the new value."""
    counter = ctx.db.query(counters).with_index("by_name", name=name).unique()
    if counter is None:
        ctx.db.insert(counters, {"name": name, "value": 1})
        return 1
    ctx.db.patch(counter["_id"], {"value": counter["value"] + 1})
    return counter["value"] + 1


@query
def value(ctx: QueryCtx, *, name: str) -> int:
    """What the counter stands at."""
    counter = ctx.db.query(counters).with_index("by_name", name=name).unique()
    return 0 if counter is None else counter["value"]
