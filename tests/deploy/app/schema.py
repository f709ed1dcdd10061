"""Numbers by name."""

from __future__ import annotations

from camber import Document, define_schema, define_table


class Counter(Document):
    """A number that is added to."""

    name: str
    value: float


counters = define_table("counters", Counter).index("by_name", ["name"], unique=True)

schema = define_schema(counters)
