"""A board with notes: one way to change it, and many ways to look at it."""

from __future__ import annotations

import threading
from typing import Any

from camber import ConvexError, MutationCtx, PaginationOptions, QueryCtx, field, mutation, query

from .schema import Marks, Notes, marks, notes, serials

SLOW_SECONDS = 0.03


@mutation
def change(ctx: MutationCtx, *, changes: list[Any], text: str = "") -> dict[str, Any]:
    """Do all of this at once; returns the number of the change, counted from 1, and who made it."""
    identity = ctx.auth.get_user_identity()
    who = None if identity is None else identity.subject
    for each in changes:
        _CHANGES[each["do"]](ctx, who, each)
    return {"serial": _next_serial(ctx), "who": who, "text": text}


@mutation
def fail(ctx: MutationCtx, *, changes: list[Any]) -> None:
    """Do all of this, and take it back."""
    change(ctx, changes=changes)
    raise ConvexError({"took": "back"})


@mutation
def nothing(ctx: MutationCtx) -> float:
    """Write nothing; returns how many changes there have been."""
    found = ctx.db.query(serials).first()
    return found["count"] if found else 0


@mutation
def long(ctx: MutationCtx, *, letters: float) -> str:
    """Write something, and return so many letters."""
    _next_serial(ctx)
    return "x" * int(letters)


@query
def room(ctx: QueryCtx, *, room: str) -> list[Any]:
    """All notes of a room."""
    return [_plain(note) for note in ctx.db.query(notes).with_index("by_room", room=room)]


@query
def between(ctx: QueryCtx, *, room: str, low: float, high: float) -> list[Any]:
    """The notes of a room from one place on and below another."""
    place = field("place")
    found = ctx.db.query(notes).with_index("by_room", field("room") == room, place >= low, place < high)
    return [_plain(note) for note in found]


@query
def last(ctx: QueryCtx, *, room: str) -> Any:
    """The note that hangs last in a room."""
    found = ctx.db.query(notes).with_index("by_room", room=room).order("desc").first()
    return None if found is None else _plain(found)


@query
def count(ctx: QueryCtx, *, room: str) -> float:
    """How many notes hang in a room."""
    return ctx.db.query(notes).with_index("by_room", room=room).count()


@query
def page(ctx: QueryCtx, *, room: str, pagination_opts: PaginationOptions) -> dict[str, Any]:
    """A room, page by page."""
    found = ctx.db.query(notes).with_index("by_room", room=room).paginate(pagination_opts)
    return {**found, "page": [_plain(note) for note in found["page"]]}


@query
def mine(ctx: QueryCtx) -> list[Any]:
    """The keys of the caller's notes."""
    identity = ctx.auth.get_user_identity()
    if identity is None:
        return ["nobody's"]
    return sorted(note["key"] for note in ctx.db.query(notes).with_index("by_owner", owner=identity.subject))


@query
def me(ctx: QueryCtx) -> dict[str, Any]:
    """Who asks."""
    identity = ctx.auth.get_user_identity()
    return {"subject": None if identity is None else identity.subject, "isOperator": ctx.auth.is_operator}


@query
def sometimes(ctx: QueryCtx, *, name: str) -> dict[str, Any]:
    """The number; and who asks, while it is odd."""
    value = _value(ctx, name)
    return {"value": value, **(me(ctx) if value % 2 else {})}


@query
def strict(ctx: QueryCtx, *, name: str) -> float:
    """The number. Fails where it is negative or above 20."""
    value = _value(ctx, name)
    if value < 0:
        raise ConvexError({"value": value})
    if value > 20:
        raise ValueError(f"{value} is too much")
    return value


@query
def total(ctx: QueryCtx, *, names: list[str]) -> float:
    """The sum of these."""
    return sum(_value(ctx, name) for name in names)


@query
def slow(ctx: QueryCtx, *, name: str) -> float:
    """The number, after a while."""
    value = _value(ctx, name)
    threading.Event().wait(SLOW_SECONDS)
    return value


@query
def timed(ctx: QueryCtx, *, name: str) -> list[Any]:
    """The number, of a run that looked at the clock."""
    return [_value(ctx, name), ctx.now > 0]


@query
def variable(ctx: QueryCtx, *, name: str) -> str | None:
    """What the environment says."""
    return ctx.env.get(name)


@query
def serial(ctx: QueryCtx) -> float:
    """How many changes there have been."""
    found = ctx.db.query(serials).first()
    return found["count"] if found else 0


def _put(ctx: MutationCtx, who: str | None, change: dict[str, Any]) -> None:
    found = _note(ctx, change["key"])
    fields = {name: change[name] for name in ("key", "room", "place", "text")} | {"owner": who}
    if found is None:
        ctx.db.insert(notes, fields)
    else:
        ctx.db.replace(notes, found["_id"], fields)


def _move(ctx: MutationCtx, who: str | None, change: dict[str, Any]) -> None:
    if found := _note(ctx, change["key"]):
        ctx.db.patch(notes, found["_id"], {"room": change["room"], "place": change["place"]})


def _drop(ctx: MutationCtx, who: str | None, change: dict[str, Any]) -> None:
    if found := _note(ctx, change["key"]):
        ctx.db.delete(notes, found["_id"])


def _add(ctx: MutationCtx, who: str | None, change: dict[str, Any]) -> None:
    found = _mark(ctx, change["name"])
    if found is None:
        ctx.db.insert(marks, {"name": change["name"], "value": change["by"]})
    else:
        ctx.db.patch(marks, found["_id"], {"value": found["value"] + change["by"]})


def _set(ctx: MutationCtx, who: str | None, change: dict[str, Any]) -> None:
    update = {"changes": [{"name": change["name"], "value": change["value"]}]}
    ctx.run_mutation("_system/camber/environment:update", update)


_CHANGES = {"put": _put, "move": _move, "drop": _drop, "add": _add, "set": _set}


def _next_serial(ctx: MutationCtx) -> float:
    found = ctx.db.query(serials).first()
    if found is None:
        ctx.db.insert(serials, {"count": 1})
        return 1
    ctx.db.patch(serials, found["_id"], {"count": found["count"] + 1})
    return found["count"] + 1


def _note(ctx: QueryCtx, key: str) -> Notes | None:
    return ctx.db.query(notes).with_index("by_key", key=key).unique()


def _mark(ctx: QueryCtx, name: str) -> Marks | None:
    return ctx.db.query(marks).with_index("by_name", name=name).unique()


def _value(ctx: QueryCtx, name: str) -> float:
    found = _mark(ctx, name)
    return found["value"] if found else 0


def _plain(note: Notes) -> list[Any]:
    return [note["key"], note["place"], note["text"], note["owner"]]
