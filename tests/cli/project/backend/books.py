"""Putting books on the shelf and finding them."""

from __future__ import annotations

from typing import Any

from camber import ActionCtx, ConvexError, Int64, MutationCtx, QueryCtx, action, internal_mutation, mutation, query

from .schema import books


@mutation
def add(ctx: MutationCtx, *, title: str, pages: int = 100) -> str:
    """Put a book on the shelf."""
    ctx.log.info(f"adding {title}")
    return ctx.db.insert(books, {"title": title, "pages": pages})


@internal_mutation
def add_many(ctx: MutationCtx, *, count: int) -> None:
    """Fill the shelf."""
    for number in range(count):
        ctx.db.insert(books, {"title": f"Volume {number}", "pages": number})


@mutation
def label(ctx: MutationCtx, *, title: str, barcode: Int64, cover: bytes) -> None:
    """Stick a barcode and a picture on a book."""
    book = ctx.db.query(books).with_index("by_title", title=title).unique()
    if book is None:
        raise ConvexError({"code": "NoSuchBook", "title": title})
    ctx.db.patch(book["_id"], {"barcode": barcode, "cover": cover})


@query
def titles(ctx: QueryCtx) -> list[str]:
    """All titles, in alphabetical order."""
    return [book["title"] for book in ctx.db.query(books).with_index("by_title").collect()]


@query
def reader(ctx: QueryCtx) -> dict[str, Any] | None:
    """The claims of whoever asks."""
    identity = ctx.auth.get_user_identity()
    return None if identity is None else dict(identity)


@action
async def echo(ctx: ActionCtx, *, value: Any) -> Any:
    """What came, back again."""
    return value
