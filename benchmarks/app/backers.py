"""Looking up one backer, changing one, and adding many at once."""

from __future__ import annotations

from typing import TypedDict

from camber import MutationCtx, QueryCtx, mutation, query

from .schema import Backers, backers


class NewBacker(TypedDict):
    """What a row of a bulk insert brings."""

    username: str
    accessCode: str
    tier: str


@query
def by_username(ctx: QueryCtx, *, username: str) -> Backers | None:
    """The backer of this name."""
    return ctx.db.query(backers).with_index("by_username_code", username=username).first()


@mutation
def insert_many(ctx: MutationCtx, *, rows: list[NewBacker]) -> int:
    """Put all of these on the list, or none; returns how many."""
    for row in rows:
        ctx.db.insert(backers, {**row, "usernameLower": row["username"].lower()})
    return len(rows)


@mutation
def set_tier(ctx: MutationCtx, *, username: str, tier: str) -> None:
    """Move the backer of this name to another tier."""
    backer = ctx.db.query(backers).with_index("by_username_code", username=username).first()
    if backer is not None:
        ctx.db.patch(backer["_id"], {"tier": tier})
