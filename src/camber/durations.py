"""Spans of time as milliseconds, the unit of every time in Camber."""

from __future__ import annotations


def seconds(count: float, /) -> float:
    """So many seconds in milliseconds."""
    return count * 1000.0


def minutes(count: float, /) -> float:
    """So many minutes in milliseconds."""
    return count * 60_000.0


def hours(count: float, /) -> float:
    """So many hours in milliseconds."""
    return count * 3_600_000.0


def days(count: float, /) -> float:
    """So many days, of 24 hours, in milliseconds."""
    return count * 86_400_000.0
