"""Functions that tell who called them, and what the environment says."""

from __future__ import annotations

from typing import Any

from camber import ActionCtx, MutationCtx, QueryCtx, action, internal_query, mutation, query


@query
def me(ctx: QueryCtx) -> dict[str, Any]:
    """The caller's claims, or null, and whether it is the operator."""
    return _caller(ctx)


@mutation
def me_in_mutation(ctx: MutationCtx) -> dict[str, Any]:
    """The same in a mutation."""
    return _caller(ctx)


@action
async def me_in_action(ctx: ActionCtx) -> dict[str, Any]:
    """The same in an action."""
    return _caller(ctx)


@internal_query
def secret(ctx: QueryCtx) -> str:
    """Only for the operator and for other functions."""
    return "for the operator"


@query
def variable(ctx: QueryCtx, *, name: str) -> str | None:
    """What an environment variable says."""
    return ctx.env.get(name)


def _caller(ctx: QueryCtx | ActionCtx) -> dict[str, Any]:
    identity = ctx.auth.get_user_identity()
    return {"claims": None if identity is None else dict(identity), "isOperator": ctx.auth.is_operator}
