"""A gate at which functions wait that tell when they are there: what they hold up lasts as long as a test wants."""

from __future__ import annotations

import time
from pathlib import Path

SECONDS = 60.0
"""How long it may take until somebody is there."""


class Gate:
    """The test's side: a folder in which the function makes `reached`, and waits for `open` (tests/wire/sync_app/gates.py)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    @property
    def path(self) -> str:
        """What functions are told."""
        return str(self._folder)

    def wait_until_reached(self) -> None:
        """Return once a function waits there."""
        deadline = time.monotonic() + SECONDS
        while not (self._folder / "reached").exists():
            assert time.monotonic() < deadline, "nobody came to the gate"
            time.sleep(0.01)

    def open(self) -> None:
        """Let it, and all who come later, go on."""
        (self._folder / "open").touch()
