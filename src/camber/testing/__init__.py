"""The test kit: a backend in memory with a held clock, and people who call its functions."""

from camber.clock import HeldClock
from camber.testing.kit import Backend, Person, ReadCounter

__all__ = ["Backend", "HeldClock", "Person", "ReadCounter"]
