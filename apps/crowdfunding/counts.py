"""The campaign in numbers, each counted over one range of an index and never by reading rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TypedDict

from camber import MISSING, QueryCtx, days, field

from .schema import backers, tiers

MAX_TIERS = 200
DAYS = 30

# A backer signed up when `usedAt` is there; missing sorts before everything else. Both are index bounds and filters.
CLAIMED = field("usedAt") > MISSING
UNCLAIMED = field("usedAt") == MISSING


class TierCount(TypedDict):
    """The backers of one tier."""

    tier: str
    total: int
    claimed: int


class DayCount(TypedDict):
    """How many signed up on one UTC day, written like 2026-01-28."""

    day: str
    claimed: int


class Stats(TypedDict):
    """The campaign in numbers; days run from the oldest to today."""

    total: int
    claimed: int
    byTier: list[TierCount]
    byDay: list[DayCount]


def campaign_counts(ctx: QueryCtx) -> Stats:
    """How many backers there are and how many signed up, by tier and by day too."""
    return {
        "total": ctx.db.query(backers).count(),
        "claimed": ctx.db.query(backers).with_index("by_usedAt", CLAIMED).count(),
        "byTier": [_tier_count(ctx, tier) for tier in _tier_names(ctx)],
        "byDay": [_day_count(ctx, start) for start in last_days(ctx.now)],
    }


def last_days(now: float) -> list[float]:
    """When each of the last thirty UTC days began, the oldest first and the one that `now` is in last."""
    today = now - now % days(1)
    return [today - days(ago) for ago in reversed(range(DAYS))]


def _tier_names(ctx: QueryCtx) -> list[str]:
    known = {tier["name"] for tier in ctx.db.query(tiers)}
    return sorted(known.union(islice(_tiers_of_backers(ctx), MAX_TIERS)))


def _tiers_of_backers(ctx: QueryCtx) -> Iterator[str]:
    """Every tier that occurs on a backer, one index look-up each: the first row behind the last tier found."""
    first = ctx.db.query(backers).with_index("by_tier").first()
    while first is not None:
        yield first["tier"]
        first = ctx.db.query(backers).with_index("by_tier", field("tier") > first["tier"]).first()


def _tier_count(ctx: QueryCtx, tier: str) -> TierCount:
    rows = ctx.db.query(backers)
    return {
        "tier": tier,
        "total": rows.with_index("by_tier", tier=tier).count(),
        "claimed": rows.with_index("by_tier_usedAt", CLAIMED, tier=tier).count(),
    }


def _day_count(ctx: QueryCtx, start: float) -> DayCount:
    that_day = (field("usedAt") >= start, field("usedAt") < start + days(1))
    return {
        "day": datetime.fromtimestamp(start / 1000, tz=UTC).date().isoformat(),
        "claimed": ctx.db.query(backers).with_index("by_usedAt", *that_day).count(),
    }
