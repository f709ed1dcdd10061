"""Adding to numbers, watching them, and waiting."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from camber import ActionCtx, MutationCtx, QueryCtx, action, mutation, query

from .schema import Counter, counters


@query
def get(ctx: QueryCtx, *, name: str) -> float:
    """The number under this name."""
    return found["value"] if (found := _find(ctx, name)) else 0


@mutation
def add(ctx: MutationCtx, *, name: str) -> float:
    """Add one; returns the sum."""
    found = _find(ctx, name)
    if found is None:
        ctx.db.insert(counters, {"name": name, "value": 1})
        return 1
    ctx.db.patch(counters, found["_id"], {"value": found["value"] + 1})
    return found["value"] + 1


@mutation
def address(ctx: MutationCtx) -> str | None:
    """Whose call this is, as rate limits see it."""
    return ctx.client_address


@action
async def wait(ctx: ActionCtx, *, folder: str) -> float:
    """Leave a file there, and wait for one called `finish`; returns the number of the process that did."""
    _leave(folder, f"{os.getpid()}.{uuid4()}")
    while not _has(folder, "finish"):  # noqa: ASYNC110  the test sets no event of this process
        await asyncio.sleep(0.02)
    return float(os.getpid())


def _leave(folder: str, name: str) -> None:
    Path(folder, name).touch()


def _has(folder: str, name: str) -> bool:
    return Path(folder, name).exists()


def _find(ctx: QueryCtx, name: str) -> Counter | None:
    return ctx.db.query(counters).with_index("by_name", name=name).unique()
