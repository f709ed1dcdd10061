"""Who may call what: finding the person behind a call, and refusing everyone else."""

from __future__ import annotations

from typing import NamedTuple

from camber import ConvexError, Identity, QueryCtx, mutation, query

from .schema import User, admins, users

NOT_AUTHENTICATED = "Not authenticated"


def require_app_user(ctx: QueryCtx) -> User:
    """The app user who calls. Every function for people who are signed in starts with this.

    Refuses, as ConvexError, with `Not authenticated` (nobody is signed in), `no_app_user` (an account that never signed
    up here opens nothing) or `session_invalidated` (the person has since signed in elsewhere).
    """
    identity = ctx.auth.get_user_identity()
    if identity is None:
        raise ConvexError(NOT_AUTHENTICATED)
    user = find_user(ctx, identity)
    if user is None:
        raise ConvexError("no_app_user")
    _refuse_displaced(user, identity)
    return user


def require_admin(ctx: QueryCtx) -> None:
    """Let the operator pass, and an app user whose verified e-mail address is in `admins`.

    Refuses, as ConvexError, with `Not authorized`; an admin who has since signed in elsewhere, with
    `session_invalidated`.
    """
    if ctx.auth.is_operator:
        return
    caller = signed_in(ctx)
    if caller is None or not is_admin(ctx, caller.identity):
        raise ConvexError("Not authorized")
    _refuse_displaced(caller.user, caller.identity)


admin_query = query.guarded(require_admin)
admin_mutation = mutation.guarded(require_admin)


class SignedIn(NamedTuple):
    """An app user together with what the auth service says of the person right now."""

    user: User
    identity: Identity


def signed_in(ctx: QueryCtx) -> SignedIn | None:
    """Who calls, if that is an app user; displaced or not."""
    identity = ctx.auth.get_user_identity()
    user = None if identity is None else find_user(ctx, identity)
    return None if identity is None or user is None else SignedIn(user, identity)


def find_user(ctx: QueryCtx, identity: Identity) -> User | None:
    """The app user of this identity, if it ever signed up."""
    return ctx.db.query(users).with_index("by_authUserId", authUserId=identity.subject).unique()


def is_admin(ctx: QueryCtx, identity: Identity) -> bool:
    """Whether the address is whitelisted and the auth service vouches that it is this person's."""
    if not identity.email_verified or identity.email is None:
        return False
    email = normal_email(identity.email)
    return ctx.db.query(admins).with_index("by_email", email=email).unique() is not None


def is_displaced(user: User, identity: Identity) -> bool:
    """Whether this identity's auth session is another than the one the user signed in with last.

    Where none is stored (impersonation, an issuer without session ids) nothing is compared.
    """
    active = user.get("activeAuthSessionId")
    return active is not None and auth_session_of(identity) != active


def auth_session_of(identity: Identity) -> str | None:
    """The auth service's id of the session that a token belongs to: its claim `sessionId`."""
    claim = identity.get("sessionId")
    return claim if isinstance(claim, str) and claim else None


def normal_email(email: str) -> str:
    """The one form in which addresses are stored and compared."""
    return email.strip().lower()


def _refuse_displaced(user: User, identity: Identity) -> None:
    if is_displaced(user, identity):
        raise ConvexError("session_invalidated")
