"""Values of every kind, kept, watched and handed back."""

from __future__ import annotations

from typing import Any

from camber import ActionCtx, MutationCtx, QueryCtx, action, mutation, query

from .schema import kept


@mutation
def keep(ctx: MutationCtx, *, name: str, value: Any) -> Any:
    """Keep the value under the name; returns it."""
    ctx.db.insert(kept, {"name": name, "value": value})
    return value


@query
def last(ctx: QueryCtx, *, name: str) -> Any:
    """The value kept last under this name, or null."""
    found = ctx.db.query(kept).with_index("by_name", name=name).order("desc").first()
    return None if found is None else found["value"]


@action
async def echo(ctx: ActionCtx, *, value: Any) -> Any:
    """The value as it came."""
    return value


@query
def large(ctx: QueryCtx, *, name: str, letters: int) -> list[str]:
    """The text kept last under this name, and a great many letters that take two bytes each."""
    return [str(last(ctx, name=name)), "ä" * letters]
