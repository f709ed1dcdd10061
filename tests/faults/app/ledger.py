"""Writes that are whole or not there at all, and queries that show it."""

from __future__ import annotations

from typing import Any, Literal

from camber import ConvexError, MutationCtx, QueryCtx, mutation, query

from .schema import Badges, Seats, accounts, badges, entries, lasts, seats, tallies

Side = Literal["left", "right"]


@mutation
def write(
    ctx: MutationCtx,
    *,
    writer: str,
    number: float,
    source: str,
    target: str,
    amount: float,
    bench: str,
    side: Side,
    refuse: bool = False,
    swap: bool = False,
) -> float:
    """Enter it into all tables; returns how many entries the writer has. `refuse`: and take it back.

    `swap`: a row takes the unique key of one that it deletes, and two rows swap theirs.
    """
    ctx.db.insert(entries, {"writer": writer, "number": number, "source": source, "target": target, "amount": amount})
    _add_to(ctx, source, -amount)
    _add_to(ctx, target, amount)
    _sit_or_stand_up(ctx, bench, side)
    if swap:
        _follow(ctx, writer, number, source)
        _swap_badges(ctx, source, target)
    count = _count(ctx, writer)
    if refuse:
        raise ConvexError("refused")
    return count


@query
def numbers(ctx: QueryCtx, *, writer: str) -> list[float]:
    """The numbers of all entries of a writer, in their order."""
    return [entry["number"] for entry in ctx.db.query(entries).with_index("by_writer", writer=writer)]


@query
def tally(ctx: QueryCtx, *, writer: str) -> float:
    """How many entries a writer has, as was counted."""
    found = ctx.db.query(tallies).with_index("by_writer", writer=writer).unique()
    return found["entries"] if found else 0


@query
def balance(ctx: QueryCtx, *, name: str) -> float:
    """Where an account stands."""
    found = ctx.db.query(accounts).with_index("by_name", name=name).unique()
    return found["balance"] if found else 0


@query
def balances(ctx: QueryCtx) -> dict[str, float]:
    """Where all accounts stand."""
    return {account["name"]: account["balance"] for account in ctx.db.query(accounts)}


@query
def taken(ctx: QueryCtx) -> list[str]:
    """The seats that are taken, as bench and side."""
    return [f"{seat['bench']} {seat['side']}" for seat in ctx.db.query(seats).with_index("by_place") if seat["taken"]]


@query
def latest(ctx: QueryCtx) -> dict[str, Any]:
    """For each account, who handed something over from it last: writer, number, and how many did so until then."""
    return {last["source"]: [last["writer"], last["number"], last["count"]] for last in ctx.db.query(lasts)}


@query
def holders(ctx: QueryCtx) -> list[Any]:
    """All badges in the order of those who hold them: holder, badge, how often it was handed over."""
    return [[badge["holder"], badge["badge"], badge["swaps"]] for badge in ctx.db.query(badges).with_index("by_holder")]


@query
def page(ctx: QueryCtx, *, cursor: str | None = None) -> dict[str, Any]:
    """All entries in parts, since one answer has 8,192 at most: those behind the cursor, and the next cursor, None at the end."""
    found = ctx.db.query(entries).with_index("by_writer").paginate({"numItems": 4000, "cursor": cursor})
    return {
        "entries": [
            [entry["writer"], entry["number"], entry["source"], entry["target"], entry["amount"]]
            for entry in found["page"]
        ],
        "next": None if found["isDone"] else found["continueCursor"],
    }


def _add_to(ctx: MutationCtx, name: str, amount: float) -> None:
    found = ctx.db.query(accounts).with_index("by_name", name=name).unique()
    if found is None:
        ctx.db.insert(accounts, {"name": name, "balance": amount})
    else:
        ctx.db.patch(accounts, found["_id"], {"balance": found["balance"] + amount})


def _sit_or_stand_up(ctx: MutationCtx, bench: str, side: Side) -> None:
    own, other = _seat(ctx, bench, side), _seat(ctx, bench, "right" if side == "left" else "left")
    is_free = not (own and own["taken"]) and not (other and other["taken"])
    if own is None:
        ctx.db.insert(seats, {"bench": bench, "side": side, "taken": is_free})
    else:
        ctx.db.patch(seats, own["_id"], {"taken": is_free})


def _seat(ctx: MutationCtx, bench: str, side: Side) -> Seats | None:
    return ctx.db.query(seats).with_index("by_place", bench=bench, side=side).unique()


def _follow(ctx: MutationCtx, writer: str, number: float, source: str) -> None:
    found = ctx.db.query(lasts).with_index("by_source", source=source).unique()
    if found is not None:
        ctx.db.delete(lasts, found["_id"])
    count = (found["count"] if found else 0) + 1
    ctx.db.insert(lasts, {"source": source, "writer": writer, "number": number, "count": count})


def _swap_badges(ctx: MutationCtx, one: str, other: str) -> None:
    first, second = _held_by(ctx, one), _held_by(ctx, other)
    ctx.db.patch(badges, first["_id"], {"holder": ""})  # at no time may two have the same
    ctx.db.patch(badges, second["_id"], {"holder": one, "swaps": second["swaps"] + 1})
    ctx.db.patch(badges, first["_id"], {"holder": other, "swaps": first["swaps"] + 1})


def _held_by(ctx: MutationCtx, account: str) -> Badges:
    """The badge that it holds; in the beginning its own."""
    found = ctx.db.query(badges).with_index("by_holder", holder=account).unique()
    if found is None:
        id = ctx.db.insert(badges, {"badge": account, "holder": account, "swaps": 0})
        found = ctx.db.get(badges, id)
        assert found is not None
    return found


def _count(ctx: MutationCtx, writer: str) -> float:
    found = ctx.db.query(tallies).with_index("by_writer", writer=writer).unique()
    if found is None:
        ctx.db.insert(tallies, {"writer": writer, "entries": 1})
        return 1
    ctx.db.patch(tallies, found["_id"], {"entries": found["entries"] + 1})
    return found["entries"] + 1
