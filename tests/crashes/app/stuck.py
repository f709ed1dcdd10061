"""Functions that don't come back: no exception that is raised in their thread reaches them."""

from __future__ import annotations

import threading

from camber import MutationCtx, QueryCtx, mutation, query

from .schema import counters


@mutation
def write_and_sleep(ctx: MutationCtx, *, name: str) -> None:
    """Write something, then sleep for ever."""
    ctx.db.insert(counters, {"name": name, "value": 1})
    threading.Event().wait()


@query
def sleep(ctx: QueryCtx, *, name: str) -> int:
    """Sleep for ever."""
    threading.Event().wait()
    return ctx.db.query(counters).count()
