"""Functions that fail, each in another way."""

from __future__ import annotations

from camber import ActionCtx, ConvexError, Int64, MutationCtx, QueryCtx, action, mutation, query

from .schema import notes


@query
def with_text(ctx: QueryCtx) -> None:
    """Refuses with a sentence."""
    raise ConvexError("This is refused")


@mutation
def with_object(ctx: MutationCtx, *, title: str) -> None:
    """Writes a note, then refuses with an object; the note must not stay."""
    ctx.db.insert(notes, {"title": title, "value": None})
    raise ConvexError({"code": "Refused", "count": Int64(3), "ratio": 0.5, "raw": b"\x00\xff", "list": [None, True]})


@action
async def in_action(ctx: ActionCtx) -> None:
    """Refuses with a list."""
    raise ConvexError(["from", "an", "action"])


@query
def with_null(ctx: QueryCtx) -> None:
    """Refuses with null, which is data too."""
    raise ConvexError(None)


@query
def plainly(ctx: QueryCtx) -> None:
    """Fails as broken code does."""
    raise ValueError("the cupboard is bare")
