"""The application's five tables: each class is a row's type and, at run time, its validator.

The first four tables are the ones the project started from, with every field and index they had; docs/schema.md tells
what they are for. All times are milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from camber import Document, define_schema, define_table, v

UserId = Annotated[str, v.id("users")]
BackerId = Annotated[str, v.id("crowdfunding_backers")]

# For parameters that may be left out. `str | None` alone would take null from a client too.
OptionalText = Annotated[str | None, v.string()]
OptionalNumber = Annotated[float | None, v.number()]
OptionalBoolean = Annotated[bool | None, v.boolean()]
OptionalBackerId = Annotated[str | None, v.id("crowdfunding_backers")]


class User(Document):
    """People with access to the application; authUserId is the auth service's id of the person."""

    authUserId: str
    email: str  # lower-cased
    name: NotRequired[str]
    createdAt: float
    activeSessionId: NotRequired[str]  # the one place where this person is signed in
    sessionStartedAt: NotRequired[float]
    activeAuthSessionId: NotRequired[str]  # the auth service's own id of that session
    crowdfundingBackerId: NotRequired[BackerId]
    backerAccessGrantedAt: NotRequired[float]
    backerAccessUntil: NotRequired[float]  # missing: for ever


class Admin(Document):
    """E-mail addresses whose owners may administer the application, once they are verified."""

    email: str  # lower-cased
    addedAt: float
    note: NotRequired[str]


class AppState(Document):
    """The application's configuration: one row at most, with the key "config"."""

    key: Literal["config"]
    crowdfundingActive: bool


class Backer(Document):
    """MakerWorld supporters who may sign up during crowdfunding, each once.

    A row with only username, accessCode and tier is complete: usernameLower is filled when it is first verified.
    """

    username: str  # as it was entered
    usernameLower: NotRequired[str]  # for look-ups
    accessCode: str
    tier: str
    usedByUserId: NotRequired[UserId]
    usedAt: NotRequired[float]
    pendingClaimToken: NotRequired[str]
    pendingClaimExpiresAt: NotRequired[float]
    revokedAt: NotRequired[float]


class Tier(Document):
    """What the backers of a tier get: a discount in percent, for so many days after they signed up."""

    name: str
    percentOff: float
    accessDays: NotRequired[float]  # missing: for ever


users = (
    define_table("users", User)
    .index("by_authUserId", ["authUserId"], unique=True)
    .index("by_email", ["email"], unique=True)
)

admins = define_table("admins", Admin).index("by_email", ["email"], unique=True)

app_state = define_table("app_state", AppState, write_with="appState:set").index("by_key", ["key"], unique=True)

backers = (
    define_table("crowdfunding_backers", Backer)
    .index("by_username_code", ["username", "accessCode"], unique=True)
    .index("by_usedByUserId", ["usedByUserId"])
    .index("by_usernameLower_code", ["usernameLower", "accessCode"], unique=True)
    .index("by_tier", ["tier"])
    .index("by_usedAt", ["usedAt"])
    .index("by_tier_usedAt", ["tier", "usedAt"])
)

tiers = define_table("tiers", Tier).index("by_name", ["name"], unique=True)

schema = define_schema(users, admins, app_state, backers, tiers)
