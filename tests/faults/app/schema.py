"""A ledger: what was moved from whom to whom, where each account stands, how often each writer wrote, and who sits."""

from __future__ import annotations

from typing import Literal

from camber import Document, define_schema, define_table


class Entries(Document):
    """One write. `number` counts those of its writer, who gives each number once."""

    writer: str
    number: float
    source: str
    target: str
    amount: float


class Accounts(Document):
    """What all entries come to for this name."""

    name: str
    balance: float


class Tallies(Document):
    """How many entries this writer has."""

    writer: str
    entries: float


class Seats(Document):
    """One of two seats of a bench: at most one of them is taken, which each change of one finds out by looking at the other."""

    bench: str
    side: Literal["left", "right"]
    taken: bool


# Not unique: a write that took effect twice shall be seen, not refused.
entries = define_table("entries", Entries).index("by_writer", ["writer", "number"])
accounts = define_table("accounts", Accounts).index("by_name", ["name"], unique=True)
tallies = define_table("tallies", Tallies).index("by_writer", ["writer"], unique=True)

seats = define_table("seats", Seats).index("by_place", ["bench", "side"], unique=True)

schema = define_schema(entries, accounts, tallies, seats)
