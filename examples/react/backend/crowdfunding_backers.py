"""The campaign's backers: putting them on the list, showing them, and claiming a code.

A small sister of apps/crowdfunding, which has accounts and limits how often somebody may guess.
"""

from __future__ import annotations

from typing import TypedDict

from camber import (
    MISSING,
    ConvexError,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    field,
    internal_mutation,
    mutation,
    query,
)

from .app_state import is_crowdfunding
from .schema import Backer, backers

NAMES = ["ada", "bela", "chidi", "dalia", "emre", "fumiko", "grace"]
TIERS = ["Bronze", "Silver", "Bronze", "Gold"]


class Counts(TypedDict):
    """How far the campaign is."""

    total: int
    claimed: int


class ShownBacker(TypedDict):
    """What everybody may see of a backer: anything but the code."""

    _id: str
    username: str
    tier: str
    claimed: bool


@query
def counts(ctx: QueryCtx) -> Counts:
    """How many codes there are and how many were claimed; counted on an index, without reading rows."""
    rows = ctx.db.query(backers)
    return {"total": rows.count(), "claimed": rows.with_index("by_usedAt", field("usedAt") > MISSING).count()}


@query(name="list")
def list_backers(ctx: QueryCtx, *, pagination_opts: PaginationOptions) -> Page[ShownBacker]:
    """A page of backers, the newest first."""
    page = ctx.db.query(backers).order("desc").paginate(pagination_opts)
    return {**page, "page": [_shown(backer) for backer in page["page"]]}


@mutation
def claim(ctx: MutationCtx, *, username: str, access_code: str) -> None:
    """Mark a backer's code as claimed, while the campaign is running."""
    if not is_crowdfunding(ctx):
        raise ConvexError("The campaign is closed")
    backer = _find_backer(ctx, username.strip(), access_code.strip())
    if backer is None:
        raise ConvexError("No backer has this name and code")
    if "usedAt" in backer:
        raise ConvexError("This code was claimed before")
    ctx.db.patch(backer["_id"], {"usedAt": ctx.now})


@internal_mutation
def add_backer(ctx: MutationCtx, *, username: str, access_code: str, tier: str) -> str:
    """Put one backer on the list, and return its id."""
    return ctx.db.insert(backers, {"username": username, "accessCode": access_code, "tier": tier})


@internal_mutation
def remove_backer(ctx: MutationCtx, *, username: str, access_code: str) -> bool:
    """Take one off the list again; whether there was one."""
    backer = _find_backer(ctx, username, access_code)
    if backer is not None:
        ctx.db.delete(backer["_id"])
    return backer is not None


@internal_mutation
def add_samples(ctx: MutationCtx, *, count: int = 30) -> None:
    """Fill an empty list, to have something to look at. The codes are DEMO-1, DEMO-2 and so on."""
    first = ctx.db.query(backers).count() + 1
    for number in range(first, first + count):
        name, tier = NAMES[number % len(NAMES)], TIERS[number % len(TIERS)]
        ctx.db.insert(backers, {"username": f"{name}{number}", "accessCode": f"DEMO-{number}", "tier": tier})


def _find_backer(ctx: QueryCtx, username: str, code: str) -> Backer | None:
    return ctx.db.query(backers).with_index("by_username_code", username=username, accessCode=code).unique()


def _shown(backer: Backer) -> ShownBacker:
    return {
        "_id": backer["_id"],
        "username": backer["username"],
        "tier": backer["tier"],
        "claimed": "usedAt" in backer,
    }
