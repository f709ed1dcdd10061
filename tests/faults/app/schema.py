"""A ledger: what was moved from whom to whom, where each account stands, how often each writer wrote, who sits, and what changed hands."""

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


class Lasts(Document):
    """The last write that handed something over from this account. The next one deletes this row, and another has its unique key.

    `count` says how many there were.
    """

    source: str
    writer: str
    number: float
    count: float


class Badges(Document):
    """Each account has a badge, which another account may hold: those who hand something over swap the badges that they hold.

    So two rows give each other their unique keys. `swaps` says how often this one was handed over.
    """

    badge: str
    holder: str
    swaps: float


# Not unique: a write that took effect twice shall be seen, not refused.
entries = define_table("entries", Entries).index("by_writer", ["writer", "number"])
accounts = define_table("accounts", Accounts).index("by_name", ["name"], unique=True)
tallies = define_table("tallies", Tallies).index("by_writer", ["writer"], unique=True)

seats = define_table("seats", Seats).index("by_place", ["bench", "side"], unique=True)
lasts = define_table("lasts", Lasts).index("by_source", ["source"], unique=True)
badges = define_table("badges", Badges).index("by_holder", ["holder"], unique=True)

schema = define_schema(entries, accounts, tallies, seats, lasts, badges)
