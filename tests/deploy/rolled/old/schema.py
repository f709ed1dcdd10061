"""Parcels on shelves: the version that is to be replaced."""

from __future__ import annotations

from typing import NotRequired

from camber import Document, define_schema, define_table

VERSION = "old"
ON_SHELF = "by_shelf"
"""The index by which the parcels of a shelf are found."""


class Parcel(Document):
    """It goes from shelf to shelf; `rank` counts how often it did."""

    owner: str
    number: float
    shelf: str
    rank: NotRequired[float]


# Not unique: a parcel that is there twice shall be seen, not refused.
parcels = define_table("parcels", Parcel).index("by_owner", ["owner", "number"]).index(ON_SHELF, ["shelf"])

schema = define_schema(parcels)
