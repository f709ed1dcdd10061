"""App users: letting people in after they signed in, and the one place where each of them is signed in."""

from __future__ import annotations

import re
from typing import Literal, NotRequired, TypedDict

from camber import UNSET, ConvexError, Identity, MutationCtx, QueryCtx, internal_query, mutation, query

from .access import NOT_AUTHENTICATED, auth_session_of, find_user, is_admin, normal_email, signed_in
from .app_state import is_crowdfunding
from .claims import access_granted, claim_refusal, claimed_by
from .rate_limits import session_create, whole_seconds
from .schema import Backer, OptionalBackerId, OptionalText, User, UserId, backers, users
from .tiers import find_tier

_UUID_V4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


class Session(TypedDict):
    """The person who is in now; `sessionId` names this sign-in and is what `validateSession` takes."""

    userId: UserId
    email: str
    name: NotRequired[str]
    isAdmin: bool
    sessionId: str


class CurrentUser(TypedDict):
    """The person who calls; `activeSessionId` names their newest sign-in."""

    userId: UserId
    email: str
    name: NotRequired[str]
    isAdmin: bool
    activeSessionId: NotRequired[str]


class ValidSession(TypedDict):
    """This sign-in is the person's newest."""

    valid: Literal[True]


class InvalidSession(TypedDict):
    """This sign-in counts no more, or never did."""

    valid: Literal[False]
    reason: Literal["invalid_session_id", "not_authenticated", "no_app_user", "session_invalidated"]


@mutation
def ensure_app_user(
    ctx: MutationCtx,
    *,
    crowdfunding_backer_id: OptionalBackerId = None,
    crowdfunding_backer_token: OptionalText = None,
) -> Session:
    """Start this person's session, and sign them up if they are new. To be called after every sign-in, however it went.

    While crowdfunding is active a new user needs the backer id and claim token that verifyBacker gave. Refuses with a
    ConvexError whose text is meant for the person; see docs/reference/crowdfunding-app.md for all of them.
    """
    identity = ctx.auth.get_user_identity()
    if identity is None:
        raise ConvexError(NOT_AUTHENTICATED)
    email = normal_email(identity.email or "")
    if not email:
        raise ConvexError("An email address is required")
    _limit_sign_ins(ctx, identity)
    user = find_user(ctx, identity)
    if user is None:
        name = identity.name
        user_id = _sign_up(ctx, identity, email, crowdfunding_backer_id, crowdfunding_backer_token)
    else:
        user_id, email, name = user["_id"], user["email"], user.get("name")
    session_id = _start_session(ctx, user_id, identity)
    session: Session = {
        "userId": user_id,
        "email": email,
        "isAdmin": is_admin(ctx, identity),
        "sessionId": session_id,
    }
    if name is not None:
        session["name"] = name
    return session


@query
def get_current_app_user(ctx: QueryCtx) -> CurrentUser | None:
    """The person who calls; None for a visitor, and for an account that never signed up here."""
    caller = signed_in(ctx)
    if caller is None:
        return None
    user, identity = caller
    current: CurrentUser = {"userId": user["_id"], "email": user["email"], "isAdmin": is_admin(ctx, identity)}
    if "name" in user:
        current["name"] = user["name"]
    if "activeSessionId" in user:
        current["activeSessionId"] = user["activeSessionId"]
    return current


@query
def validate_session(ctx: QueryCtx, *, session_id: str) -> ValidSession | InvalidSession:
    """Whether the sign-in that gave this id is still the person's newest. Live, a page learns at once when it isn't."""
    if not _UUID_V4.fullmatch(session_id):
        return {"valid": False, "reason": "invalid_session_id"}
    identity = ctx.auth.get_user_identity()
    if identity is None:
        return {"valid": False, "reason": "not_authenticated"}
    user = find_user(ctx, identity)
    if user is None:
        return {"valid": False, "reason": "no_app_user"}
    if user.get("activeSessionId") != session_id:
        return {"valid": False, "reason": "session_invalidated"}
    return {"valid": True}


@internal_query
def get_by_auth_user_id(ctx: QueryCtx, *, auth_user_id: str) -> User | None:
    """The app user of an account of the auth service."""
    return ctx.db.query(users).with_index("by_authUserId", authUserId=auth_user_id).unique()


def _limit_sign_ins(ctx: MutationCtx, identity: Identity) -> None:
    attempt = ctx.rate_limit(session_create, key=identity.subject)
    if not attempt.ok:
        raise ConvexError(f"Too many sign-in attempts. Try again in {whole_seconds(attempt.retry_after)} seconds.")


def _sign_up(ctx: MutationCtx, identity: Identity, email: str, backer_id: str | None, token: str | None) -> UserId:
    """Insert the user and, with a backer's claim, mark the backer: both rows show it or neither does."""
    if backer_id is None:
        _require_no_campaign(ctx, identity)
    backer = None if backer_id is None else _claimable(ctx, backer_id, token)
    _require_own_email(ctx, identity, email)
    user_id = ctx.db.insert(users, _new_user(ctx, identity, email, backer))
    if backer is not None:
        ctx.db.patch(backer["_id"], claimed_by(user_id, ctx.now))
    return user_id


def _require_no_campaign(ctx: QueryCtx, identity: Identity) -> None:
    # Admins get in without a code: else nobody could end a campaign that was started before anyone had signed up.
    if is_crowdfunding(ctx) and not is_admin(ctx, identity):
        raise ConvexError("Backer verification is required during crowdfunding")


def _claimable(ctx: QueryCtx, backer_id: str, token: str | None) -> Backer:
    if not token:
        raise ConvexError("Backer verification token is required")
    backer = ctx.db.get(backers, backer_id)
    refusal = claim_refusal(backer, token, ctx.now)
    if backer is None or refusal is not None:
        raise ConvexError(refusal)
    return backer


def _require_own_email(ctx: QueryCtx, identity: Identity, email: str) -> None:
    if ctx.db.query(users).with_index("by_email", email=email).unique() is not None:
        raise ConvexError("An account with this email already exists")
    # An address that nobody has proven to own must not keep its owner out.
    if not identity.email_verified:
        raise ConvexError("Please verify your email first")


def _new_user(ctx: QueryCtx, identity: Identity, email: str, backer: Backer | None) -> dict[str, object]:
    user: dict[str, object] = {"authUserId": identity.subject, "email": email, "createdAt": ctx.now}
    if identity.name is not None:
        user["name"] = identity.name
    if backer is not None:
        user["crowdfundingBackerId"] = backer["_id"]
        user |= access_granted(find_tier(ctx, backer["tier"]), ctx.now)
    return user


def _start_session(ctx: MutationCtx, user_id: UserId, identity: Identity) -> str:
    """Make this sign-in the person's only one; returns its id."""
    session_id = ctx.uuid()
    auth_session = auth_session_of(identity)
    ctx.db.patch(
        user_id,
        {
            "activeSessionId": session_id,
            "sessionStartedAt": ctx.now,
            "activeAuthSessionId": UNSET if auth_session is None else auth_session,
        },
    )
    return session_id
