"""The board of tests/sync/app in plain Python: what its queries must give after so many changes, for whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

Change = Mapping[str, Any]


class Who(NamedTuple):
    """A caller, as far as queries can see."""

    subject: str | None = None
    is_admin: bool = False


class Told(NamedTuple):
    """What a client is told of a query: a value, or how it failed."""

    value: Any
    failed: bool = False
    data: Any = None


@dataclass(eq=False)
class Note:
    """A note, and its place among those made at any time."""

    room: str
    place: float
    text: str
    owner: str | None
    made: int

    @property
    def position(self) -> tuple[float, int]:
        return self.place, self.made


@dataclass
class Board:
    """The state after some changes."""

    serial: int = 0
    notes: dict[str, Note] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    _made: int = 0

    def apply(self, changes: Sequence[Change], subject: str | None) -> None:
        """What `board:change` does."""
        self.serial += 1
        for change in changes:
            match change["do"]:
                case "put":
                    self._put(change, subject)
                case "move" if note := self.notes.get(change["key"]):
                    self.notes[change["key"]] = moved = copy(note)
                    moved.room, moved.place = change["room"], change["place"]
                case "drop":
                    self.notes.pop(change["key"], None)
                case "add":
                    self.marks[change["name"]] = self.marks.get(change["name"], 0) + change["by"]
                case "set":
                    self.variables[change["name"]] = change["value"]
                case _:
                    pass

    def _put(self, change: Change, subject: str | None) -> None:
        found = self.notes.get(change["key"])
        if found is None:
            self._made += 1
        made = self._made if found is None else found.made
        self.notes[change["key"]] = Note(change["room"], change["place"], change["text"], subject, made)

    def copy(self) -> Board:
        """The same state, to go another way from here. Notes are never changed in place."""
        return Board(self.serial, dict(self.notes), dict(self.marks), dict(self.variables), self._made)


class Pin(NamedTuple):
    """Where a page ends, once that is settled: behind this position, or with the room (None)."""

    position: tuple[float, int] | None


@dataclass(eq=False)
class Question:
    """One query that one client watches, through all its connections."""

    path: str
    args: Mapping[str, Any]
    journal: str | None = None
    pin: Pin | None = None

    def answer(self, board: Board, who: Who) -> Told:
        """What must be told in this state."""
        return _ANSWERS[self.path](board, self, who)

    def settle(self, board: Board) -> None:
        """A page was told for the first time: it ends there from now on."""
        if self.path == "board:page" and self.pin is None:
            items, count = _room(board, self.args["room"]), self.args["paginationOpts"]["numItems"]
            self.pin = Pin(items[count - 1][1].position if len(items) >= count else None)


def _room(board: Board, room: str) -> list[tuple[str, Note]]:
    found = [(key, note) for key, note in board.notes.items() if note.room == room]
    return sorted(found, key=lambda each: each[1].position)


def _plain(items: list[tuple[str, Note]]) -> list[Any]:
    return [[key, note.place, note.text, note.owner] for key, note in items]


def _between(board: Board, q: Question, _: Who) -> Told:
    low, high = q.args["low"], q.args["high"]
    return Told(_plain([each for each in _room(board, q.args["room"]) if low <= each[1].place < high]))


def _page(board: Board, q: Question, _: Who) -> Told:
    items = _room(board, q.args["room"])
    if q.pin is None:
        count = q.args["paginationOpts"]["numItems"]
        return Told({"page": _plain(items[:count]), "isDone": len(items) < count})
    end = q.pin.position
    return Told({"page": _plain([i for i in items if end is None or i[1].position <= end]), "isDone": end is None})


def _mine(board: Board, _: Question, who: Who) -> Told:
    if who.subject is None:
        return Told(["nobody's"])
    return Told(sorted(key for key, note in board.notes.items() if note.owner == who.subject))


def _me(who: Who) -> dict[str, Any]:
    return {"subject": who.subject, "isOperator": who.is_admin and who.subject is None}


def _sometimes(board: Board, q: Question, who: Who) -> Told:
    value = board.marks.get(q.args["name"], 0)
    return Told({"value": value, **(_me(who) if value % 2 else {})})


def _strict(board: Board, q: Question, _: Who) -> Told:
    value = board.marks.get(q.args["name"], 0)
    if value < 0:
        return Told("ConvexError", failed=True, data={"value": value})
    return Told(f"{float(value)} is too much", failed=True) if value > 20 else Told(value)


def _number(board: Board, q: Question, _: Who) -> Told:
    return Told(board.marks.get(q.args["name"], 0))


_ANSWERS: dict[str, Callable[[Board, Question, Who], Told]] = {
    "board:room": lambda board, q, _: Told(_plain(_room(board, q.args["room"]))),
    "board:between": _between,
    "board:last": lambda board, q, _: Told((_plain(_room(board, q.args["room"])[-1:]) or [None])[0]),
    "board:count": lambda board, q, _: Told(len(_room(board, q.args["room"]))),
    "board:page": _page,
    "board:mine": _mine,
    "board:me": lambda _, __, who: Told(_me(who)),
    "board:sometimes": _sometimes,
    "board:strict": _strict,
    "board:total": lambda board, q, _: Told(sum(board.marks.get(name, 0) for name in q.args["names"])),
    "board:slow": _number,
    "board:timed": lambda board, q, _: Told([board.marks.get(q.args["name"], 0), True]),
    "board:variable": lambda board, q, _: Told(board.variables.get(q.args["name"])),
    "board:serial": lambda board, _, __: Told(board.serial),
}


def agrees(told: Told, expected: Told) -> bool:
    """Whether a client was told what it must be told."""
    if told.failed != expected.failed:
        return False
    if not told.failed:
        return told.value == expected.value
    return told.data == expected.data and expected.value in told.value


class History:
    """All changes in their order, the states between them, and what is known of when they were made."""

    def __init__(self) -> None:
        self._boards: dict[int, Board] = {0: Board()}
        self._newest = Board()
        self.changes: dict[int, tuple[Sequence[Change], str | None]] = {}
        self.at: dict[int, int] = {}
        """The timestamps of those whose first answer has come."""
        self.not_after: dict[int, int] = {}
        """For others: a timestamp that is not before theirs."""

    def made(
        self, serial: int, changes: Sequence[Change], subject: str | None, ts: int | None, *, exact: bool = True
    ) -> None:
        """This was acknowledged."""
        assert serial not in self.changes, f"two mutations are change number {serial}: {changes}"
        self.changes[serial] = changes, subject
        if ts is not None:
            (self.at if exact else self.not_after)[serial] = ts

    def missing(self) -> list[int]:
        """The numbers of changes that nobody was told of, as far as it can be seen."""
        return [serial for serial in range(1, max(self.changes, default=0) + 1) if serial not in self.changes]

    def board(self, serial: int) -> Board:
        """The state after so many changes."""
        while self._newest.serial < serial:
            newest = self._newest = self._newest.copy()
            newest.apply(*self.changes[newest.serial + 1])
            self._boards[newest.serial] = newest
        return self._boards[serial]

    def candidates(self) -> Callable[[int], range]:
        """Gives for a timestamp how many changes there may have been by then."""
        known = sorted(self.at.items())
        for (_, earlier), (serial, later) in pairwise(known):
            assert earlier < later, f"change {serial} has a timestamp before that of the one before it"
        count = len(self.changes)

        def at(timestamp: int) -> range:
            low, high = 0, count
            for serial, ts in known:
                if ts <= timestamp:
                    low = serial
                else:
                    high = serial - 1
                    break
            low = max([low, *(serial for serial, ts in self.not_after.items() if ts <= timestamp)])
            return range(low, high + 1)

        return at
