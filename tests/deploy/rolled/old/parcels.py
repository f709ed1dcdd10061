"""Putting parcels on shelves, moving them and taking them away; both versions have this file."""

from __future__ import annotations

from typing import Any

from camber import MutationCtx, QueryCtx, mutation, query

from .schema import ON_SHELF, VERSION, Parcel, parcels

Row = list[Any]
"""Of a parcel: its owner, its number and its rank."""


@query
def version(ctx: QueryCtx) -> str:
    """Which code this is."""
    return VERSION


@query
def on(ctx: QueryCtx, *, shelf: str) -> list[Row]:
    """What is on a shelf, by whichever index this version has for that."""
    return [_row(parcel) for parcel in ctx.db.query(parcels).with_index(ON_SHELF, shelf=shelf)]


@query
def of(ctx: QueryCtx, *, owner: str) -> list[Row]:
    """What an owner has, by the index that all versions have."""
    return [_row(parcel) for parcel in ctx.db.query(parcels).with_index("by_owner", owner=owner)]


@mutation
def put(ctx: MutationCtx, *, owner: str, number: float, shelf: str, rank: float) -> None:
    """A parcel comes."""
    ctx.db.insert(parcels, {"owner": owner, "number": number, "shelf": shelf, "rank": rank})


@mutation
def move(ctx: MutationCtx, *, owner: str, number: float, shelf: str, rank: float) -> None:
    """A parcel goes to another shelf: its keys move in the indexes of both versions, and stay in the one they share."""
    ctx.db.patch(parcels, _find(ctx, owner, number)["_id"], {"shelf": shelf, "rank": rank})


@mutation
def take(ctx: MutationCtx, *, owner: str, number: float) -> None:
    """A parcel goes away."""
    ctx.db.delete(parcels, _find(ctx, owner, number)["_id"])


@mutation
def fill(ctx: MutationCtx, *, rows: list[Row]) -> None:
    """Many parcels come at once: of each its owner, its number and its shelf."""
    for owner, number, shelf in rows:
        ctx.db.insert(parcels, {"owner": owner, "number": number, "shelf": shelf, "rank": 0})


@mutation
def put_unranked(ctx: MutationCtx) -> None:
    """Store what the old version alone allows, and take it away again, so that nothing is left to be mended."""
    unranked: Any = {"owner": "nobody", "number": 0, "shelf": "nowhere"}
    ctx.db.delete(parcels, ctx.db.insert(parcels, unranked))


def _find(ctx: MutationCtx, owner: str, number: float) -> Parcel:
    found = ctx.db.query(parcels).with_index("by_owner", owner=owner, number=number).unique()
    assert found is not None, f"parcel {number} of {owner} is not there"
    return found


def _row(parcel: Parcel) -> Row:
    return [parcel["owner"], parcel["number"], parcel.get("rank")]
