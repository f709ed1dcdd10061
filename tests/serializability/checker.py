"""Judges histories: could these transactions, with what they read, have run one after another, in an order that time allows?

The way is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020). What was read
tells in which order versions replaced each other; from that follows which transaction must come before which: because it wrote what
the other replaced (ww) or read (wr), or read what the other replaced (rw). Where these arrows, with those of sessions, of time and
of commit timestamps, go in a circle, no such order exists. Where they don't, all transactions are played again in plain Python in an
order that follows the arrows, and every read must come out as it was.

Lists grow at their end: one read shows the order of all versions before it. A register's versions are in order as far as its writers
read it before, or readers are told what a version replaced. Every value is written once, and nothing is deleted.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.serializability.graph import Edge, Graph, Kind
from tests.serializability.history import (
    UNTOLD,
    Append,
    Outcome,
    Read,
    ReadList,
    Scan,
    Transaction,
    Value,
    Write,
    everything,
)


class Anomaly(NamedTuple):
    """Something that no serial order explains."""

    name: str
    transactions: tuple[str, ...]
    story: str

    def __str__(self) -> str:
        return f"{self.name}: {self.story}"


def check(history: Sequence[Transaction]) -> list[Anomaly]:
    """All that is wrong with a history. Raises ValueError for one that can't be judged, since it writes a value twice."""
    collects = gc.isenabled()
    gc.disable()  # so many small tuples, and no circles among them: collecting would take as long as all the rest
    try:
        return _check(history)
    finally:
        if collects:
            gc.enable()


def _check(history: Sequence[Transaction]) -> list[Anomaly]:
    evidence = _Evidence(history)
    found = [*evidence.anomalies, *_lost_updates(evidence), *_shared_timestamps(evidence.committed)]
    graph = _graph(evidence)
    found += _circles(evidence, graph)
    return found or list(_replayed(evidence, graph))


# --- What each transaction says by itself


@dataclass(eq=False, slots=True)
class _Facts:
    """A committed transaction: what it read of others' work, and what it leaves behind."""

    transaction: Transaction
    lists: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    """Each list as it was before the transaction's own appends."""
    registers: dict[str, Value | None] = field(default_factory=dict)
    scans: list[tuple[Scan, frozenset[str]]] = field(default_factory=list)
    """With the keys whose values it knew already, or had written."""
    appended: dict[str, list[Value]] = field(default_factory=dict)
    written: dict[str, list[Value]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.transaction.name

    @property
    def writes(self) -> bool:
        return bool(self.appended or self.written)


class _Reader:
    """Goes through one transaction's events, and finds where it contradicts itself."""

    def __init__(self, transaction: Transaction) -> None:
        self.facts = _Facts(transaction)
        self.faults: list[str] = []
        self._lists: dict[str, tuple[Value, ...]] = {}
        self._registers: dict[str, Value | None] = {}
        for event in transaction.events:
            match event:
                case Append():
                    self._append(event)
                case ReadList():
                    self._read_list(event)
                case Write():
                    self._registers[event.key] = event.value
                    self.facts.written.setdefault(event.key, []).append(event.value)
                case Read():
                    self._read(event.key, event.value)
                case Scan():
                    self._scan(event)

    def _append(self, event: Append) -> None:
        self.facts.appended.setdefault(event.key, []).append(event.element)
        if event.key in self._lists:
            self._lists[event.key] += (event.element,)

    def _read_list(self, event: ReadList) -> None:
        key, elements = event.key, event.elements
        if key in self._lists:
            if elements != self._lists[key]:
                self.faults.append(f"reads {key} as {_listed(elements)}, where it must be {_listed(self._lists[key])}")
            return
        own = tuple(self.facts.appended.get(key, ()))
        base = elements[: len(elements) - len(own)]
        if base + own != elements:
            self.faults.append(f"reads {key} as {_listed(elements)} after it has itself appended {_listed(own)}")
            return
        self._lists[key], self.facts.lists[key] = elements, base

    def _read(self, key: str, value: Value | None) -> None:
        if key not in self._registers:
            self._registers[key] = self.facts.registers[key] = value
        elif value != self._registers[key]:
            self.faults.append(f"reads {key} as {value!r}, where it must be {self._registers[key]!r}")

    def _scan(self, event: Scan) -> None:
        for key, value in self._registers.items():
            if event.low <= key < event.high and key not in event.found and value is not None and event.covers(value):
                self.faults.append(f"does not find {key}, which it knows to be {value!r}")
        self.facts.scans.append((event, frozenset(self._registers)))
        for key, value in event.found.items():
            self._read(key, value)


# --- What all of them say together


class _Evidence:
    """The committed transactions, who wrote what, the order of versions, and what is wrong with single reads."""

    def __init__(self, history: Sequence[Transaction]) -> None:
        self.anomalies: list[Anomaly] = []
        self.appenders: dict[tuple[str, Value], Transaction] = {}
        self.writers: dict[tuple[str, Value], Transaction] = {}
        for transaction in history:
            self._note_writes(transaction)
        readers = [_Reader(each) for each in history if each.outcome is Outcome.DONE]
        for reader in readers:
            for fault in reader.faults:
                self._found("internal", [reader.facts.name], f"{reader.facts.name} {fault}")
        unknown = [each for each in history if each.outcome is Outcome.UNKNOWN]
        seen = _seen([reader.facts.transaction for reader in readers]) if unknown else set[tuple[str, Value]]()
        happened = [_Reader(certain) for each in unknown if (certain := _what_happened(each, seen)) is not None]
        self.committed: list[_Facts] = [reader.facts for reader in (*readers, *happened)]
        self.number = {facts.transaction.name: number for number, facts in enumerate(self.committed)}
        self.list_orders = self._orders_of_lists()
        self.predecessors: dict[tuple[str, Value], Value | None] = {}
        self.successors: dict[tuple[str, Value | None], list[Value]] = defaultdict(list)
        self._order_registers()
        self._check_reads()
        self.versions: dict[str, list[Value]] = defaultdict(list)
        """What was ever left in each register, in no order."""
        self._chains: dict[str, list[Value] | None] = {}
        for facts in self.committed:
            for key, values in facts.written.items():
                self.versions[key].append(values[-1])
        self._keys = sorted(self.versions)

    def appender(self, key: str, element: Value) -> int | None:
        """The number of the committed transaction that appended this."""
        return self._committed(self.appenders.get((key, element)))

    def writer(self, key: str, value: Value) -> int | None:
        """The number of the committed transaction that wrote this."""
        return self._committed(self.writers.get((key, value)))

    def first_versions(self, key: str) -> list[Value]:
        """The versions of a register of which nothing is known but that they come after nothing."""
        return [value for value in self.versions[key] if self.predecessors.get((key, value)) is None]

    def chain(self, key: str) -> list[Value] | None:
        """All versions of a register in their order; None where that is not known."""
        if key not in self._chains:
            self._chains[key] = self._chain(key)
        return self._chains[key]

    def _chain(self, key: str) -> list[Value] | None:
        chain: list[Value] = []
        following = self.first_versions(key)
        while following:
            if len(following) > 1 or len(chain) >= len(self.versions[key]):
                return None
            chain += following
            following = self.successors.get((key, following[0]), [])
        return chain if len(chain) == len(self.versions[key]) else None

    def keys_between(self, low: str, high: str) -> Sequence[str]:
        """The registers that were ever written with low <= key < high."""
        return self._keys[bisect_left(self._keys, low) : bisect_left(self._keys, high)]

    def _committed(self, transaction: Transaction | None) -> int | None:
        return None if transaction is None else self.number.get(transaction.name)

    def _found(self, name: str, transactions: Iterable[str], story: str) -> None:
        self.anomalies.append(Anomaly(name, tuple(transactions), story))

    def _note_writes(self, transaction: Transaction) -> None:
        for event in transaction.events:
            if isinstance(event, Append):
                known, what = self.appenders, (event.key, event.element)
            elif isinstance(event, Write):
                known, what = self.writers, (event.key, event.value)
            else:
                continue
            if known.setdefault(what, transaction) is not transaction:
                raise ValueError(f"{what} is written by {known[what].name} and by {transaction.name}")

    def _orders_of_lists(self) -> dict[str, tuple[Value, ...]]:
        """The longest that was read of each list; all that was read must be the beginning of it."""
        longest: dict[str, tuple[Value, ...]] = {}
        whose: dict[str, str] = {}
        for facts in self.committed:
            for key, elements in facts.lists.items():
                if len(elements) >= len(longest.get(key, ())):
                    longest[key], whose[key] = elements, facts.name
        for facts in self.committed:
            for key, elements in facts.lists.items():
                if longest[key][: len(elements)] != elements:
                    story = f"{facts.name} reads {key} as {_listed(elements)}, {whose[key]} as {_listed(longest[key])}"
                    self._found("incompatible-order", [facts.name, whose[key]], story)
        return longest

    def _order_registers(self) -> None:
        for facts in self.committed:
            for key, values in facts.written.items():
                if key in facts.registers:
                    self._replaced(key, facts.registers[key], values[-1], facts.name)
            for event in facts.transaction.events:
                if isinstance(event, Read) and event.value is not None and event.after is not UNTOLD:
                    self._told_after(event, facts.name)

    def _told_after(self, event: Read, name: str) -> None:
        writer = self.writers.get((event.key, event.value))
        if event.after is not None and writer is self.writers.get((event.key, event.after)):
            return  # both by one transaction: only the last of them is a version
        if event.after is not None:
            self._check_source(name, event.key, event.after, self.writers.get((event.key, event.after)))
        self._replaced(event.key, event.after, event.value, name)

    def _replaced(self, key: str, old: Value | None, new: Value, by: str) -> None:
        known = self.predecessors.setdefault((key, new), old)
        if known != old:
            self._found("incompatible-order", [by], f"of {key}, {new!r} replaces {known!r}, and for {by} {old!r}")
        elif new not in self.successors[key, old]:
            self.successors[key, old].append(new)

    def _check_reads(self) -> None:
        checked: set[tuple[str, int]] = set()
        for facts in self.committed:
            for key, elements in facts.lists.items():
                order = self.list_orders[key]
                if order[: len(elements)] != elements:
                    self._check_list(facts, key, elements)
                elif (key, len(elements)) not in checked:  # of equal beginnings one is enough
                    checked.add((key, len(elements)))
                    self._check_end(facts, key, elements)
                    if elements is order:
                        self._check_list(facts, key, elements)
            for key, value in facts.registers.items():
                self._check_register(facts, key, value)

    def _check_list(self, facts: _Facts, key: str, elements: tuple[Value, ...]) -> None:
        if len(set(elements)) < len(elements):
            twice = sorted({repr(each) for each in elements if elements.count(each) > 1})
            self._found(
                "duplicate-elements", [facts.name], f"{facts.name} reads {', '.join(twice)} more than once in {key}"
            )
        for element in elements:
            self._check_source(facts.name, key, element, self.appenders.get((key, element)))
        self._check_end(facts, key, elements)

    def _check_end(self, facts: _Facts, key: str, elements: tuple[Value, ...]) -> None:
        if elements and (number := self.appender(key, elements[-1])) is not None:
            author = self.committed[number]
            if author is not facts and author.appended[key][-1] != elements[-1]:
                self._intermediate(facts, key, elements[-1], author)

    def _check_register(self, facts: _Facts, key: str, value: Value | None) -> None:
        if value is None:
            return
        self._check_source(facts.name, key, value, self.writers.get((key, value)))
        if (number := self.writer(key, value)) is not None:
            author = self.committed[number]
            if author is not facts and author.written[key][-1] != value:
                self._intermediate(facts, key, value, author)

    def _intermediate(self, facts: _Facts, key: str, value: Value, author: _Facts) -> None:
        story = f"{facts.name} reads {value!r} in {key}, but {author.name} did not leave it at that"
        self._found("G1b", [facts.name, author.name], story)

    def _check_source(self, name: str, key: str, value: Value, source: Transaction | None) -> None:
        if source is None:
            self._found("garbage", [name], f"{name} reads {value!r} in {key}, which nobody wrote")
        elif source.outcome is Outcome.REFUSED:
            story = f"{name} reads {value!r} in {key}, which {source.name} wrote, and that was refused"
            self._found("G1a", [name, source.name], story)


def _seen(done: Iterable[Transaction]) -> set[tuple[str, Value]]:
    """What was read by anybody: key and value."""
    longest: dict[str, tuple[Value, ...]] = defaultdict(tuple)
    seen: set[tuple[str, Value]] = set()
    for transaction in done:
        for event in transaction.events:
            match event:
                case ReadList(key, elements) if elements != longest[key][: len(elements)]:
                    longest[key] = max(elements, longest[key], key=len)
                    seen.update((key, element) for element in elements)
                case Read(key, value, after):
                    seen |= {(key, value), (key, after)}
                case Scan():
                    seen.update(event.found.items())
                case _:
                    pass
    return seen


def _what_happened(transaction: Transaction, seen: set[tuple[str, Value]]) -> Transaction | None:
    """An unknown transaction with all that it must have written, since something of it was seen; else None."""
    writes = [(each, (each[0], each[1]) in seen) for each in transaction.events if isinstance(each, (Append, Write))]
    if not any(was_seen for _, was_seen in writes):
        return None
    chosen = {each.choice for each, was_seen in writes if was_seen and isinstance(each, Write)} | {0}
    events = [each for each, _ in writes if isinstance(each, Append) or each.choice in chosen]
    return Transaction(transaction.name, events, Outcome.UNKNOWN, transaction.process, transaction.began)


def _lost_updates(evidence: _Evidence) -> Iterator[Anomaly]:
    """Transactions that read one version and each wrote the next."""
    updates: dict[tuple[str, Value], list[str]] = defaultdict(list)
    for facts in evidence.committed:
        for key in facts.appended.keys() & facts.lists.keys():
            updates[key, facts.lists[key]].append(facts.name)
        for key in facts.written.keys() & facts.registers.keys():
            updates[key, facts.registers[key]].append(facts.name)
    for (key, version), names in updates.items():
        if len(names) > 1:
            shown = _listed(version) if isinstance(version, tuple) else repr(version)
            story = f"{' and '.join(names)} each read {key} as {shown} and wrote what comes next"
            yield Anomaly("lost-update", tuple(names), story)


def _shared_timestamps(committed: Sequence[_Facts]) -> Iterator[Anomaly]:
    """A timestamp names one state, so each commit has its own."""
    by_timestamp: dict[int, str] = {}
    for facts in committed:
        timestamp = facts.transaction.timestamp
        if timestamp is not None and facts.writes:
            other = by_timestamp.setdefault(timestamp, facts.name)
            if other != facts.name:
                story = f"{other} and {facts.name} both wrote at {timestamp}"
                yield Anomaly("shared-timestamp", (other, facts.name), story)


# --- What comes before what


def _circles(evidence: _Evidence, graph: Graph) -> Iterator[Anomaly]:
    for name, circle in graph.circles():
        facts = [evidence.committed[edge.source].name for edge in circle]
        steps = [_told(evidence, edge) for edge in circle]
        yield Anomaly(name, tuple(facts), "; ".join(steps))


def _told(evidence: _Evidence, edge: Edge) -> str:
    first, second = evidence.committed[edge.source].name, evidence.committed[edge.target].name
    match edge.kind:
        case Kind.WW | Kind.WR | Kind.RW:
            return f"{first} {edge.why} {second} ({edge.kind.name.lower()})"
        case Kind.PROCESS:
            return f"{first} was answered before the same client asked for {second} (process)"
        case Kind.REALTIME:
            return f"{first} had ended when {second} began (realtime)"
        case Kind.TIMESTAMP:
            stamps = [evidence.committed[each].transaction.timestamp for each in (edge.source, edge.target)]
            return f"{first} at {stamps[0]} is of an earlier state than {second} at {stamps[1]} (timestamp)"


def _graph(evidence: _Evidence) -> Graph:
    graph = Graph(len(evidence.committed))
    unseen = _unseen_appends(evidence)
    _order_appends(evidence, graph, unseen)
    for number, facts in enumerate(evidence.committed):
        for key, elements in facts.lists.items():
            _read_list(evidence, graph, number, key, elements, unseen)
        for key, value in facts.registers.items():
            _read_register(evidence, graph, number, key, value)
    for (key, old), following in evidence.successors.items():
        for new in following if old is not None else ():
            graph.add(evidence.writer(key, old), evidence.writer(key, new), Kind.WW, f"wrote {old!r} in {key} before")
    _order_scans(evidence, graph)
    _order_processes(evidence, graph)
    _order_times(evidence, graph)
    _order_timestamps(evidence, graph)
    return graph


def _unseen_appends(evidence: _Evidence) -> dict[str, list[tuple[int, Value]]]:
    """Appends that nobody has read: they come after all reads, since nothing is ever taken from a list."""
    unseen: dict[str, list[tuple[int, Value]]] = defaultdict(list)
    ordered = {key: set(elements) for key, elements in evidence.list_orders.items()}
    for number, facts in enumerate(evidence.committed):
        for key, elements in facts.appended.items():
            known = ordered.get(key, ())
            unseen[key] += [(number, element) for element in elements if element not in known]
    return unseen


def _order_appends(evidence: _Evidence, graph: Graph, unseen: Mapping[str, Sequence[tuple[int, Value]]]) -> None:
    for key, order in evidence.list_orders.items():
        authors = [evidence.appender(key, element) for element in order]
        for position in range(1, len(order)):
            why = f"appended {order[position - 1]!r} to {key} before"
            graph.add(authors[position - 1], authors[position], Kind.WW, why)
        if order:
            for number, element in unseen.get(key, ()):
                graph.add(authors[-1], number, Kind.WW, f"appended {order[-1]!r} to {key} before {element!r} of")


def _read_list(
    evidence: _Evidence,
    graph: Graph,
    number: int,
    key: str,
    elements: tuple[Value, ...],
    unseen: Mapping[str, Sequence[tuple[int, Value]]],
) -> None:
    order = evidence.list_orders[key]
    if elements:
        source = evidence.appender(key, elements[-1])
        graph.add(source, number, Kind.WR, f"appended {elements[-1]!r} to {key}, which was read by")
    if len(elements) < len(order):
        following = order[len(elements)]
        graph.add(number, evidence.appender(key, following), Kind.RW, f"read {key} without {following!r} of")
        return
    for target, element in unseen.get(key, ()):
        graph.add(number, target, Kind.RW, f"read {key} without {element!r} of")


def _read_register(evidence: _Evidence, graph: Graph, number: int, key: str, value: Value | None) -> None:
    if value is not None:
        graph.add(evidence.writer(key, value), number, Kind.WR, f"wrote {value!r} in {key}, which was read by")
        following = evidence.successors.get((key, value), [])
    else:
        following = evidence.first_versions(key)
    for new in following:
        graph.add(number, evidence.writer(key, new), Kind.RW, f"read {value!r} in {key} before {new!r} of")


def _order_scans(evidence: _Evidence, graph: Graph) -> None:
    for number, facts in enumerate(evidence.committed):
        for scan, known in facts.scans:
            for key in evidence.keys_between(scan.low, scan.high):
                if key not in scan.found and key not in known:
                    _did_not_find(evidence, graph, number, key, scan)


def _did_not_find(evidence: _Evidence, graph: Graph, number: int, key: str, scan: Scan) -> None:
    """A scan came before the register had a value that is covered, if it has kept to such values from then on."""
    if scan.covers is everything:
        _read_register(evidence, graph, number, key, None)
    elif (chain := evidence.chain(key)) is not None and (first := _first_covered(chain, scan)) is not None:
        graph.add(number, evidence.writer(key, first), Kind.RW, f"did not find {key}, which it would as {first!r} of")


def _first_covered(chain: Sequence[Value], scan: Scan) -> Value | None:
    """The version from which on a scan finds this register; None where there is no such, or it comes and goes."""
    covered = [scan.covers(value) for value in chain]
    first = covered.index(True) if True in covered else len(chain)
    return chain[first] if first < len(chain) and all(covered[first:]) else None


def _order_processes(evidence: _Evidence, graph: Graph) -> None:
    latest: dict[str, int] = {}
    timed = [(facts.transaction.began or 0.0, number) for number, facts in enumerate(evidence.committed)]
    for _, number in sorted(timed):
        transaction = evidence.committed[number].transaction
        if transaction.process is None:
            continue
        graph.add(latest.get(transaction.process), number, Kind.PROCESS)
        if transaction.outcome is Outcome.DONE:
            latest[transaction.process] = number


def _order_times(evidence: _Evidence, graph: Graph) -> None:
    """Through moments that follow each other, so that there are not more arrows than transactions."""
    ends = sorted(
        (facts.transaction.ended, number)
        for number, facts in enumerate(evidence.committed)
        if facts.transaction.ended is not None
    )
    moments = graph.moments(len(ends), Kind.REALTIME)
    for moment, (_, number) in zip(moments, ends, strict=True):
        graph.add(number, moment, Kind.REALTIME)
    times = [ended for ended, _ in ends]
    for number, facts in enumerate(evidence.committed):
        if facts.transaction.began is not None and (before := bisect_left(times, facts.transaction.began)):
            graph.add(moments[before - 1], number, Kind.REALTIME)


def _order_timestamps(evidence: _Evidence, graph: Graph) -> None:
    """At each timestamp there is first who wrote, then who only read."""
    at: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for number, facts in enumerate(evidence.committed):
        if facts.transaction.timestamp is not None:
            writing, reading = at[facts.transaction.timestamp]
            (writing if facts.writes else reading).append(number)
    moments = graph.moments(2 * len(at) + 1, Kind.TIMESTAMP)
    for place, timestamp in enumerate(sorted(at)):
        writing, reading = at[timestamp]
        for step, numbers in enumerate((writing, reading)):
            for number in numbers:
                graph.add(moments[2 * place + step], number, Kind.TIMESTAMP)
                graph.add(number, moments[2 * place + step + 1], Kind.TIMESTAMP)


# --- Playing it again


def _replayed(evidence: _Evidence, graph: Graph) -> Iterator[Anomaly]:
    """Where a read comes out otherwise when all is done again, one transaction after another."""
    lists: dict[str, list[Value]] = defaultdict(list)
    registers = _Registers()
    uncertain = _uncertain(evidence)
    for number in graph.order():
        transaction = evidence.committed[number].transaction
        for event in transaction.events:
            match event:
                case Append(key, element):
                    lists[key].append(element)
                case ReadList(key, elements):
                    if tuple(lists[key]) != elements:
                        yield _differs(transaction, f"reads {key} as {_listed(elements)}, not {_listed(lists[key])}")
                case Write(key, value):
                    registers.write(key, value)
                case Read(key, value):
                    if key not in uncertain and registers.values.get(key) != value:
                        yield _differs(transaction, f"reads {key} as {value!r}, not {registers.values.get(key)!r}")
                case Scan():
                    told = {key: value for key, value in event.found.items() if key not in uncertain}
                    found = {key: value for key, value in registers.scan(event).items() if key not in uncertain}
                    if told != found:
                        yield _differs(transaction, f"finds {told}, not {found}")


def _uncertain(evidence: _Evidence) -> set[str]:
    """The registers whose order the arrows don't fix: not all who wrote them have timestamps, or read before they wrote."""
    if all(facts.transaction.timestamp is not None for facts in evidence.committed):
        return set()
    unknown = {key for key in evidence.versions if evidence.chain(key) is None}
    for facts in evidence.committed:
        for scan, _ in facts.scans:
            if scan.covers is not everything:
                unknown |= {
                    key for key in evidence.keys_between(scan.low, scan.high) if _comes_and_goes(evidence, key, scan)
                }
    return unknown


def _comes_and_goes(evidence: _Evidence, key: str, scan: Scan) -> bool:
    chain = evidence.chain(key) or []
    return any(map(scan.covers, chain)) and _first_covered(chain, scan) is None


class _Registers:
    """All registers, with their keys in order."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self._keys: list[str] = []

    def write(self, key: str, value: Value) -> None:
        if key not in self.values:
            self._keys.insert(bisect_left(self._keys, key), key)
        self.values[key] = value

    def scan(self, scan: Scan) -> dict[str, Value]:
        keys = self._keys[bisect_left(self._keys, scan.low) : bisect_left(self._keys, scan.high)]
        return {key: self.values[key] for key in keys if scan.covers(self.values[key])}


def _differs(transaction: Transaction, what: str) -> Anomaly:
    return Anomaly("replay", (transaction.name,), f"played again in the order of all, {transaction.name} {what}")


def _listed(elements: Sequence[Value]) -> str:
    shown = [repr(each) for each in elements]
    return f"[{', '.join(shown if len(shown) <= 12 else ['...', *shown[-11:]])}]"


__all__ = ["Anomaly", "check"]
