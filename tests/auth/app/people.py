"""Who calls, as each kind of function sees it."""

from typing import Any

from camber import ActionCtx, MutationCtx, QueryCtx, action, mutation, query


@query
def whoami(ctx: QueryCtx) -> dict[str, Any] | None:
    """The caller's claims."""
    identity = ctx.auth.get_user_identity()
    return None if identity is None else dict(identity)


@mutation
def sign_in(ctx: MutationCtx) -> str | None:
    """The caller's name for the ages."""
    identity = ctx.auth.get_user_identity()
    return None if identity is None else identity.token_identifier


@action
async def ask(ctx: ActionCtx) -> str | None:
    """The same, by way of a mutation."""
    return await ctx.run_mutation(sign_in)
