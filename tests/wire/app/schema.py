"""One table, for what the clients write."""

from __future__ import annotations

from typing import Any

from camber import Document, define_schema, define_table


class Notes(Document):
    """Anything a client wants to keep."""

    title: str
    value: Any


notes = define_table("notes", Notes).index("by_title", ["title"])

schema = define_schema(notes)
