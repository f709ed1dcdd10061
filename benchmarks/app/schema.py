"""Two tables as the crowdfunding application has them, for what its own functions don't offer, and accounts to move money between."""

from __future__ import annotations

from typing import Literal, NotRequired

from camber import Document, define_schema, define_table


class AppState(Document):
    """What holds for everybody: one row at most, with the key "config"."""

    key: Literal["config"]
    crowdfundingActive: bool


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


class Accounts(Document):
    """Somebody's money."""

    number: float
    balance: float


backers = (
    define_table("crowdfunding_backers", Backers)
    .index("by_username_code", ["username", "accessCode"], unique=True)
    .index("by_usernameLower_code", ["usernameLower", "accessCode"], unique=True)
    .index("by_usedByUserId", ["usedByUserId"])
    .index("by_tier", ["tier"])
    .index("by_usedAt", ["usedAt"])
    .index("by_tier_usedAt", ["tier", "usedAt"])
)

app_state = define_table("app_state", AppState).index("by_key", ["key"], unique=True)

accounts = define_table("accounts", Accounts).index("by_number", ["number"], unique=True)

schema = define_schema(app_state, backers, accounts)
