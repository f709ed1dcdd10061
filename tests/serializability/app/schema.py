"""Registers, accounts and lists, each under a key."""

from __future__ import annotations

from camber import Document, define_schema, define_table


class Registers(Document):
    """A number that was given to a register last. `tag` names this version of it, `previous` the one that it replaced."""

    key: str
    group: str
    number: float
    tag: str
    previous: str | None


class Accounts(Document):
    """A balance; as a register."""

    key: str
    group: str
    number: float
    tag: str
    previous: str | None


class Lists(Document):
    """A list that grows at its end."""

    key: str
    elements: list[str]


registers = (
    define_table("registers", Registers).index("by_key", ["key"], unique=True).index("by_number", ["group", "number"])
)
accounts = define_table("accounts", Accounts).index("by_key", ["key"], unique=True)
lists = define_table("lists", Lists).index("by_key", ["key"], unique=True)

schema = define_schema(registers, accounts, lists)
