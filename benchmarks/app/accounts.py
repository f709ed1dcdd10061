"""Money that is moved between accounts; none of it may get lost."""

from __future__ import annotations

from camber import ConvexError, MutationCtx, QueryCtx, mutation, query

from .schema import Accounts, accounts


@mutation(name="open")
def open_accounts(ctx: MutationCtx, *, first: float, count: float, balance: float) -> None:
    """Open so many accounts, numbered from `first` on, with the same balance each."""
    for number in range(int(first), int(first + count)):
        ctx.db.insert(accounts, {"number": float(number), "balance": balance})


@mutation
def deposit(ctx: MutationCtx, *, number: float, amount: float) -> bool:
    """Add to an account."""
    account = _find(ctx, number)
    ctx.db.patch(account["_id"], {"balance": account["balance"] + amount})
    return True


@mutation
def transfer(ctx: MutationCtx, *, source: float, target: float, amount: float) -> bool:
    """Move money from one account to another; refused where there is too little."""
    giver, taker = _find(ctx, source), _find(ctx, target)
    if giver["balance"] < amount:
        raise ConvexError("There is too little on this account")
    ctx.db.patch(giver["_id"], {"balance": giver["balance"] - amount})
    ctx.db.patch(taker["_id"], {"balance": taker["balance"] + amount})
    return True


@query
def total(ctx: QueryCtx) -> float:
    """The money on all accounts."""
    return sum(account["balance"] for account in ctx.db.query(accounts))


def _find(ctx: MutationCtx, number: float) -> Accounts:
    account = ctx.db.query(accounts).with_index("by_number", number=number).unique()
    if account is None:
        raise ConvexError("There is no such account")
    return account
