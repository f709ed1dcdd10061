"""Lists that grow and shrink at any place: whole, and page by page."""

from __future__ import annotations

from camber import MutationCtx, Page, PaginationOptions, QueryCtx, mutation, query

from .schema import Items, items


@query
def full(ctx: QueryCtx, *, list_name: str) -> list[float]:
    """The places of all items of the list, in order."""
    return [item["seq"] for item in ctx.db.query(items).with_index("by_list", listName=list_name)]


@query
def page(ctx: QueryCtx, *, list_name: str, pagination_opts: PaginationOptions) -> Page[Items]:
    """The same list in pages."""
    return ctx.db.query(items).with_index("by_list", listName=list_name).paginate(pagination_opts)


@query
def texts(ctx: QueryCtx, *, list_name: str) -> list[str]:
    """What the items of the list say, in order."""
    return [item["text"] for item in ctx.db.query(items).with_index("by_list", listName=list_name)]


@mutation
def change(ctx: MutationCtx, *, list_name: str, add: list[float], remove: list[float], text: str = "") -> None:
    """Take items out of a list and put others in, at once."""
    for seq in remove:
        for item in ctx.db.query(items).with_index("by_list", listName=list_name, seq=seq):
            ctx.db.delete(items, item["_id"])
    for seq in add:
        ctx.db.insert(items, {"listName": list_name, "seq": seq, "text": text})
