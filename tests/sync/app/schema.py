"""Notes in rooms, numbers under names, and a journal of all changes in their order."""

from __future__ import annotations

from camber import Document, define_schema, define_table


class Notes(Document):
    """A note: `key` names it, `place` is where it hangs in its room, `owner` who put it there last."""

    key: str
    room: str
    place: float
    text: str
    owner: str | None


class Marks(Document):
    """A number under a name."""

    name: str
    value: float


class Serials(Document):
    """How many changes there have been: their order, for who wants to play them again."""

    count: float


notes = (
    define_table("notes", Notes)
    .index("by_key", ["key"], unique=True)
    .index("by_room", ["room", "place"])
    .index("by_owner", ["owner"])
)
marks = define_table("marks", Marks).index("by_name", ["name"], unique=True)
serials = define_table("serials", Serials)

schema = define_schema(notes, marks, serials)
