"""The tables of the rival's application and what goes over the wire, whatever it stores with."""

from __future__ import annotations

import time
from hmac import compare_digest

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class AppState(Base):
    __tablename__ = "app_state"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    crowdfunding_active: Mapped[bool]


class Admin(Base):
    __tablename__ = "admins"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    added_at: Mapped[float]
    note: Mapped[str | None]


class Tier(Base):
    __tablename__ = "tiers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    percent_off: Mapped[float]
    access_days: Mapped[float | None]


class SignInAttempts(Base):
    """How often somebody has tried to sign in during this minute."""

    __tablename__ = "sign_in_attempts"
    subject: Mapped[str] = mapped_column(primary_key=True)
    used: Mapped[int]
    since: Mapped[float]


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    auth_user_id: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str | None]
    created_at: Mapped[float]
    active_session_id: Mapped[str | None]
    session_started_at: Mapped[float | None]
    crowdfunding_backer_id: Mapped[int | None] = mapped_column(ForeignKey("crowdfunding_backers.id"))
    backer_access_granted_at: Mapped[float | None]
    backer_access_until: Mapped[float | None]


class Backer(Base):
    __tablename__ = "crowdfunding_backers"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str]
    username_lower: Mapped[str | None]
    access_code: Mapped[str]
    tier: Mapped[str]
    used_by_user_id: Mapped[int | None]
    used_at: Mapped[float | None]
    pending_claim_token: Mapped[str | None]
    pending_claim_expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]

    __table_args__ = (
        Index("by_username_code", "username", "access_code", unique=True),
        Index("by_username_lower_code", "username_lower", "access_code", unique=True),
        Index("by_used_by_user_id", "used_by_user_id"),
        Index("by_tier", "tier"),
        Index("by_used_at", "used_at"),
        Index("by_tier_used_at", "tier", "used_at"),
    )


class Account(Base):
    __tablename__ = "accounts"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[float]


class Message(BaseModel):
    """What goes over the wire, in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class AppStateOut(Message):
    crowdfunding_active: bool


class BackerIn(Message):
    username: str
    access_code: str
    tier: str


class BackerOut(Message):
    id: int
    username: str
    access_code: str
    tier: str
    used_by_user_id: int | None
    used_at: float | None


class Added(Message):
    success: bool
    id: int
    reason: str | None = None


class ClaimToken(Message):
    valid: bool
    reason: str | None = None
    backer_id: int | None = None
    claim_token: str | None = None


class Credentials(Message):
    username: str
    access_code: str


class Claim(Message):
    crowdfunding_backer_id: int
    crowdfunding_backer_token: str


class TierIn(Message):
    name: str
    percent_off: float
    access_days: float | None = None


class AccountsIn(Message):
    count: int
    balance: float


class Deposit(Message):
    number: int
    amount: float


class Transfer(Message):
    source: int
    target: int
    amount: float


class AppUser(Message):
    user_id: int
    email: str
    is_admin: bool
    session_id: str


def same_code(stored: str, entered: str) -> bool:
    return compare_digest(stored.encode(), entered.encode())


def now() -> float:
    return time.time() * 1000
