"""A library: its books, who reads them, and what happened."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from camber import Document, Int64, define_schema, define_table, v

ReaderId = Annotated[str, v.id("readers")]
BookId = Annotated[str, v.id("books")]


class Place(TypedDict):
    """Where a book stands."""

    shelf: str
    number: int


class Reader(Document):
    """People who may borrow books."""

    name: str
    email: str
    born: NotRequired[int]
    invitedBy: NotRequired[ReaderId]


class Book(Document):
    """One copy of a book."""

    title: str
    isbn: Int64
    state: Literal["in", "out", "lost"]
    place: Place
    tags: list[str]
    copiesByYear: dict[str, float]
    cover: bytes | None
    borrowedBy: NotRequired[ReaderId]
    borrowedAt: NotRequired[float]
    extra: NotRequired[Any]


readers = define_table("readers", Reader).index("by_email", ["email"], unique=True)

books = (
    define_table("books", Book, write_with="books:add")
    .index("by_state_borrowedAt", ["state", "borrowedAt"])
    .index("by_shelf", ["place.shelf"])
)

# A table as it comes from a ported schema, with a field that Python can't name.
events = define_table("events", {"kind": v.string(), "from": v.optional(v.id("readers"))}).index("by_from", ["from"])

schema = define_schema(readers, books, events)
