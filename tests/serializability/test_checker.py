"""The judge of histories finds every anomaly that has a name, and none in what really came about one after another."""

from __future__ import annotations

import dataclasses
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.serializability.checker import check
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

UNKNOWN, REFUSED = Outcome.UNKNOWN, Outcome.REFUSED


def did(name: str, *events: Event, outcome: Outcome = Outcome.DONE, **more: object) -> Transaction:
    """A transaction; of its time only what is given."""
    return dataclasses.replace(Transaction(name, events, outcome), **more)  # pyright: ignore[reportArgumentType]


def read(key: str, *elements: Value) -> ReadList:
    return ReadList(key, elements)


def names(*history: Transaction) -> list[str]:
    return sorted({anomaly.name for anomaly in check(history)})


# --- Lists


def test_transactions_that_saw_each_other_in_one_order_are_fine() -> None:
    assert not check(
        [
            did("a", Append("x", 1), Append("y", 1), began=0, ended=9, timestamp=10),
            did("b", read("x", 1), Append("x", 2), began=1, ended=8, timestamp=11),
            did("c", read("x", 1, 2), read("y", 1), began=2, ended=3, timestamp=11),
        ]
    )


def test_what_a_refused_transaction_wrote_must_not_be_seen() -> None:
    assert names(did("a", Append("x", 1), outcome=REFUSED), did("b", read("x", 1))) == ["G1a"]


def test_what_a_refused_transaction_wrote_must_not_be_seen_under_later_elements() -> None:
    refused = did("a", Append("x", 1), outcome=REFUSED)
    assert names(refused, did("b", Append("x", 2)), did("c", read("x", 1, 2))) == ["G1a"]


def test_what_an_unknown_transaction_wrote_may_be_seen() -> None:
    assert not check([did("a", Append("x", 1), Append("y", 2), outcome=UNKNOWN), did("b", read("x", 1), read("y", 2))])


def test_what_an_unknown_transaction_wrote_may_never_be_seen() -> None:
    unknown = did("a", Append("x", 1), outcome=UNKNOWN, began=0)
    assert not check([unknown, did("b", read("x"), began=5, ended=6), did("c", read("x"), began=7, ended=8)])


def test_an_unknown_transaction_happens_as_a_whole() -> None:
    unknown = did("a", Append("x", 1), Append("y", 2), outcome=UNKNOWN)
    assert names(unknown, did("b", read("x", 1), read("y"))) == ["G-single"]


def test_an_unknown_transaction_does_not_go_away_again() -> None:
    unknown = did("a", Append("x", 1), outcome=UNKNOWN, began=0)
    readers = did("b", read("x", 1), began=5, ended=6), did("c", read("x"), began=7, ended=8)
    assert names(unknown, *readers) == ["G-single-realtime"]


def test_a_state_between_two_writes_of_one_transaction_must_not_be_seen() -> None:
    history = did("a", Append("x", 1), Append("x", 2)), did("b", read("x", 1)), did("c", read("x", 1, 2))
    assert "G1b" in names(*history)


def test_what_nobody_wrote_must_not_be_seen() -> None:
    assert names(did("a", read("x", 7))) == ["garbage"]


def test_two_reads_that_no_one_list_contains_are_incompatible() -> None:
    writers = did("a", Append("x", 1)), did("b", Append("x", 2))
    assert "incompatible-order" in names(*writers, did("c", read("x", 1, 2)), did("d", read("x", 2, 1)))


def test_an_element_twice_is_a_mutation_done_twice() -> None:
    assert "duplicate-elements" in names(did("a", Append("x", 1)), did("b", read("x", 1, 1)))


def test_an_append_upon_a_state_that_was_replaced_is_a_lost_update() -> None:
    history = (
        did("a", read("x"), Append("x", 1)),
        did("b", read("x"), Append("x", 2)),
        did("c", read("x", 1, 2)),
    )
    assert names(*history) == ["G-single", "lost-update"]


@pytest.mark.parametrize(
    "events",
    [
        [read("x"), Append("x", 1), read("x")],
        [Append("x", 1), read("x")],
        [read("x"), read("x", 1)],
        [read("x"), Append("x", 1), Append("x", 2), read("x", 2, 1)],
        [Write("r", 1), Read("r", None)],
        [Read("r", None), Read("r", 3)],
        [Write("r", 1), Scan("a", "z", {})],
        [Read("r", None), Scan("a", "z", {"r": 3})],
        [Write("r", 1), Scan("a", "z", {"r": 3})],
    ],
)
def test_a_transaction_must_not_contradict_itself(events: Sequence[Event]) -> None:
    others = did("b", Append("x", 9), Write("r", 3))
    assert "internal" in names(did("a", *events), others)


def test_two_who_wrote_over_each_other_in_two_lists() -> None:
    history = (
        did("a", Append("x", 1), Append("y", 1)),
        did("b", Append("x", 2), Append("y", 2)),
        did("c", read("x", 1, 2)),
        did("d", read("y", 2, 1)),
    )
    assert names(*history) == ["G0"]


def test_two_who_each_read_what_the_other_wrote() -> None:
    assert names(did("a", Append("x", 1), read("y", 1)), did("b", Append("y", 1), read("x", 1))) == ["G1c"]


def test_a_read_of_two_moments() -> None:
    assert names(did("a", Append("x", 1), Append("y", 1)), did("b", read("x", 1), read("y"))) == ["G-single"]


def test_write_skew() -> None:
    history = (
        did("a", read("x"), read("y"), Append("x", 1)),
        did("b", read("x"), read("y"), Append("y", 1)),
        did("c", read("x", 1), read("y", 1)),
    )
    assert names(*history) == ["G2"]


def test_write_skew_that_nobody_looks_at() -> None:
    assert names(did("a", read("x"), Append("y", 1)), did("b", read("y"), Append("x", 1))) == ["G2"]


def test_the_anomaly_of_a_transaction_that_only_reads() -> None:
    """The batch is closed on what was there before the receipt, but the report has the receipt and no closed batch."""
    history = (
        did("receipt", read("batch"), Append("receipts", "r")),
        did("close", Append("batch", "closed"), read("receipts", "r")),
        did("report", read("batch", "closed"), read("receipts")),
    )
    assert names(*history) == ["G-single"]
    assert names(did("w", read("x"), read("y"), Append("x", -11)), did("d", read("y"), Append("y", 20))) == []
    skewed = (
        did("withdraw", read("x"), read("y"), Append("x", -11)),
        did("deposit", read("y"), Append("y", 20)),
        did("report", read("x"), read("y", 20)),
    )
    assert names(*skewed) == ["G2"]


def test_a_read_that_is_older_than_an_answer_given_before_it() -> None:
    history = did("a", Append("x", 1), began=0, ended=1), did("b", read("x"), began=2, ended=3)
    assert names(*history) == ["G-single-realtime"]
    assert not check([history[0], dataclasses.replace(history[1], began=0.5)])


def test_a_client_that_does_not_see_its_own_write() -> None:
    history = did("a", Append("x", 1), process="ann", began=0), did("b", read("x"), process="ann", began=1)
    assert names(*history) == ["G-single-process"]


def test_an_append_that_was_acknowledged_and_is_lost() -> None:
    history = (
        did("a", Append("x", 1), began=0, ended=1),
        did("b", Append("x", 2), began=2, ended=3),
        did("c", read("x", 2), began=4, ended=5),
    )
    assert names(*history) == ["G0-realtime"]
    assert names(history[0], did("c", read("x"), began=4, ended=5)) == ["G-single-realtime"]


def test_reads_must_be_of_the_state_that_their_timestamp_names() -> None:
    write = did("a", Append("x", 1), timestamp=10)
    assert not check([write, did("b", read("x"), timestamp=9), did("c", read("x", 1), timestamp=10)])
    assert names(write, did("b", read("x"), timestamp=10)) == ["G-single-timestamp"]
    assert names(write, did("b", read("x", 1), timestamp=9)) == ["G1c-timestamp"]


def test_writes_must_be_in_the_order_of_their_timestamps() -> None:
    history = did("a", Append("x", 1), timestamp=10), did("b", Append("x", 2), timestamp=9), did("c", read("x", 1, 2))
    assert names(*history) == ["G0-timestamp"]


def test_timestamps_must_not_go_back() -> None:
    history = did("a", Append("x", 1), timestamp=10, began=0, ended=1), did("b", Append("y", 2), timestamp=9, began=2)
    assert names(*history) == ["timestamps-against-time"]


def test_two_commits_must_not_share_a_timestamp() -> None:
    assert names(did("a", Append("x", 1), timestamp=10), did("b", Append("y", 2), timestamp=10)) == ["shared-timestamp"]


# --- Registers


def test_two_who_replace_one_version_lose_an_update() -> None:
    first = did("a", Write("r", 1))
    history = did("b", Read("r", 1), Write("r", 2)), did("c", Read("r", 1), Write("r", 3))
    assert "lost-update" in names(first, *history)


def test_write_skew_in_registers() -> None:
    first = did("a", Write("r", 1), Write("s", 1))
    history = did("b", Read("r", 1), Read("s", 1), Write("s", 2)), did("c", Read("r", 1), Read("s", 1), Write("r", 2))
    assert names(first, *history) == ["G2"]


def test_what_a_version_replaced_orders_those_that_nobody_told_of() -> None:
    unknown = did("b", Write("r", 2), Write("s", 2), outcome=UNKNOWN)
    history = did("a", Write("r", 1), Write("s", 1)), unknown
    assert not check([*history, did("c", Read("r", 2, after=1), Read("s", 2, after=1))])
    mixed = did("c", Read("r", 2, after=1)), did("d", Read("s", 2, after=1)), did("e", Read("r", 1), Read("s", 2))
    assert names(*history, *mixed) == ["G-single"]


def test_a_version_replaces_one_other() -> None:
    history = did("a", Write("r", 1)), did("b", Write("r", 2)), did("c", Read("r", 2, after=1))
    assert "incompatible-order" in names(*history, did("d", Read("r", 2, after=None)))


def test_an_aborted_or_intermediate_value_of_a_register() -> None:
    assert names(did("a", Write("r", 1), outcome=REFUSED), did("b", Read("r", 1))) == ["G1a"]
    assert names(did("a", Write("r", 1), outcome=REFUSED), did("b", Write("r", 2)), did("c", Read("r", 2, 1))) == [
        "G1a"
    ]
    assert names(did("a", Write("r", 1), Write("r", 2)), did("b", Read("r", 1))) == ["G1b"]
    assert names(did("b", Read("r", 1))) == ["garbage"]


def test_a_phantom() -> None:
    """Each counts the rows of a range and adds one of its own."""
    history = (
        did("a", Scan("k1", "k9", {}), Write("k3", 1)),
        did("b", Scan("k1", "k9", {}), Write("k4", 2)),
    )
    assert names(*history) == ["G2"]
    assert not check([history[0], did("b", Scan("k1", "k9", {"k3": 1}), Write("k4", 2))])
    assert not check([history[0], did("b", Scan("k4", "k9", {}), Write("k4", 2))])


def test_a_phantom_that_was_there_and_moved_into_the_range() -> None:
    def high(value: Value) -> bool:
        return isinstance(value, int) and value >= 10

    history = (
        did("a", Write("k1", 1), Write("k2", 2)),
        did("b", Scan("k", "l", {}, high), Read("k1", 1), Write("k1", 11)),
        did("c", Scan("k", "l", {}, high), Read("k2", 2), Write("k2", 12)),
    )
    assert names(*history) == ["G2"]
    found = did("c", Scan("k", "l", {"k1": 11}, high), Read("k2", 2), Write("k2", 12))
    assert not check([*history[:2], found])


def test_a_scan_that_misses_what_was_acknowledged() -> None:
    history = did("a", Write("k1", 1), began=0, ended=1), did("b", Scan("k", "l", {}), began=2, ended=3)
    assert names(*history) == ["G-single-realtime"]


def test_of_a_choice_all_or_nothing_was_done() -> None:
    maybe = did("t", Write("a", 1, choice=1), Write("b", 2, choice=1), Write("c", 3), outcome=UNKNOWN)
    assert not check([maybe, did("r", Read("a", None), Read("b", None), Read("c", 3))])
    assert not check([maybe, did("r", Read("a", 1), Read("b", 2), Read("c", 3))])
    assert names(maybe, did("r", Read("a", 1), Read("b", None), Read("c", 3))) == ["G-single"]


def test_only_playing_it_again_finds_what_comes_and_goes() -> None:
    """A register that enters a range and leaves it leaves no arrow to a scan that does not find it; timestamps do."""

    def even(value: Value) -> bool:
        return isinstance(value, int) and value % 2 == 0

    writes = [
        did(f"w{value}", Read("k", value - 1 or None), Write("k", value), timestamp=10 * value) for value in (1, 2, 3)
    ]
    assert not check([*writes, did("r", Scan("a", "z", {"k": 2}, even), timestamp=29)])
    assert not check([*writes, did("r", Scan("a", "z", {}, even), timestamp=30)])
    assert not check([*writes, did("r", Scan("a", "z", {}, even))])
    assert names(*writes, did("r", Scan("a", "z", {}, even), timestamp=29)) == ["replay"]


def test_an_anomaly_is_told_in_words() -> None:
    (anomaly,) = check([did("a", Append("x", 1), began=0, ended=1), did("b", read("x"), began=2, ended=3)])
    assert str(anomaly) == ("G-single-realtime: b read x without 1 of a (rw); a had ended when b began (realtime)"), (
        anomaly.story
    )


def test_a_value_that_two_write_is_no_history() -> None:
    with pytest.raises(ValueError, match="by a and by b"):
        check([did("a", Append("x", 1)), did("b", Append("x", 1))])


# --- Histories that really came about one after another


class World:
    """Carries out random transactions one after another, in plain Python, and notes what each of them read."""

    def __init__(self, random: Random, *, keys: int, blind: bool) -> None:
        self._random, self._blind = random, blind
        self._keys = [f"k{number:03}" for number in range(keys)]
        self._lists: dict[str, list[Value]] = {key: [] for key in self._keys}
        self._registers: dict[str, tuple[int, int]] = {}
        self._before: dict[tuple[int, int], Value | None] = {}
        self._next = 0

    def events(self, count: int, *, is_kept: bool = True) -> list[Event]:
        """What one transaction does; of one that is not kept nothing stays."""
        saved = (
            None
            if is_kept
            else ({key: list(elements) for key, elements in self._lists.items()}, self._registers.copy())
        )
        events = [event for _ in range(count) for event in self._some()]
        if saved is not None:
            self._lists, self._registers = saved
        return events

    def _some(self) -> Iterator[Event]:
        key, self._next = self._random.choice(self._keys), self._next + 1
        kinds = ["append", "list", "write", "read", "keys", "least"]
        match self._random.choice(kinds):
            case "append":
                self._lists[key].append(self._next)
                yield Append(key, self._next)
            case "list":
                yield ReadList(key, tuple(self._lists[key]))
            case "write":
                old = self._registers.get(key)
                if not (self._blind and self._random.random() < 0.3):
                    yield Read(key, old)
                new = (old[0] if old else 0) + self._random.randrange(4), self._next
                self._registers[key], self._before[new] = new, old
                yield Write(key, new)
            case "read":
                value = self._registers.get(key)
                told = value is not None and self._random.random() < 0.5
                yield Read(key, value, self._before[value]) if told and value is not None else Read(key, value)
            case kind:
                least = self._random.randrange(8) if kind == "least" else 0
                high = self._keys[min(bisect_left(self._keys, key) + 3, len(self._keys) - 1)]
                yield self._scan(key, high, least)

    def _scan(self, low: str, high: str, least: int) -> Scan:
        def covers(value: Value) -> bool:
            return isinstance(value, tuple) and value[0] >= least

        found = {key: value for key, value in self._registers.items() if low <= key < high and covers(value)}
        return Scan(low, high, found, covers) if least else Scan(low, high, found)


def serial_history(
    random: Random, size: int, *, keys: int = 5, blind: bool = False, timed: float = 1.0, unknown: float = 0.0
) -> list[Transaction]:
    """Transactions that came one after another, with times that overlap and whatever their clients know of them."""
    world = World(random, keys=keys, blind=blind)
    history: list[Transaction] = []
    timestamp, free = 1000, {f"client {number}": 0.0 for number in range(8)}
    for number in range(size):
        process = min(free, key=lambda name: free[name])
        began = max(free[process], number - 3 * random.random())
        outcome = REFUSED if random.random() < 0.1 else UNKNOWN if random.random() < unknown else Outcome.DONE
        happens = outcome is Outcome.DONE or (outcome is UNKNOWN and random.random() < 0.5)
        events = world.events(random.randrange(1, 6), is_kept=happens)
        writes = any(isinstance(event, (Append, Write)) for event in events)
        timestamp += random.choice([1, 1, 50]) if writes and happens else 0
        ended = max(began, number + 3 * random.random())
        free[process] = ended
        if outcome is not Outcome.DONE:
            events = [event for event in events if isinstance(event, (Append, Write))]
        is_done, is_timed = outcome is Outcome.DONE, random.random() < timed
        history.append(
            Transaction(
                f"T{number}",
                events,
                outcome,
                process if is_done else f"{process}, which went at {number}",
                began,
                ended if is_done else None,
                timestamp if is_done and is_timed else None,
            )
        )
    random.shuffle(history)
    return history


MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SOME_RANDOM = st.randoms(use_true_random=False)


@MANY
@given(SOME_RANDOM, st.integers(1, 40), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.2]))
def test_whatever_came_one_after_another_is_fine(
    random: Random, size: int, blind: bool, timed: float, unknown: float
) -> None:
    assert not check(serial_history(random, size, blind=blind, timed=timed, unknown=unknown))


@MANY
@given(SOME_RANDOM, st.integers(10, 40), st.booleans())
def test_two_reads_that_are_swapped_are_found(random: Random, size: int, blind: bool) -> None:
    history = serial_history(random, size, blind=blind)
    reads = [
        (number, place, event)
        for number, transaction in enumerate(history)
        for place, event in enumerate(transaction.events)
        if isinstance(event, (ReadList, Read))
    ]
    pairs = [
        (one, other)
        for one in reads
        for other in reads
        if type(one[2]) is type(other[2]) and one[2].key == other[2].key and one[2][1] != other[2][1]
    ]
    if not pairs:
        return
    (first, at_first, one), (second, at_second, other) = random.choice(pairs)
    note(f"{history[first].name} and {history[second].name} swap {one} and {other}")
    put(history, first, at_first, other)
    put(history, second, at_second, one)
    assert check(history)


@MANY
@given(SOME_RANDOM, st.integers(10, 40), st.booleans())
def test_an_element_that_is_missing_in_a_read_is_found(random: Random, size: int, everywhere: bool) -> None:
    history = serial_history(random, size)
    reads = [
        (number, place, event)
        for number, transaction in enumerate(history)
        for place, event in enumerate(transaction.events)
        if isinstance(event, ReadList) and event.elements
    ]
    if not reads:
        return
    chosen = random.choice(reads)
    lost = random.choice(chosen[2].elements)
    for number, place, event in reads if everywhere else [chosen]:
        put(history, number, place, event._replace(elements=tuple(each for each in event.elements if each != lost)))
    note(f"{lost} is lost {'everywhere' if everywhere else f'by {history[chosen[0]].name}'}")
    assert check(history)


@MANY
@given(SOME_RANDOM, st.integers(10, 40), st.sampled_from([0.0, 1.0]))
def test_a_write_that_was_seen_before_it_was_asked_for_is_found(random: Random, size: int, timed: float) -> None:
    history = serial_history(random, size, timed=timed)
    seen = [
        (author, reader)
        for reader in history
        for author in history
        if author is not reader and seen_values(reader) & written_values(author)
    ]
    if not seen:
        return
    author, reader = random.choice(seen)
    late = (reader.ended or 0.0) + 1.0
    history[history.index(author)] = dataclasses.replace(author, began=late, ended=late + 1.0, process="late")
    note(f"{author.name} begins after {reader.name} has ended")
    assert check(history)


@MANY
@given(SOME_RANDOM, st.integers(10, 40), st.sampled_from([0.0, 1.0]))
def test_a_write_that_turns_out_to_be_refused_is_found(random: Random, size: int, timed: float) -> None:
    history = serial_history(random, size, timed=timed)
    seen = set[object]().union(*(seen_values(reader) - written_values(reader) for reader in history))
    authors = [each for each in history if seen & written_values(each)]
    if not authors:
        return
    author = random.choice(authors)
    history[history.index(author)] = dataclasses.replace(author, outcome=REFUSED)
    assert check(history)


def put(history: list[Transaction], number: int, place: int, event: Event) -> None:
    """Have a transaction do something else at this place."""
    events = list(history[number].events)
    events[place] = event
    history[number] = dataclasses.replace(history[number], events=events)


def written_values(transaction: Transaction) -> set[tuple[str, Value]]:
    return {
        (event[0], event[1])
        for event in transaction.events
        if isinstance(event, (Append, Write)) and transaction.outcome is Outcome.DONE
    }


def seen_values(transaction: Transaction) -> set[tuple[str, Value]]:
    seen: set[tuple[str, Value]] = set()
    for event in transaction.events:
        match event:
            case ReadList(key, elements):
                seen |= {(key, element) for element in elements}
            case Read(key, value) if value is not None:
                seen.add((key, value))
            case Scan():
                seen |= set(event.found.items())
            case _:
                pass
    return seen


@pytest.mark.torture
def test_many_thousand_transactions_are_judged_in_seconds() -> None:
    """The bound is far from what it takes, so that a busy machine does not matter; a quadratic step would be over it."""
    size = 50_000 if os.environ.get("CAMBER_TORTURE") else 10_000
    history = serial_history(Random(1), size, keys=size // 20, timed=0.5, unknown=0.05)
    begun = time.process_time()
    assert not check(history)
    assert time.process_time() - begun < size / 1000
