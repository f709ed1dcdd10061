"""Functions that hand back what they were given."""

from __future__ import annotations

from typing import Any

from camber import ActionCtx, Int64, MutationCtx, QueryCtx, action, mutation, query


@query
def from_query(ctx: QueryCtx, *, value: Any) -> Any:
    """The value as it came."""
    return value


@mutation
def from_mutation(ctx: MutationCtx, *, value: Any) -> Any:
    """The value as it came."""
    return value


@action
async def from_action(ctx: ActionCtx, *, value: Any) -> Any:
    """The value as it came."""
    return value


@query
def next_int64(ctx: QueryCtx, *, number: Int64) -> Int64:
    """The int64 after this one, to show that it arrived as a number."""
    return Int64(number + 1)


@query
def reversed_bytes(ctx: QueryCtx, *, data: bytes) -> bytes:
    """The bytes from the last to the first, to show that they arrived as bytes."""
    return data[::-1]


@query
def logged(ctx: QueryCtx, *, text: str) -> None:
    """Writes a line to the log of this run."""
    ctx.log.info(text)
