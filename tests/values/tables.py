"""A few tables with numbers, as a database would give them."""

from __future__ import annotations

from camber.values import new_id

_NUMBERS = {"users": 10001, "backers": 10002, "_storage": 513}
_NAMES = {number: name for name, number in _NUMBERS.items()}


class SomeTables:
    """The twin of a database's table names."""

    def number_of(self, name: str) -> int | None:
        return _NUMBERS.get(name)

    def name_of(self, number: int) -> str | None:
        return _NAMES.get(number)


TABLES = SomeTables()


def id_in(table: str) -> str:
    return new_id(_NUMBERS[table], 1_700_000_000_000.0, b"just ten b")
