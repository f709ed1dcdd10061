"""Noticing that an application's source changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SKIPPED: Final = frozenset({"__pycache__", "node_modules"})
_LOOK_AGAIN_MS: Final = 1_000
_SETTLE_SECONDS: Final = 0.05

Stamps = dict[Path, tuple[int, int, int]]


class SourceWatch:
    """Compares the Python files below a folder with how they were when they were last looked at.

    The system's notifications only say when to compare, so none that is lost or late does harm; the folder may go and come back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: Stamps = {}
        self.look()

    def look(self) -> None:
        """From now on, only what changes later counts. To be called before the files are read."""
        self._seen = _stamps(self._folder)

    async def changed(self) -> list[Path]:
        """Wait until files differ from the last look, and have come to rest; returns which, and looks."""
        while True:
            now = _stamps(self._folder)
            if now != self._seen:
                now = await self._at_rest(now)
                differing = sorted(
                    path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path)
                )
                self._seen = now
                if differing:
                    return differing
            await self._next_hint()

    async def _at_rest(self, now: Stamps) -> Stamps:
        """The files once nothing happened to them for a moment: an editor or a checkout writes several, one after the other."""
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            if (later := _stamps(self._folder)) == now:
                return now
            now = later

    async def _next_hint(self) -> None:
        """Return when something may have changed, after a second at the latest."""
        from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]  its stop_event may be trio's

        try:
            hints = awatch(self._folder, yield_on_timeout=True, rust_timeout=_LOOK_AGAIN_MS, step=20, debounce=200)
            try:
                await anext(hints)
            finally:
                await hints.aclose()
        except OSError:
            # The folder is gone, or the system can't watch any more of them.
            await asyncio.sleep(_LOOK_AGAIN_MS / 2_000)


def _stamps(folder: Path) -> Stamps:
    stamps: Stamps = {}
    for file in _sources(folder):
        try:
            found = file.stat()
        except OSError:
            continue
        stamps[file] = (found.st_mtime_ns, found.st_size, found.st_ino)
    return stamps


def _sources(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
        yield from (Path(place) / name for name in files if name.endswith(".py"))
