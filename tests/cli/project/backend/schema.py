"""The tables of a small library."""

from __future__ import annotations

from typing import NotRequired

from camber import Document, Int64, define_schema, define_table


class Books(Document):
    """Books that can be borrowed.

    One row per copy.
    """

    title: str
    pages: int
    barcode: NotRequired[Int64]
    cover: NotRequired[bytes]
    borrower: NotRequired[str | None]


class Settings(Document):
    """How the library is run."""

    key: str
    isOpen: bool


books = define_table("books", Books).index("by_title", ["title"])
settings = define_table("settings", Settings, write_with="settings:open").index("by_key", ["key"], unique=True)

schema = define_schema(books, settings)
