"""What a run has read, as ranges of index keys, and which runs a commit touches.

A read is `(table, index, lower, upper, prefix)`. A commit is the keys it touched, old and new, by table and index. Whether the
one meets the other is decided by plain comparison here, for conflicts and for live results alike.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

IndexName = tuple[int, int]
"""A table's number and an index's number in it."""

WHOLE_TABLE_BYTES = 64 * 1024
"""Above this many bytes of keys a commit says of its tables only that they were touched."""

ReaderT = TypeVar("ReaderT", bound=Hashable)


class Read(NamedTuple):
    """One range that was read: keys from `lower` on and below `upper` (None: to the end).

    All of them begin with `prefix`, which is empty or ends where a field ends.
    """

    table: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    lower: bytes
    upper: bytes | None
    prefix: bytes = b""


class Touched:
    """The keys a commit touched: by index, or whole tables where there are too many."""

    __slots__ = ("keys", "size", "tables")

    def __init__(self, keys: Mapping[IndexName, Iterable[bytes]], tables: Iterable[int] = ()) -> None:
        self.keys = {index: tuple(found) for index, found in keys.items()}
        self.tables = frozenset(tables)
        self.size = sum([len(b"".join(found)) for found in self.keys.values()])
        """Bytes of all keys."""

    def meets(self, reads: Iterable[Read]) -> bool:
        """Whether anything that was read may be other than before."""
        for table, index, lower, upper, _ in reads:
            if table in self.tables:
                return True
            for key in self.keys.get((table, index), ()):
                if key >= lower and (upper is None or key < upper):
                    return True
        return False

    def concerns(self, tables: Collection[int]) -> bool:
        """Whether anything in one of these tables was touched."""
        return not self.tables.isdisjoint(tables) or any(table in tables for table, _ in self.keys)

    def brief(self) -> Touched:
        """The same to be kept: too many keys become the names of their tables."""
        if self.size <= WHOLE_TABLE_BYTES:
            return self
        return Touched({}, self.tables | {table for table, _ in self.keys})

    def encode(self) -> bytes:
        """The form in the commit log (msgpack)."""
        return msgspec.msgpack.encode(([(*index, found) for index, found in self.keys.items()], sorted(self.tables)))

    @classmethod
    def decode(cls, encoded: bytes) -> Touched:
        """The inverse of `encode`."""
        if not encoded:
            return cls({})
        keys, tables = msgspec.msgpack.decode(encoded, type=tuple[list[tuple[int, int, list[bytes]]], list[int]])
        return cls({(table, index): found for table, index, found in keys}, tables)


Span = tuple[bytes, bytes | None]
"""Lower and upper bound of a range."""

_MOST_SPANS = 16
"""Spans under one prefix that are compared one by one; further ones go where finding them is a search."""


class ReadIndex(Generic[ReaderT]):
    """Finds the readers that a commit touches, at a cost that follows the commit and not the number of readers.

    A range inside a prefix (every equality look-up) is found by hashing the prefixes of a touched key; any other in a tree of
    intervals. Not safe for several threads: the caller holds a lock.
    """

    def __init__(self) -> None:
        self._by_prefix: dict[IndexName, dict[bytes, dict[Span, set[ReaderT]]]] = {}
        self._by_range: dict[IndexName, IntervalTree[ReaderT]] = {}
        self._by_table: dict[int, set[ReaderT]] = {}

    def add(self, reader: ReaderT, reads: Sequence[Read]) -> None:
        """Let this reader be found by what it read; once, until it is removed."""
        for table, index, lower, upper, prefix in reads:
            name = (table, index)
            if not prefix or not self._add_below(name, prefix, (lower, upper), reader):
                tree = self._by_range.get(name)
                if tree is None:
                    tree = self._by_range[name] = IntervalTree()
                tree.add(lower, upper, reader)
            readers = self._by_table.get(table)
            if readers is None:
                self._by_table[table] = {reader}
            else:
                readers.add(reader)

    def remove(self, reader: ReaderT, reads: Sequence[Read]) -> None:
        """Forget a reader; `reads` as they were when it was added."""
        for table, index, lower, upper, prefix in reads:
            name = (table, index)
            in_tree = not prefix or not self._remove_below(name, prefix, (lower, upper), reader)
            if in_tree and (tree := self._by_range.get(name)):
                tree.remove(lower, upper, reader)
                if not tree:
                    del self._by_range[name]
            readers = self._by_table.get(table)
            if readers is not None:
                readers.discard(reader)
                if not readers:
                    del self._by_table[table]

    def all(self) -> set[ReaderT]:
        """Every reader that read anything."""
        found: set[ReaderT] = set()
        for readers in self._by_table.values():
            found |= readers
        return found

    def touched_by(self, touched: Touched) -> set[ReaderT]:
        """The readers of which something was touched."""
        found: set[ReaderT] = set()
        for table in touched.tables:
            found.update(self._by_table.get(table, ()))
        for name, keys in touched.keys.items():
            if prefixes := self._by_prefix.get(name):
                for key in keys:
                    for end in part_ends(key):
                        if spans := prefixes.get(key[:end]):
                            for (lower, upper), readers in spans.items():
                                if lower <= key and (upper is None or key < upper):
                                    found |= readers
            if tree := self._by_range.get(name):
                for key in keys:
                    found.update(tree.containing(key))
        return found

    def _add_below(self, name: IndexName, prefix: bytes, span: Span, reader: ReaderT) -> bool:
        """Add a range under its prefix; False where there are too many already."""
        prefixes = self._by_prefix.get(name)
        if prefixes is None:
            prefixes = self._by_prefix[name] = {}
        spans = prefixes.get(prefix)
        if spans is None:
            prefixes[prefix] = {span: {reader}}
        elif (readers := spans.get(span)) is not None:
            readers.add(reader)
        elif len(spans) < _MOST_SPANS:
            spans[span] = {reader}
        else:
            return False
        return True

    def _remove_below(self, name: IndexName, prefix: bytes, span: Span, reader: ReaderT) -> bool:
        """The opposite; False if it is not there."""
        prefixes = self._by_prefix.get(name, {})
        spans = prefixes.get(prefix, {})
        readers = spans.get(span)
        if readers is None or reader not in readers:
            return False
        readers.discard(reader)
        if not readers:
            del spans[span]
            if not spans:
                del prefixes[prefix]
                if not prefixes:
                    del self._by_prefix[name]
        return True


def part_ends(key: bytes) -> Iterator[int]:
    """Where the parts of a full key end, outermost parts only: the boundaries between fields, and the end of the key."""
    at, end = 0, len(key)
    while at < end:
        at = _part_end(key, at)
        yield min(at, end)
        if end - at == 16:  # the bare id behind the creation time is no tagged part
            yield end
            return


def _part_end(key: bytes, at: int) -> int:
    """Where the part that begins at `at` ends. The tags and forms are those of `camber.values.key_of`."""
    depth = 0
    while True:
        tag = key[at]
        at += 1
        if tag == 0x00:
            depth -= 1
        elif tag in (0x03, 0x04):
            at += 8
        elif tag in (0x07, 0x08):
            at = _text_end(key, at)
        elif tag in (0x09, 0x0A):
            depth += 1
        elif tag == 0x01 and depth:  # before each name in an object; on its own it is a missing field
            at = _text_end(key, at)
            continue
        if depth == 0:
            return at


def _text_end(key: bytes, at: int) -> int:
    while True:
        at = key.index(0, at) + 1
        if at >= len(key) or key[at] != 0xFF:
            return at
        at += 1


_priorities = random.Random()


class _Node(Generic[ReaderT]):
    __slots__ = ("farthest", "left", "lower", "priority", "readers", "right", "upper")

    def __init__(self, lower: bytes, upper: bytes | None, priority: float) -> None:
        self.lower, self.upper, self.priority = lower, upper, priority
        self.farthest = upper
        self.readers: set[ReaderT] = set()
        self.left: _Node[ReaderT] | None = None
        self.right: _Node[ReaderT] | None = None


class IntervalTree(Generic[ReaderT]):
    """Intervals of keys and who read them: a treap ordered by interval in which each node knows the farthest end below it."""

    def __init__(self) -> None:
        self._root: _Node[ReaderT] | None = None
        self._nodes: dict[Span, _Node[ReaderT]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, lower: bytes, upper: bytes | None, reader: ReaderT) -> None:
        """Add a reader of `lower <= key < upper`."""
        node = self._nodes.get((lower, upper))
        if node is None:
            node = self._nodes[lower, upper] = _Node(lower, upper, _priorities.random())
            self._root = _merge(*self._around(node))
        node.readers.add(reader)

    def remove(self, lower: bytes, upper: bytes | None, reader: ReaderT) -> None:
        """Forget a reader of this interval."""
        node = self._nodes.get((lower, upper))
        if node is None:
            return
        node.readers.discard(reader)
        if not node.readers:
            del self._nodes[lower, upper]
            self._root = _without(self._root, node)

    def containing(self, key: bytes) -> Iterator[ReaderT]:
        """The readers of all intervals in which the key lies."""
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node is None or (node.farthest is not None and node.farthest <= key):
                continue
            waiting.append(node.left)
            if node.lower <= key:
                if node.upper is None or key < node.upper:
                    yield from node.readers
                waiting.append(node.right)

    def _around(self, node: _Node[ReaderT]) -> tuple[_Node[ReaderT] | None, _Node[ReaderT] | None]:
        before, after = _split(self._root, node)
        return _merge(before, node), after


def _order(node: _Node[ReaderT]) -> tuple[bytes, bool, bytes]:
    return node.lower, node.upper is None, node.upper or b""


def _renew(node: _Node[ReaderT]) -> _Node[ReaderT]:
    farthest = node.upper
    for child in (node.left, node.right):
        if child is not None and farthest is not None:
            farthest = None if child.farthest is None else max(farthest, child.farthest)
    node.farthest = farthest
    return node


def _split(root: _Node[ReaderT] | None, pivot: _Node[ReaderT]) -> tuple[_Node[ReaderT] | None, _Node[ReaderT] | None]:
    if root is None:
        return None, None
    if _order(root) < _order(pivot):
        root.right, after = _split(root.right, pivot)
        return _renew(root), after
    before, root.left = _split(root.left, pivot)
    return before, _renew(root)


def _merge(before: _Node[ReaderT] | None, after: _Node[ReaderT] | None) -> _Node[ReaderT] | None:
    if before is None or after is None:
        return before or after
    if before.priority > after.priority:
        before.right = _merge(before.right, after)
        return _renew(before)
    after.left = _merge(before, after.left)
    return _renew(after)


def _without(root: _Node[ReaderT] | None, gone: _Node[ReaderT]) -> _Node[ReaderT] | None:
    if root is None:
        return None
    if root is gone:
        return _merge(root.left, root.right)
    if _order(gone) < _order(root):
        root.left = _without(root.left, gone)
    else:
        root.right = _without(root.right, gone)
    return _renew(root)
