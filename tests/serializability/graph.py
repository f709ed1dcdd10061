"""Which transaction must come before which, and the circles in that: each is named as Adya's and Elle's papers do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple


class Kind(IntEnum):
    """Why one comes before another; the last three are no matter of what was read and written."""

    WW = 0
    WR = 1
    RW = 2
    PROCESS = 3
    REALTIME = 4
    TIMESTAMP = 5


class Edge(NamedTuple):
    """`source` comes before `target`."""

    source: int
    target: int
    kind: Kind
    why: str = ""


_CLOCKS = [
    ("", frozenset[Kind]()),
    ("-process", frozenset({Kind.PROCESS})),
    ("-realtime", frozenset({Kind.PROCESS, Kind.REALTIME})),
    ("-timestamp", frozenset({Kind.PROCESS, Kind.REALTIME, Kind.TIMESTAMP})),
]
"""What a circle may need besides dependencies, and what it is called then."""

_MAX_TRIES = 500
"""So many anti-dependencies of a tangle are tried for a circle with only one of them."""


class Graph:
    """Transactions by their numbers, and moments between them, with arrows from earlier to later."""

    def __init__(self, transactions: int) -> None:
        self._transactions = transactions
        self._edges: list[list[Edge]] = [[] for _ in range(transactions)]

    def add(self, source: int | None, target: int | None, kind: Kind, why: str = "") -> None:
        """One comes before the other; nothing where one of them is not there, or they are the same."""
        if source is not None and target is not None and source != target:
            self._edges[source].append(Edge(source, target, kind, why))

    def moments(self, count: int, kind: Kind) -> range:
        """Numbers of so many moments that follow each other."""
        first = len(self._edges)
        self._edges += [[] for _ in range(count)]
        for number in range(first + 1, first + count):
            self.add(number - 1, number, kind)
        return range(first, first + count)

    def order(self) -> list[int]:
        """The transactions, each behind all that must come before it; there must be no circles."""
        tangles = reversed(self._tangles)
        return [each for tangle in tangles for each in tangle if each < self._transactions]

    def circles(self) -> Iterator[tuple[str, list[Edge]]]:
        """From each tangle of transactions that can't be put in order the gravest circle, with its name."""
        for tangle in self._tangles:
            if len(tangle) > 1:
                yield self._gravest(tangle)

    @cached_property
    def _tangles(self) -> list[list[int]]:
        return _components({number: [edge.target for edge in edges] for number, edges in enumerate(self._edges)})

    def _gravest(self, tangle: Sequence[int]) -> tuple[str, list[Edge]]:
        members = set(tangle)
        edges = [edge for number in tangle for edge in self._edges[number] if edge.target in members]
        for suffix, clocks in _CLOCKS:
            usable = [edge for edge in edges if edge.kind in clocks or edge.kind <= Kind.RW]
            writes = [edge for edge in usable if edge.kind not in (Kind.WR, Kind.RW)]
            if circle := _circle(writes, Kind.WW):
                return f"G0{suffix}", self._told(circle)
            known = [edge for edge in usable if edge.kind is not Kind.RW]
            if circle := _circle(known, Kind.WR):
                return f"G1c{suffix}", self._told(circle)
            if circle := _single(known, usable):
                return f"G-single{suffix}", self._told(circle)
            if circle := _circle(usable, Kind.RW):
                return f"G2{suffix}", self._told(circle)
        circle = _circle(edges, Kind.TIMESTAMP)
        assert circle, "a circle of nothing but time"
        return "timestamps-against-time", self._told(circle)

    def _told(self, circle: Sequence[Edge]) -> list[Edge]:
        """The circle from transaction to transaction, without moments."""
        start = next(place for place, edge in enumerate(circle) if edge.source < self._transactions)
        told: list[Edge] = []
        for edge in (*circle[start:], *circle[:start]):
            if edge.source < self._transactions:
                told.append(edge)
            else:
                told[-1] = told[-1]._replace(target=edge.target)
        return told


def _circle(edges: Iterable[Edge], kind: Kind) -> list[Edge]:
    """A short circle with at least one edge of this kind; nothing where there is none."""
    by_source = _by_source(edges)
    place: dict[int, int] = {}
    for number, component in enumerate(_components(_targets_of(by_source))):
        place.update(dict.fromkeys(component, number))
    for edges_of_one in by_source.values():
        for edge in edges_of_one:
            if edge.kind is kind and place[edge.source] == place[edge.target]:
                return [edge, *_path(by_source, edge.target, edge.source)]
    return []


def _single(known: Iterable[Edge], usable: Iterable[Edge]) -> list[Edge]:
    """A circle with exactly one anti-dependency."""
    by_source = _by_source(known)
    tries = [edge for edge in usable if edge.kind is Kind.RW][:_MAX_TRIES]
    for edge in tries:
        if path := _path(by_source, edge.target, edge.source):
            return [edge, *path]
    return []


def _path(by_source: Mapping[int, Sequence[Edge]], start: int, end: int) -> list[Edge]:
    """The shortest way from one to the other; nothing where there is none."""
    came_by: dict[int, Edge | None] = {start: None}
    waiting = deque([start])
    while waiting and end not in came_by:
        for edge in by_source.get(waiting.popleft(), ()):
            if edge.target not in came_by:
                came_by[edge.target] = edge
                waiting.append(edge.target)
    path: list[Edge] = []
    step = came_by.get(end)
    while step is not None:
        path.append(step)
        step = came_by[step.source]
    return path[::-1]


def _by_source(edges: Iterable[Edge]) -> dict[int, list[Edge]]:
    found: dict[int, list[Edge]] = {}
    for edge in edges:
        found.setdefault(edge.source, []).append(edge)
        found.setdefault(edge.target, [])
    return found


def _targets_of(by_source: Mapping[int, Sequence[Edge]]) -> dict[int, list[int]]:
    return {source: [edge.target for edge in edges] for source, edges in by_source.items()}


def _components(targets: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """The strongly connected components, by Tarjan's algorithm: those that come later first."""
    components: list[list[int]] = []
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in targets:
        if root in index:
            continue
        path = [(root, iter(targets[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while path:
            node, following = path[-1]
            for target in following:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    path.append((target, iter(targets[target])))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == index[node]:
                    components.append(_taken(stack, on_stack, node))
    return components


def _taken(stack: list[int], on_stack: set[int], last: int) -> list[int]:
    component: list[int] = []
    while not component or component[-1] != last:
        component.append(stack.pop())
        on_stack.discard(component[-1])
    return component


__all__ = ["Edge", "Graph", "Kind"]
