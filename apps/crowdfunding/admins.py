"""The whitelist of admins, by e-mail address."""

from __future__ import annotations

from typing import Annotated, TypedDict

from camber import ConvexError, MutationCtx, QueryCtx, v

from .access import admin_mutation, admin_query, normal_email
from .schema import Admin, OptionalText, admins

AdminId = Annotated[str, v.id("admins")]


class AddedAdmin(TypedDict):
    """Whether the address is new on the list; the id is its row's in any case."""

    added: bool
    id: AdminId


class RemovedAdmin(TypedDict):
    """Whether the address was on the list."""

    removed: bool


@admin_mutation(name="add")
def add_admin(ctx: MutationCtx, *, email: str, note: OptionalText = None) -> AddedAdmin:
    """Put an address on the list. One that is there already keeps its row as it is."""
    email = normal_email(email)
    if not email:
        raise ConvexError("An email address is required")
    if existing := _find_admin(ctx, email):
        return {"added": False, "id": existing["_id"]}
    admin: dict[str, object] = {"email": email, "addedAt": ctx.now}
    if note is not None:
        admin["note"] = note
    return {"added": True, "id": ctx.db.insert(admins, admin)}


@admin_mutation(name="remove")
def remove_admin(ctx: MutationCtx, *, email: str) -> RemovedAdmin:
    """Take an address off the list. Only the operator can take off the last one, who could put one back."""
    admin = _find_admin(ctx, normal_email(email))
    if admin is None:
        return {"removed": False}
    if not ctx.auth.is_operator and len(ctx.db.query(admins).take(2)) == 1:
        raise ConvexError("The last admin cannot be removed")
    ctx.db.delete(admin["_id"])
    return {"removed": True}


@admin_query(name="list")
def list_admins(ctx: QueryCtx) -> list[Admin]:
    """Every address on the list, in the order they were added."""
    return ctx.db.query(admins).collect()


def _find_admin(ctx: QueryCtx, email: str) -> Admin | None:
    return ctx.db.query(admins).with_index("by_email", email=email).unique()
