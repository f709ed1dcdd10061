"""Writes that are whole or not there at all, and queries that show it."""

from __future__ import annotations

from typing import Any, Literal

from camber import ConvexError, MutationCtx, QueryCtx, mutation, query

from .schema import Seats, accounts, entries, seats, tallies

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
) -> float:
    """Enter it into all tables; returns how many entries the writer has. `refuse`: and take it back."""
    ctx.db.insert(entries, {"writer": writer, "number": number, "source": source, "target": target, "amount": amount})
    _add_to(ctx, source, -amount)
    _add_to(ctx, target, amount)
    _sit_or_stand_up(ctx, bench, side)
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
def everything(ctx: QueryCtx) -> list[Any]:
    """All entries: writer, number, source, target, amount."""
    return [
        [entry["writer"], entry["number"], entry["source"], entry["target"], entry["amount"]]
        for entry in ctx.db.query(entries).with_index("by_writer")
    ]


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


def _count(ctx: MutationCtx, writer: str) -> float:
    found = ctx.db.query(tallies).with_index("by_writer", writer=writer).unique()
    if found is None:
        ctx.db.insert(tallies, {"writer": writer, "entries": 1})
        return 1
    ctx.db.patch(tallies, found["_id"], {"entries": found["entries"] + 1})
    return found["entries"] + 1
