"""Rate limits kept in the database: their counts belong to the transaction that uses them, but outlive its failure.

An attempt counts also when the function raises afterwards, or a sub-transaction around it is rolled back: otherwise a refused
guess would cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from camber.database.transaction import Transaction
from camber.errors import ConfigurationError, DatabaseUsageError

MAX_KEY_CHARACTERS = 512


class RateLimitStatus(NamedTuple):
    """Whether the attempt is within the limit; if not, in how many milliseconds one would be."""

    ok: bool
    retry_after: float


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rule: at most `capacity` at once, replenished all at once each `period` ms, or steadily at `rate` per `period` ms."""

    name: str
    capacity: float
    period: float
    rate: float | None = None

    def __post_init__(self) -> None:
        amounts = (self.capacity, self.period, 1.0 if self.rate is None else self.rate)
        if not all(map(math.isfinite, amounts)) or self.capacity < 1 or min(amounts) <= 0:
            raise ConfigurationError(
                f'The rate limit "{self.name}" never lets anything through: its amounts and period must be positive.'
            )


def fixed_window(name: str, amount: int, *, per: float) -> RateLimit:
    """At most `amount` in each window of `per` milliseconds; the window begins with its first attempt."""
    return RateLimit(name, amount, per)


def token_bucket(name: str, *, rate: float, per: float, capacity: float) -> RateLimit:
    """A bucket of `capacity` tokens that gains `rate` tokens per `per` milliseconds; an attempt takes one."""
    return RateLimit(name, capacity, per, rate)


@dataclass(frozen=True, slots=True)
class RateLimitAttempt:
    """One attempt under a rule, for one key (a user, an address, …)."""

    rule: RateLimit
    key: str

    def count(self, transaction: Transaction) -> RateLimitStatus:
        """Count the attempt if it is within the limit; one that is not changes nothing."""
        if len(self.key) > MAX_KEY_CHARACTERS:
            raise DatabaseUsageError(
                f'The key of rate limit "{self.rule.name}" is longer than {MAX_KEY_CHARACTERS} characters.'
            )
        table = transaction.catalog.by_name["_rate_limits"]
        current = transaction.find_one(table, table.index("by_rule_key"), (self.rule.name, self.key))
        now = transaction.now_ms
        used, since = _used(self.rule, current, now)
        transaction.attempts.append(self)
        if used + 1 > self.rule.capacity:
            return RateLimitStatus(False, _wait(self.rule, used, since, now))
        fields = {
            "rule": self.rule.name,
            "key": self.key,
            "used": used + 1,
            "since": since,
            "expires": _expires(self.rule, used + 1, since),
        }
        transaction.keep(table, current, fields)
        return RateLimitStatus(True, 0.0)


def _used(rule: RateLimit, current: dict[str, float] | None, now: float) -> tuple[float, float]:
    """How much of the capacity is used now, and since when that is counted. A clock that went back ends no window early."""
    if current is None:
        return 0.0, now
    used, since = current["used"], current["since"]
    if rule.rate is not None:
        gained = max(0.0, now - since) / rule.period * rule.rate
        return max(0.0, used - gained), max(now, since)
    return (used, since) if now < since + rule.period else (0.0, now)


def _wait(rule: RateLimit, used: float, since: float, now: float) -> float:
    if rule.rate is not None:
        return (used + 1 - rule.capacity) / rule.rate * rule.period
    return since + rule.period - now


def _expires(rule: RateLimit, used: float, since: float) -> float:
    return since + (rule.period if rule.rate is None else math.ceil(used / rule.rate * rule.period))
