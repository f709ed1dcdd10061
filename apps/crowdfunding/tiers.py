"""Backer tiers: the discount each gives, and for how long."""

from __future__ import annotations

import math
from typing import Annotated, TypedDict

from camber import ConvexError, MutationCtx, QueryCtx, query, v

from .access import admin_mutation
from .schema import OptionalNumber, Tier, tiers

TierId = Annotated[str, v.id("tiers")]


class RemovedTier(TypedDict):
    """Whether there was a tier of this name."""

    removed: bool


@admin_mutation(name="set")
def set_tier(ctx: MutationCtx, *, name: str, percent_off: float, access_days: OptionalNumber = None) -> TierId:
    """Create a tier or replace what it gives; without access_days it gives it for ever.

    A new discount holds for everyone at once, new access_days for those who sign up from now on: that grants access.
    """
    name = name.strip()
    if refusal := tier_refusal(name, percent_off, access_days):
        raise ConvexError(refusal)
    tier: dict[str, object] = {"name": name, "percentOff": percent_off}
    if access_days is not None:
        tier["accessDays"] = access_days
    if existing := find_tier(ctx, name):
        ctx.db.replace(existing["_id"], tier)
        return existing["_id"]
    return ctx.db.insert(tiers, tier)


@admin_mutation(name="remove")
def remove_tier(ctx: MutationCtx, *, name: str) -> RemovedTier:
    """Remove a tier. Its backers stay backers, without a discount until there is a tier of that name again."""
    tier = find_tier(ctx, name.strip())
    if tier is None:
        return {"removed": False}
    ctx.db.delete(tier["_id"])
    return {"removed": True}


@query(name="list")
def list_tiers(ctx: QueryCtx) -> list[Tier]:
    """Every tier, by name."""
    return ctx.db.query(tiers).with_index("by_name").collect()


def find_tier(ctx: QueryCtx, name: str) -> Tier | None:
    """The tier of this name; names are compared as they are written."""
    return ctx.db.query(tiers).with_index("by_name", name=name).unique()


def tier_refusal(name: str, percent_off: float, access_days: float | None) -> str | None:
    """Why there can be no such tier, as the sentence for the client; None if there can. The name comes trimmed."""
    if not name:
        return "A tier needs a name"
    if not 0 <= percent_off <= 100:
        return "percentOff must be between 0 and 100"
    if access_days is not None and not (access_days > 0 and math.isfinite(access_days)):
        return "accessDays must be greater than 0"
    return None
