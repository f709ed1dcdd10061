"""What was written, what its writer was told of it, and whether what is there agrees with that."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tests.crashes.ledger import End

ACCOUNTS = [f"account {number}" for number in range(5)]
BENCHES = [f"bench {number}" for number in range(3)]

Key = tuple[str, int]


@dataclass(eq=False)
class Write:
    """One call of `ledger:write`. `end` is None while nobody has been told how it ended.

    `is_there` is what was found out after a fault: from then on it is so. `at` is the timestamp with which it was acknowledged first.
    """

    writer: str
    number: int
    source: str
    target: str
    amount: int
    bench: str
    side: str
    refuse: bool
    swap: bool
    end: End | None = None
    reason: str = ""
    is_there: bool | None = None
    at: int | None = None

    @property
    def key(self) -> Key:
        return self.writer, self.number

    @property
    def args(self) -> dict[str, Any]:
        return {
            "writer": self.writer,
            "number": self.number,
            "source": self.source,
            "target": self.target,
            "amount": self.amount,
            "bench": self.bench,
            "side": self.side,
            "refuse": self.refuse,
            "swap": self.swap,
        }

    @property
    def entry(self) -> list[Any]:
        return [self.writer, self.number, self.source, self.target, self.amount]

    def may_be_there(self, is_there: bool) -> bool:
        """Whether that would agree with what is known of it."""
        if self.is_there is not None:
            return self.is_there == is_there
        if self.refuse or self.end == "refused":
            return not is_there
        return is_there or self.end != "done"


class State(NamedTuple):
    """All that is in the ledger at one moment: entries, what each account stands at, how many entries each writer has, who sits.

    `lasts`: of each account the last write that handed something over from it (writer, number, the how manieth). `badges`: holder,
    badge, how often it changed hands.
    """

    entries: Sequence[Sequence[Any]]
    balances: Mapping[str, float]
    tallies: Mapping[str, float]
    taken: Sequence[str]
    lasts: Mapping[str, Sequence[Any]]
    badges: Sequence[Sequence[Any]]


@dataclass
class Ledger:
    """All writes of all writers. Safe for several threads."""

    writes: dict[str, list[Write]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    is_silent: bool = False
    """Whether PostgreSQL falls silent for longer than a function may wait for it: then it is refused (protocol 3.11)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def may_be_for_silence(self, refusal: str) -> bool:
        """Whether this says that a function has waited for the database for too long, and it may have."""
        return self.is_silent and "Your request timed out performing too many system operations." in refusal

    def new_write(self, writer: str, random: Random) -> Write:
        """The next one of this writer; now and then one that the function takes back."""
        source, target = random.sample(ACCOUNTS, 2)
        with self._lock:
            known = self.writes.setdefault(writer, [])
            amount, bench, side = random.randrange(1, 100), random.choice(BENCHES), random.choice(["left", "right"])
            refuse, swap = random.random() < 0.1, random.random() < 0.5
            write = Write(writer, len(known), source, target, amount, bench, side, refuse, swap)
            known.append(write)
        return write

    def acknowledged(self, writer: str) -> set[int]:
        """The numbers of its writes that were acknowledged so far."""
        writes = [*self.writes.get(writer, [])]
        return {write.number for write in writes if write.end == "done" and write.is_there is not False}

    def expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def check_numbers(self, writer: str, numbers: Iterable[float], must: Iterable[int], where: str) -> None:
        """A query of a writer's numbers has these: no other ones than can be there, all of `must`, and none twice."""
        counted = Counter(int(number) for number in numbers)
        known = self.writes.get(writer, [])
        twice = [number for number, count in counted.items() if count > 1]
        self.expect(not twice, f"{where}: {writer} has {twice} more than once")
        lost = sorted(set(must) - counted.keys())
        self.expect(not lost, f"{where}: {lost} of {writer} were acknowledged and are not there")
        false = [number for number in counted if number >= len(known) or not known[number].may_be_there(True)]
        self.expect(not false, f"{where}: {false} of {writer} can't be there")

    def check_seats(self, taken: Sequence[str], where: str) -> None:
        """Of no bench both seats are taken."""
        both = [bench for bench in BENCHES if {f"{bench} left", f"{bench} right"} <= {*taken}]
        self.expect(not both, f"{where}: both seats of {both} are taken")

    def _check_handed_over(self, state: State, there: Sequence[Write]) -> None:
        """Of these writes, which are those that are there and handed something over; in which order is not known."""
        of_account = Counter(write.source for write in there)
        counts = {account: count for account, (_, _, count) in state.lasts.items()}
        self.expect(counts == of_account, f"{counts} were handed over, not {dict(of_account)}")
        sources = {write.key: write.source for write in there}
        for account, (writer, number, _) in state.lasts.items():
            self.expect(sources.get((writer, int(number))) == account, f"{writer} {number} did not hand over {account}")
        badge_of = {holder: badge for holder, badge, _ in state.badges}
        one_each = len(badge_of) == len(state.badges) and sorted(badge_of) == sorted(badge_of.values())
        self.expect(one_each, f"not everybody holds one badge: {state.badges}")
        swaps = sum(count for _, _, count in state.badges)
        self.expect(swaps == 2 * len(there), f"{swaps} badges changed hands, not {2 * len(there)}")
        if one_each:  # each swap makes an even order odd, and an odd one even
            self.expect(_is_odd(badge_of) == (len(there) % 2 == 1), f"{len(there)} swaps can't come to {badge_of}")

    def find(self, state: State) -> None:
        """This is there after a fault, and nothing is under way. What was not known of any write is known now."""
        there = {(str(entry[0]), int(entry[1])): list(entry) for entry in state.entries}
        twice = len(state.entries) - len(there)
        self.expect(twice == 0, f"{twice} writes took effect twice")
        balances: Counter[str] = Counter(dict.fromkeys(state.balances, 0))
        tallies: Counter[str] = Counter()
        for write in self._all():
            entry = there.pop(write.key, None)
            if not write.may_be_there(entry is not None):
                what = "is there" if entry else "is lost"
                self.faults.append(f"{write.key} {what}: it was {write.end} ({write.reason}), before {write.is_there}")
            write.is_there = entry is not None
            if entry is not None:
                self.expect(entry == write.entry, f"{entry} is there, {write.entry} was written")
                balances[write.source] -= write.amount
                balances[write.target] += write.amount
                tallies[write.writer] += 1
        self.expect(not there, f"nobody wrote {list(there)}")
        self.expect(dict(state.balances) == balances, f"accounts stand at {state.balances}, not {dict(balances)}")
        self.check_seats(state.taken, "in the end")
        self._check_handed_over(state, [write for write in self._all() if write.is_there and write.swap])
        self.expect(dict(state.tallies) == tallies, f"{state.tallies} entries are counted, not {dict(tallies)}")

    def ended(self) -> list[Write]:
        """Those of which somebody was told how they ended."""
        return [write for write in self._all() if write.end is not None]

    def set_back(self, ended: Iterable[Write], state: State) -> None:
        """An older state was put back: of what had `ended` before it was seen, only what is in it is there."""
        there = {(str(entry[0]), int(entry[1])) for entry in state.entries}
        for write in ended:
            write.at = None
            write.is_there = write.key in there

    def summary(self) -> str:
        """How many writes ended how."""
        writes = self._all()
        ends = Counter(str(write.end) for write in writes)
        there = sum(write.is_there is True for write in writes if write.end not in {"done", "refused"})
        reasons = Counter(write.reason[:60] for write in writes if write.reason and not write.refuse)
        return f"{dict(ends)}, of the unknown ones {there} are there; reasons: {dict(reasons)}"

    def _all(self) -> list[Write]:
        return [write for writes in self.writes.values() for write in writes]


def _is_odd(permutation: Mapping[str, str]) -> bool:
    """Whether an odd number of swaps leads to it."""
    left, swaps = set(permutation), 0
    while left:
        start = at = left.pop()
        while (at := permutation[at]) != start:
            left.remove(at)
            swaps += 1
    return swaps % 2 == 1
