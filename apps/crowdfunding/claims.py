"""The rules of claiming a backer slot, on plain values: which row a code opens, and when a claim is refused."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from camber import UNSET, days, minutes

from .codes import same_code
from .schema import Backer, Tier, UserId

CLAIM_LASTS = minutes(10)

_NO_CODE = "----"  # what an entered code is compared with when the username has none


def backer_with_code(candidates: Sequence[Backer], code: str) -> Backer | None:
    """The candidate that this code opens.

    Every candidate is compared, and something is compared where there is none, so that the answer to a wrong username
    takes the same work as the answer to a wrong code.
    """
    found = None
    for backer in candidates:
        if same_code(backer["accessCode"], code) and found is None:
            found = backer
    if not candidates:
        same_code(_NO_CODE, code)
    return found


def is_claimed(backer: Backer) -> bool:
    """Whether somebody has signed up with this slot."""
    return "usedByUserId" in backer


def is_revoked(backer: Backer) -> bool:
    """Whether an admin has withdrawn the slot."""
    return "revokedAt" in backer


def claim_refusal(backer: Backer | None, token: str, now: float) -> str | None:
    """Why this claim can't be carried out, as the sentence for the client; None if it can."""
    if backer is None or is_revoked(backer):
        return "Invalid backer ID"
    if is_claimed(backer):
        return "This backer code has already been used"
    pending = backer.get("pendingClaimToken")
    if pending is None or now >= backer.get("pendingClaimExpiresAt", 0.0):
        return "Backer verification expired. Please verify again."
    if not hmac.compare_digest(pending.encode(), token.encode()):
        return "Backer verification does not match. Please verify again."
    return None


def claimed_by(user_id: UserId, now: float) -> dict[str, object]:
    """The change that marks a backer as claimed; the claim token can't be used twice."""
    return {
        "usedByUserId": user_id,
        "usedAt": now,
        "pendingClaimToken": UNSET,
        "pendingClaimExpiresAt": UNSET,
    }


def access_granted(tier: Tier | None, now: float) -> dict[str, object]:
    """The fields that give a new user a tier's access: from now, and until when if the tier sets a number of days."""
    granted: dict[str, object] = {"backerAccessGrantedAt": now}
    if tier is not None and "accessDays" in tier:
        granted["backerAccessUntil"] = now + days(tier["accessDays"])
    return granted
