"""What only the new version has: a look at the whole of the index that it brought."""

from __future__ import annotations

from typing import Any

from camber import QueryCtx, query

from .schema import ON_SHELF, parcels


@query
def all(ctx: QueryCtx) -> list[list[Any]]:
    """Every parcel, in the order of the index: its owner, its number and its rank."""
    found = ctx.db.query(parcels).with_index(ON_SHELF)
    return [[parcel["owner"], parcel["number"], parcel["rank"]] for parcel in found]
