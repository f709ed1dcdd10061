"""Functions of every kind, and ways for them to end."""

import asyncio
from typing import Any

from camber import (
    ActionCtx,
    ConvexError,
    Int64,
    MutationCtx,
    QueryCtx,
    action,
    internal_query,
    mutation,
    query,
    v,
)

from .schema import notes


@query
def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in ctx.db.query(notes)]


@mutation
def add(ctx: MutationCtx, *, text: str) -> None:
    ctx.db.insert(notes, {"text": text})


@query(args={"value": v.any()})
def same(ctx: QueryCtx, *, value: Any) -> Any:
    return value


@query
def kinds(ctx: QueryCtx) -> Any:
    return {"int64": Int64(5), "bytes": b"\x00\xff", "float": 0.5, "nan": float("nan"), "text": "ä"}


@query
def told(ctx: QueryCtx) -> str:
    ctx.log.info("hello")
    return "told"


@query
def refused(ctx: QueryCtx) -> None:
    raise ConvexError({"code": "nope", "count": Int64(1)})


@query
def refused_with_null(ctx: QueryCtx) -> None:
    raise ConvexError(None)


@mutation
def broken(ctx: MutationCtx) -> None:
    ctx.db.insert(notes, {"text": "never"})
    raise ValueError("a detail")


@mutation
def stubborn(ctx: MutationCtx) -> None:
    while True:
        try:
            sum(range(1_000))
        except BaseException:  # noqa: BLE001  this is what it is for
            continue


@internal_query
def hidden(ctx: QueryCtx) -> str:
    return "hidden"


@query
def who(ctx: QueryCtx) -> Any:
    identity = ctx.auth.get_user_identity()
    return {"operator": ctx.auth.is_operator, "identity": None if identity is None else dict(identity)}


@mutation
def address(ctx: MutationCtx) -> str | None:
    return ctx.client_address


@action
async def later(ctx: ActionCtx, *, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "later"


@query
def setting(ctx: QueryCtx, *, name: str) -> str | None:
    return ctx.env.get(name)
