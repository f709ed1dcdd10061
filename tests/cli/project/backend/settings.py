"""Opening and closing the library."""

from __future__ import annotations

from camber import MutationCtx, QueryCtx, mutation, query

from .schema import settings


@mutation(name="open")
def open_library(ctx: MutationCtx) -> None:
    """From now on books can be borrowed."""
    ctx.db.insert(settings, {"key": "library", "isOpen": True})


@query
def motto(ctx: QueryCtx) -> str:
    """What stands above the door."""
    return ctx.env.get("MOTTO", "none")
