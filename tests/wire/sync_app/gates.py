"""Functions that wait at a gate until the test opens it (tests/wire/gate.py)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from camber import ActionCtx, MutationCtx, action, mutation

from .counters import add


@mutation
def add_at(ctx: MutationCtx, *, gate: str, name: str, by: float) -> float:
    """Add to the number, and wait, after writing."""
    value = add(ctx, name=name, by=by)
    while not _opens(gate):
        threading.Event().wait(0.01)
    return value


@action
async def wait_at(ctx: ActionCtx, *, gate: str) -> None:
    """Do nothing else."""
    while not _opens(gate):  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0.01)


def _opens(gate: str) -> bool:
    Path(gate, "reached").touch()
    return Path(gate, "open").exists()
