"""Random transactions for tests/serializability/app, and what their clients are told as a history to be judged."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.serializability.history import (
    Append,
    Event,
    Outcome,
    Read,
    ReadList,
    Scan,
    Transaction,
    Value,
    Write,
)

Step = dict[str, Any]

ACCOUNTS = [f"accounts:{number}" for number in range(5)]
OPENING_BALANCE = 100
LISTS, REGISTERS = 3, 6
TRANSACTIONS_OF_AN_EPOCH = 120
"""After so many transactions others keys are used: otherwise lists would grow long, and nothing would be new."""


class When(NamedTuple):
    """Who did something, when it began and ended by the clock of the test, and at which timestamp, as far as it is known."""

    process: str
    began: float | None = None
    ended: float | None = None
    timestamp: int | None = None


class Workload:
    """Gives out steps to take, and keeps what became of them."""

    def __init__(self, random: Random) -> None:
        self.history: list[Transaction] = []
        self.faults: list[str] = []
        """What is wrong by itself, whatever else was done."""
        self._random = random
        self._asked = 0
        self._tags = itertools.count(1)
        self._gifts: dict[str, float] = {}
        """What each version adds to the one that it replaces."""
        self._versions: dict[str, tuple[float, str | None]] = {}
        """What was read: the number of a version, and the tag of the one before it."""

    # --- What to ask for

    @property
    def epochs(self) -> int:
        """How many sets of keys there have been."""
        return self._asked // TRANSACTIONS_OF_AN_EPOCH + 1

    def opening(self) -> list[Step]:
        """The steps that come first."""
        return [self._giving("insert", key, OPENING_BALANCE) for key in ACCOUNTS]

    def everything(self, epoch: int) -> list[Step]:
        """Steps that read all there is of an epoch, and the accounts."""
        looks = [{"do": "list", "key": f"{_group(epoch)}:list {number}"} for number in range(LISTS)]
        return [*looks, {"do": "keys", "low": f"{_group(epoch)}:", "high": f"{_group(epoch)};"}, _audit()]

    def changes(self) -> list[Step]:
        """Some steps of one mutation. It writes a register once at most, so that all its versions can be seen."""
        self._asked += 1
        random, steps = self._random, list[Step]()
        free = {key for epoch in self._some_epochs() for key in _registers(epoch)} | set(ACCOUNTS)
        for _ in range(random.choice([1, 1, 2, 2, 3, 5])):
            kind = random.choices(["append", "add", "renew", "insert", "transfer", "look"], [5, 3, 1, 2, 2, 6])[0]
            step = self._change(kind, free)
            steps.append(step)
            free -= {step.get("key"), step.get("from"), step.get("to")} if kind not in ("append", "look") else set()
        if random.random() < 0.05:
            inner = [self._change(kind, set(free)) for kind in random.choices(["append", "add", "renew"], k=2)]
            steps.append({"do": "undone", "steps": inner})
        random.shuffle(steps)
        return steps

    def looks(self) -> list[Step]:
        """Some steps that only read."""
        self._asked += 1
        return [self._look() for _ in range(self._random.choice([1, 2, 2, 3, 4]))]

    def _change(self, kind: str, free: set[str]) -> Step:
        random = self._random
        accounts = [key for key in sorted(free) if key in ACCOUNTS]
        registers = [key for key in sorted(free) if key not in ACCOUNTS]
        if kind == "append":
            return {"do": "append", "key": self._some_list(), "tag": self._tag()}
        if kind == "transfer" and len(accounts) > 1:
            source, target = random.sample(accounts, 2)
            return self._transferring(source, target, random.randrange(1, 60))
        if kind in ("add", "renew", "insert") and registers:
            return self._giving(kind, random.choice(registers), random.randrange(1, 5))
        return self._look()

    def _transferring(self, source: str, target: str, amount: int) -> Step:
        tag = self._tag()
        self._gifts |= {f"{tag} from": -amount, f"{tag} to": amount}
        return {"do": "transfer", "from": source, "to": target, "tag": tag, "amount": amount}

    def _giving(self, kind: str, key: str, number: float) -> Step:
        tag = self._tag()
        self._gifts[tag] = number
        return {"do": kind, "key": key, "tag": tag, "number": number}

    def _look(self) -> Step:
        random = self._random
        group = _group(random.choice(self._some_epochs()))
        match random.choices(["list", "read", "keys", "least", "audit"], [5, 4, 2, 2, 1])[0]:
            case "list":
                return {"do": "list", "key": self._some_list()}
            case "read":
                return {"do": "read", "key": f"{group}:{random.randrange(REGISTERS)}"}
            case "keys":
                low = random.randrange(REGISTERS)
                return {"do": "keys", "low": f"{group}:{low}", "high": f"{group}:{low + random.randrange(1, 5)}"}
            case "least":
                return {"do": "least", "group": group, "number": random.randrange(40)}
            case _:
                return _audit()

    def _some_epochs(self) -> list[int]:
        """The present one, and the last one, for who comes late."""
        return [self.epochs - 1, max(self.epochs - 2, 0)]

    def _some_list(self) -> str:
        epoch = self._random.choice([self.epochs - 1, self.epochs - 1, max(self.epochs - 2, 0)])
        return f"{_group(epoch)}:list {self._random.randrange(LISTS)}"

    def _tag(self) -> str:
        return f"v{next(self._tags)}"

    # --- What became of it

    def done(self, steps: Sequence[Step], results: Sequence[Any], when: When) -> None:
        """These steps were taken, and read this."""
        assert len(steps) == len(results), (steps, results)
        name, events = self._next_name(when), list[Event]()
        for step, result in zip(steps, results, strict=True):
            if step["do"] == "undone":
                self._add(
                    f"{name}, what it took back,", self._possible(step["steps"]), Outcome.REFUSED, When(when.process)
                )
            else:
                events += self._events(step, result)
        self._add(name, events, Outcome.DONE, when)

    def refused(self, steps: Sequence[Step], when: When) -> None:
        """These steps must not have had any effect."""
        self._add(self._next_name(when), self._possible(steps), Outcome.REFUSED, when)

    def unknown(self, steps: Sequence[Step], when: When) -> None:
        """These steps may have been taken, or will be; together or not at all."""
        name = self._next_name(when)
        for step in steps:
            if step["do"] == "undone":
                self._add(
                    f"{name}, what it takes back,", self._possible(step["steps"]), Outcome.REFUSED, When(when.process)
                )
        rest = [step for step in steps if step["do"] != "undone"]
        self._add(name, self._possible(rest), Outcome.UNKNOWN, When(when.process, when.began))

    def check_numbers(self) -> list[str]:
        """Versions whose number is not that of the one before and what was added to it."""
        wrong = list(self.faults)
        for tag, (number, previous) in self._versions.items():
            before = 0.0 if previous is None else self._versions.get(previous, (None,))[0]
            if before is not None and number != before + self._gifts[tag]:
                wrong.append(f"{tag} is {number}: {self._gifts[tag]} was added to {before}")
        return wrong

    def _next_name(self, when: When) -> str:
        return f"T{len(self.history)} of {when.process}"

    def _add(self, name: str, events: Sequence[Event], outcome: Outcome, when: When) -> None:
        self.history.append(Transaction(name, events, outcome, when.process, when.began, when.ended, when.timestamp))

    def _events(self, step: Step, result: Any) -> list[Event]:
        match step["do"]:
            case "append":
                return [Append(step["key"], step["tag"])]
            case "list":
                return [ReadList(step["key"], tuple(result))]
            case "read":
                return [self._read(step["key"], result)]
            case "add" | "renew":
                return [self._read(step["key"], result), Write(step["key"], self._made(step["tag"], result))]
            case "insert":
                wrote = [Write(step["key"], self._made(step["tag"], None))] if result is None else []
                return [self._read(step["key"], result), *wrote]
            case "transfer":
                return self._transferred(step, *result)
            case _:
                return self._scanned(step, result)

    def _transferred(self, step: Step, source: Any, target: Any) -> list[Event]:
        events: list[Event] = [self._read(step["from"], source), self._read(step["to"], target)]
        if source and target and source[0] >= step["amount"]:
            events.append(Write(step["from"], self._made(f"{step['tag']} from", source)))
            events.append(Write(step["to"], self._made(f"{step['tag']} to", target)))
        return events

    def _scanned(self, step: Step, result: Sequence[tuple[str, Any]]) -> list[Event]:
        reads = [self._read(key, version) for key, version in result]
        found = {key: read.value for key, read in zip((key for key, _ in result), reads, strict=True)}
        if step == _audit() and (total := sum(version[0] for _, version in result)) not in (0, 5 * OPENING_BALANCE):
            self.faults.append(f"the balances {result} sum up to {total}")
        if step["do"] == "keys":
            return [Scan(step["low"], step["high"], found), *reads]

        def covers(tag: Value) -> bool:
            return tag in self._versions and self._versions[tag][0] >= step["number"]  # pyright: ignore[reportArgumentType]

        return [Scan(f"{step['group']}:", f"{step['group']};", found, covers), *reads]

    def _read(self, key: str, version: Any) -> Read:
        if version is None:
            return Read(key, None)
        number, tag, previous = version
        self._note(tag, number, previous)
        return Read(key, tag, after=previous)

    def _made(self, tag: str, old: Any) -> str:
        """The version that a step has made of the one that it read."""
        number, previous = (old[0], old[1]) if old else (0.0, None)
        self._note(tag, number + self._gifts[tag], previous)
        return tag

    def _note(self, tag: str, number: float, previous: str | None) -> None:
        known = self._versions.setdefault(tag, (number, previous))
        if known != (number, previous):
            self.faults.append(f"{tag} is {known} for one and {(number, previous)} for another")

    def _possible(self, steps: Sequence[Mapping[str, Any]]) -> list[Event]:
        """What steps write whose results nobody knows."""
        events: list[Event] = []
        for choice, step in enumerate(steps, 1):
            match step["do"]:
                case "append":
                    events.append(Append(step["key"], step["tag"]))
                case "add" | "renew":
                    events.append(Write(step["key"], step["tag"]))
                case "insert":
                    events.append(Write(step["key"], step["tag"], choice))
                case "transfer":
                    events.append(Write(step["from"], f"{step['tag']} from", choice))
                    events.append(Write(step["to"], f"{step['tag']} to", choice))
                case "undone":
                    events += self._possible(step["steps"])
                case _:
                    pass
        return events


def _group(epoch: int) -> str:
    return f"epoch {epoch}"


def _registers(epoch: int) -> list[str]:
    return [f"{_group(epoch)}:{number}" for number in range(REGISTERS)]


def _audit() -> Step:
    return {"do": "keys", "low": "accounts:", "high": "accounts;"}


__all__ = ["Step", "When", "Workload"]
