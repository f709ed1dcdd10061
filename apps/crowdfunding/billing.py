"""What a price comes to for the person who is signed in."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NotRequired, TypedDict

from camber import ConvexError, QueryCtx, query

from .access import require_app_user
from .claims import is_revoked
from .schema import Backer, User, backers
from .tiers import find_tier


class Quote(TypedDict):
    """A price before and after the backer's discount, which ends at `accessUntil`, or never if that is missing."""

    tier: str | None
    percentOff: float
    amountCents: int
    discountedCents: int
    accessUntil: NotRequired[float]


@query
def quote(ctx: QueryCtx, *, amount_cents: int) -> Quote:
    """The price that remains of an amount after the discount of the caller's tier."""
    user = require_app_user(ctx)
    if amount_cents < 0:
        raise ConvexError("amountCents must not be negative")
    backer = _backer_of(ctx, user)
    percent_off = 0.0 if backer is None else _percent_off(ctx, user, backer)
    price: Quote = {
        "tier": None if backer is None else backer["tier"],
        "percentOff": percent_off,
        "amountCents": amount_cents,
        "discountedCents": discounted(amount_cents, percent_off),
    }
    if backer is not None and "backerAccessUntil" in user:
        price["accessUntil"] = user["backerAccessUntil"]
    return price


def discounted(cents: int, percent_off: float) -> int:
    """What remains of an amount, in whole cents, half a cent counting as one: 10 percent off 1005 leaves 905."""
    # Percentages are meant as they are written: 12.1 is 121/1000, and not the nearest binary fraction.
    remaining = Fraction(cents) * (100 - Fraction(str(percent_off))) / 100
    return math.floor(remaining + Fraction(1, 2))


def _backer_of(ctx: QueryCtx, user: User) -> Backer | None:
    if "crowdfundingBackerId" not in user:
        return None
    backer = ctx.db.get(backers, user["crowdfundingBackerId"])
    return None if backer is None or is_revoked(backer) else backer


def _percent_off(ctx: QueryCtx, user: User, backer: Backer) -> float:
    if "backerAccessUntil" in user and ctx.now >= user["backerAccessUntil"]:
        return 0.0
    tier = find_tier(ctx, backer["tier"])
    return 0.0 if tier is None else tier["percentOff"]
