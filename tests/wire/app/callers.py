"""Functions that tell who called them."""

from __future__ import annotations

from typing import Any

from camber import QueryCtx, query


@query
def me(ctx: QueryCtx) -> dict[str, Any]:
    """The caller's claims, or null, and whether it is the operator."""
    identity = ctx.auth.get_user_identity()
    return {"claims": None if identity is None else dict(identity), "isOperator": ctx.auth.is_operator}
