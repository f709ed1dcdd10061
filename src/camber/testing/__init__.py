"""The test kit: a backend in memory with a held clock, and people who call its functions.

What is named here is loaded when it is asked for: pytest imports the plugin in every project that has Camber installed.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from camber.clock import HeldClock
    from camber.testing.kit import Backend, Person, ReadCounter
    from camber.testing.watching import WatchedQuery

__all__ = ["Backend", "HeldClock", "Person", "ReadCounter", "WatchedQuery"]

_ELSEWHERE = {"HeldClock": "camber.clock", "WatchedQuery": "camber.testing.watching"}

if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _ELSEWHERE.get(name, "camber.testing.kit")
        found = globals()[name] = getattr(importlib.import_module(module), name)
        return found
