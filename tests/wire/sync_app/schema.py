"""The tables that the socket's tests write to."""

from __future__ import annotations

from typing import Any

from camber import Document, define_schema, define_table


class Items(Document):
    """An entry of one of many lists; `seq` is its place."""

    listName: str
    seq: float
    text: str


class Counters(Document):
    """A number under a name, and how it is to fail, where it is."""

    name: str
    value: float
    failure: Any


class Kept(Document):
    """Anything under a name."""

    name: str
    value: Any


items = define_table("items", Items).index("by_list", ["listName", "seq"])
counters = define_table("counters", Counters).index("by_name", ["name"], unique=True)
kept = define_table("kept", Kept).index("by_name", ["name"])

schema = define_schema(items, counters, kept)
