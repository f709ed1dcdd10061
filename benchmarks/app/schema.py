"""The table of backers as the crowdfunding application has it, for what its own functions don't offer: bulk and look-ups."""

from __future__ import annotations

from typing import NotRequired

from camber import Document, define_schema, define_table


class Backers(Document):
    """Verified supporters."""

    username: str
    accessCode: str
    tier: str
    usernameLower: NotRequired[str]
    usedByUserId: NotRequired[str]
    usedAt: NotRequired[float]
    pendingClaimToken: NotRequired[str]
    pendingClaimExpiresAt: NotRequired[float]
    revokedAt: NotRequired[float]


backers = (
    define_table("crowdfunding_backers", Backers)
    .index("by_username_code", ["username", "accessCode"], unique=True)
    .index("by_usernameLower_code", ["usernameLower", "accessCode"], unique=True)
    .index("by_usedByUserId", ["usedByUserId"])
    .index("by_tier", ["tier"])
    .index("by_usedAt", ["usedAt"])
    .index("by_tier_usedAt", ["tier", "usedAt"])
)

schema = define_schema(backers)
