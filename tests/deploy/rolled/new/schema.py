"""Parcels on shelves: the new version. Each has a rank, shelves are in its order, and the index by shelf alone is dropped."""

from __future__ import annotations

from camber import Document, define_schema, define_table

VERSION = "new"
ON_SHELF = "by_place"


class Parcel(Document):
    """It goes from shelf to shelf; `rank` counts how often it did."""

    owner: str
    number: float
    shelf: str
    rank: float


parcels = define_table("parcels", Parcel).index("by_owner", ["owner", "number"]).index(ON_SHELF, ["shelf", "rank"])

schema = define_schema(parcels)
