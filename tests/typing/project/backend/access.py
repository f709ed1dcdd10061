"""Who may call what."""

from __future__ import annotations

from camber import ConvexError, QueryCtx, internal_mutation, mutation, query

from .schema import Reader, readers


def require_reader(ctx: QueryCtx) -> Reader:
    """The reader who calls, or an error."""
    identity = ctx.auth.get_user_identity()
    if identity is None or identity.email is None or not identity.email_verified:
        raise ConvexError("Not signed in")
    reader = ctx.db.query(readers).with_index("by_email", email=identity.email).unique()
    if reader is None:
        raise ConvexError({"code": "NoReader", "subject": identity.subject})
    return reader


def require_staff(ctx: QueryCtx) -> None:
    """Only the operator."""
    if not ctx.auth.is_operator:
        raise ConvexError("Not authorized")


reader_query = query.guarded(require_reader)
reader_mutation = mutation.guarded(require_reader)
staff_mutation = internal_mutation.guarded(require_staff)
