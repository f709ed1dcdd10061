"""One table of notes."""

from camber import Document, define_schema, define_table


class Note(Document):
    text: str


notes = define_table("notes", Note)
schema = define_schema(notes)
