"""MakerWorld backers: putting them on the list, checking their codes, and what admins see and do."""

from __future__ import annotations

import uuid
from typing import Literal, TypedDict

from camber import (
    UNSET,
    ConvexError,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    field,
    internal_mutation,
    mutation,
)

from .access import admin_mutation, admin_query
from .claims import CLAIM_LASTS, backer_with_code, is_claimed, is_revoked
from .codes import generated_code, masked
from .counts import CLAIMED, UNCLAIMED, Stats, campaign_counts
from .rate_limits import backer_verify, backer_verify_address, whole_seconds
from .schema import Backer, BackerId, OptionalBoolean, OptionalText, backers
from .tiers import find_tier

# Nobody has names or codes near this long. Longer ones are not looked up, and can't fill the rate limiter's table.
MAX_CHARACTERS = 200
# How many codes of one username are compared. Further ones are found only as they are written.
MAX_CANDIDATES = 100

# Nothing that people write holds the last code point: text that begins with a prefix sorts before prefix + this.
_BEHIND_ALL_TEXT = "\U0010ffff"


class AddedBacker(TypedDict):
    """The backer is on the list."""

    success: Literal[True]
    id: BackerId


class AlreadyThere(TypedDict):
    """The username has a row with this code, which stays as it is."""

    success: Literal[False]
    reason: Literal["already_exists"]
    id: BackerId


class Verified(TypedDict):
    """The code is good, and the claim token lets its holder sign up with it until it expires."""

    valid: Literal[True]
    backerId: BackerId
    tier: str
    claimToken: str
    claimExpiresAt: float


class NotVerified(TypedDict):
    """The code opens nothing, or somebody has signed up with it."""

    valid: Literal[False]
    reason: Literal["invalid_credentials", "already_used"]


class TooManyAttempts(TypedDict):
    """Nothing was looked up; `retryAfter` is in seconds."""

    valid: Literal[False]
    reason: Literal["rate_limited"]
    retryAfter: int


class Reissued(TypedDict):
    """The code that opens the slot from now on."""

    accessCode: str


@internal_mutation
def add_backer(ctx: MutationCtx, *, username: str, access_code: str, tier: str) -> AddedBacker | AlreadyThere:
    """Put one backer on the list. The operator's way in; no client can call it."""
    username, code, tier = _entered("username", username), _entered("accessCode", access_code), _entered("tier", tier)
    if existing := _find_backer(ctx, username, code):
        return {"success": False, "reason": "already_exists", "id": existing["_id"]}
    if find_tier(ctx, tier) is None:
        ctx.log.warn(f"There is no tier {tier!r} yet: its backers get no discount until tiers:set creates it")
    return {"success": True, "id": ctx.db.insert(backers, new_backer(username, code, tier))}


@mutation
def verify_backer(ctx: MutationCtx, *, username: str, access_code: str) -> Verified | NotVerified | TooManyAttempts:
    """Check a visitor's code, and hand out the claim token with which to sign up."""
    username, code = username.strip(), access_code.strip()
    if not all(0 < len(entry) <= MAX_CHARACTERS for entry in (username, code)):
        return {"valid": False, "reason": "invalid_credentials"}
    if seconds := _seconds_to_wait(ctx, username):
        return {"valid": False, "reason": "rate_limited", "retryAfter": seconds}
    backer = _find_backer(ctx, username, code)
    if backer is None or is_revoked(backer):
        return {"valid": False, "reason": "invalid_credentials"}
    _fill_username_lower(ctx, backer)
    if is_claimed(backer):
        return {"valid": False, "reason": "already_used"}
    return _issue_claim(ctx, backer)


@admin_query(name="list")
def list_backers(
    ctx: QueryCtx,
    *,
    pagination_opts: PaginationOptions,
    tier: OptionalText = None,
    claimed: OptionalBoolean = None,
    search: OptionalText = None,
) -> Page[Backer]:
    """A page of backers, their codes masked. Filters: the tier, claimed or not, and how the username begins."""
    conditions = [] if tier is None else [field("tier") == tier]
    if claimed is not None:
        conditions.append(CLAIMED if claimed else UNCLAIMED)
    found = ctx.db.query(backers)
    if prefix := (search or "").strip().lower():
        name = field("usernameLower")
        found = found.with_index("by_usernameLower_code", name >= prefix, name < prefix + _BEHIND_ALL_TEXT)
        for condition in conditions:
            found = found.filter(condition)
    elif conditions:
        index = "by_usedAt" if tier is None else "by_tier" if claimed is None else "by_tier_usedAt"
        found = found.with_index(index, *conditions)
    page = found.paginate(pagination_opts)
    page["page"] = [_for_admins(backer) for backer in page["page"]]
    return page


@admin_query
def stats(ctx: QueryCtx) -> Stats:
    """How many backers there are and signed up: altogether, by tier, and on each of the last thirty days."""
    return campaign_counts(ctx)


@admin_mutation
def revoke(ctx: MutationCtx, *, backer_id: BackerId, reason: str) -> None:
    """Withdraw a backer's code: it verifies no more, and a claim under way is off. The reason goes to the log."""
    backer = _get_backer(ctx, backer_id)
    ctx.db.patch(
        backer_id,
        {
            "revokedAt": backer.get("revokedAt", ctx.now),
            "pendingClaimToken": UNSET,
            "pendingClaimExpiresAt": UNSET,
        },
    )
    ctx.log.info(f"revoked backer {backer_id}: {reason}")


@admin_mutation
def reissue(ctx: MutationCtx, *, backer_id: BackerId, reason: str, access_code: OptionalText = None) -> Reissued:
    """Give an unclaimed backer a new code, generated where none is given. The old one opens nothing any more."""
    backer = _get_backer(ctx, backer_id)
    if is_claimed(backer):
        raise ConvexError("This backer code has already been used")
    code = generated_code(uuid.UUID(ctx.uuid()).int) if access_code is None else _entered("accessCode", access_code)
    other = _find_backer(ctx, backer["username"], code)
    if other is not None and other["_id"] != backer_id:
        raise ConvexError("This username already has this access code")
    ctx.db.patch(
        backer_id,
        {
            "usernameLower": backer["username"].strip().lower(),
            "accessCode": code,
            "revokedAt": UNSET,
            "pendingClaimToken": UNSET,
            "pendingClaimExpiresAt": UNSET,
        },
    )
    ctx.log.info(f"reissued the code of backer {backer_id}: {reason}")
    return {"accessCode": code}


def new_backer(username: str, code: str, tier: str) -> dict[str, object]:
    """A row for somebody who has not signed up yet; all three come trimmed."""
    return {"username": username, "usernameLower": username.lower(), "accessCode": code, "tier": tier}


def _find_backer(ctx: QueryCtx, username: str, code: str) -> Backer | None:
    """The row that this username and code open. Always two look-ups, whichever of them is wrong, or neither."""
    candidates = (
        ctx.db.query(backers).with_index("by_usernameLower_code", usernameLower=username.lower()).take(MAX_CANDIDATES)
    )
    # The row of an import, which has no usernameLower yet, is found only as it was written.
    as_written = ctx.db.query(backers).with_index("by_username_code", username=username, accessCode=code).unique()
    return backer_with_code(candidates, code) or as_written


def _seconds_to_wait(ctx: MutationCtx, username: str) -> int:
    """Count an attempt to verify; 0 if it may go ahead."""
    # By address first: whoever is over that limit can't use up the attempts that others' usernames have.
    if ctx.client_address is not None:
        attempt = ctx.rate_limit(backer_verify_address, key=ctx.client_address)
        if not attempt.ok:
            return whole_seconds(attempt.retry_after)
    attempt = ctx.rate_limit(backer_verify, key=username.lower())
    return 0 if attempt.ok else whole_seconds(attempt.retry_after)


def _fill_username_lower(ctx: MutationCtx, backer: Backer) -> None:
    if "usernameLower" not in backer:
        ctx.db.patch(backer["_id"], {"usernameLower": backer["username"].strip().lower()})


def _issue_claim(ctx: MutationCtx, backer: Backer) -> Verified:
    token, expires_at = ctx.token(), ctx.now + CLAIM_LASTS
    ctx.db.patch(backer["_id"], {"pendingClaimToken": token, "pendingClaimExpiresAt": expires_at})
    return {
        "valid": True,
        "backerId": backer["_id"],
        "tier": backer["tier"],
        "claimToken": token,
        "claimExpiresAt": expires_at,
    }


def _get_backer(ctx: QueryCtx, backer_id: BackerId) -> Backer:
    backer = ctx.db.get(backers, backer_id)
    if backer is None:
        raise ConvexError("Invalid backer ID")
    return backer


def _entered(name: str, text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= MAX_CHARACTERS:
        raise ConvexError(f"{name} must have 1 to {MAX_CHARACTERS} characters")
    return text


def _for_admins(backer: Backer) -> Backer:
    """Without what would let an admin sign up in the backer's place."""
    backer["accessCode"] = masked(backer["accessCode"])
    backer.pop("pendingClaimToken", None)
    return backer
