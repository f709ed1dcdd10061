"""Transactions of small steps that the caller chooses; each tells what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camber import ConvexError, MutationCtx, QueryCtx, field, internal_mutation, mutation, query

from .schema import accounts, lists, registers

ACCOUNTS = "accounts"


@query
def look(ctx: QueryCtx, *, steps: list[Any]) -> list[Any]:
    """Take these steps, which only read; returns what each has read."""
    return [_LOOKS[step["do"]](ctx, step) for step in steps]


@mutation
def run(ctx: MutationCtx, *, steps: list[Any]) -> list[Any]:
    """Take these steps; returns what each has read."""
    return _run(ctx, steps)


@mutation
def fail(ctx: MutationCtx, *, steps: list[Any]) -> None:
    """Take these steps, and take them back."""
    _run(ctx, steps)
    raise ConvexError({"took": "back"})


@internal_mutation
def fail_inside(ctx: MutationCtx, *, steps: list[Any]) -> None:
    """The same, for a transaction that goes on."""
    fail(ctx, steps=steps)


def _run(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    return [
        _LOOKS[step["do"]](ctx, step) if step["do"] in _LOOKS else _CHANGES[step["do"]](ctx, step) for step in steps
    ]


# --- Reading


def _list(ctx: QueryCtx, step: Mapping[str, Any]) -> list[str]:
    found = ctx.db.query(lists).with_index("by_key", key=step["key"]).unique()
    return found["elements"] if found else []


def _read(ctx: QueryCtx, step: Mapping[str, Any]) -> list[Any] | None:
    return _version(_register(ctx, step["key"]))


def _keys(ctx: QueryCtx, step: Mapping[str, Any]) -> list[Any]:
    found = ctx.db.query(_table(step["low"])).with_index(
        "by_key", field("key") >= step["low"], field("key") < step["high"]
    )
    return [[each["key"], _version(each)] for each in found]


def _least(ctx: QueryCtx, step: Mapping[str, Any]) -> list[Any]:
    group, least = field("group") == step["group"], field("number") >= step["number"]
    found = ctx.db.query(registers).with_index("by_number", group, least)
    return [[each["key"], _version(each)] for each in found]


_LOOKS = {"list": _list, "read": _read, "keys": _keys, "least": _least}


# --- Writing


def _append(ctx: MutationCtx, step: Mapping[str, Any]) -> None:
    found = ctx.db.query(lists).with_index("by_key", key=step["key"]).unique()
    if found is None:
        ctx.db.insert(lists, {"key": step["key"], "elements": [step["tag"]]})
    else:
        ctx.db.patch(lists, found["_id"], {"elements": [*found["elements"], step["tag"]]})


def _add(ctx: MutationCtx, step: Mapping[str, Any]) -> list[Any] | None:
    return _give(ctx, step["key"], step["number"], step["tag"])


def _renew(ctx: MutationCtx, step: Mapping[str, Any]) -> list[Any] | None:
    """Add to a register by putting another document in place of it."""
    found = _register(ctx, step["key"])
    if found is not None:
        ctx.db.delete(found["_id"])
    _insert_version(ctx, step["key"], step["number"], step["tag"], found)
    return _version(found)


def _insert(ctx: MutationCtx, step: Mapping[str, Any]) -> list[Any] | None:
    """Make the register; where the index says that there is one, tell what is in it."""
    try:
        _insert_version(ctx, step["key"], step["number"], step["tag"], None)
    except ConvexError:
        return _version(_register(ctx, step["key"]))
    return None


def _transfer(ctx: MutationCtx, step: Mapping[str, Any]) -> list[Any]:
    """Move an amount from one account to another, if there is so much."""
    seen = [_read(ctx, {"key": step[end]}) for end in ("from", "to")]
    if all(seen) and (seen[0] or [0])[0] >= step["amount"]:
        _give(ctx, step["from"], -step["amount"], f"{step['tag']} from")
        _give(ctx, step["to"], step["amount"], f"{step['tag']} to")
    return seen


def _undone(ctx: MutationCtx, step: Mapping[str, Any]) -> None:
    """Take steps that are taken back, while the transaction goes on."""
    try:
        ctx.run_mutation(fail_inside, steps=step["steps"])
    except ConvexError:
        return
    raise AssertionError("what fails must raise")


_CHANGES = {
    "append": _append,
    "add": _add,
    "renew": _renew,
    "insert": _insert,
    "transfer": _transfer,
    "undone": _undone,
}


def _give(ctx: MutationCtx, key: str, number: float, tag: str) -> list[Any] | None:
    found = _register(ctx, key)
    if found is None:
        _insert_version(ctx, key, number, tag, None)
    else:
        ctx.db.patch(found["_id"], {"number": found["number"] + number, "tag": tag, "previous": found["tag"]})
    return _version(found)


def _insert_version(ctx: MutationCtx, key: str, number: float, tag: str, old: Mapping[str, Any] | None) -> None:
    before, previous = (old["number"], old["tag"]) if old else (0, None)
    fields = {"key": key, "group": key.partition(":")[0], "number": before + number, "tag": tag, "previous": previous}
    ctx.db.insert(_table(key), fields)


def _register(ctx: QueryCtx, key: str) -> Mapping[str, Any] | None:
    return ctx.db.query(_table(key)).with_index("by_key", key=key).unique()


def _version(found: Mapping[str, Any] | None) -> list[Any] | None:
    return None if found is None else [found["number"], found["tag"], found["previous"]]


def _table(key: str) -> Any:
    return accounts if key.startswith(ACCOUNTS) else registers
