"""The library, tested with the kit."""

from __future__ import annotations

from typing import assert_type

import pytest
from backend.books import Counts, add, borrow, counts, get_book, list_books, sign_up
from backend.letters import order, remind
from backend.schema import Book, schema

from camber import ConvexError, Int64, Page, QueryCtx, minutes
from camber.testing import Backend, Person, WatchedQuery


def reader(backend: Backend) -> Person:
    backend.run(sign_up, name="Ann", email="ann@example.com")
    return backend.as_user(email="ann@example.com")


def test_a_book_is_lent_once(backend: Backend) -> None:
    ann = reader(backend)
    book_id = backend.run(add, title="Emma", isbn=Int64(1), place={"shelf": "A", "number": 3})
    assert_type(book_id, str)

    due = ann.run(borrow, book_id=book_id)
    with pytest.raises(ConvexError, match="Not here"):
        ann.run(borrow, book_id=book_id)

    assert due == backend.clock.now_ms + minutes(28 * 24 * 60)
    assert backend.run(counts) == {"total": 1, "out": 1}


def test_what_is_stored_comes_back_in_its_types(backend: Backend) -> None:
    book_id = backend.run(order, title="Emma")
    book = backend.anonymous.run(get_book, book_id=book_id)
    assert_type(book, Book | None)

    assert book is not None
    assert (book["isbn"], type(book["isbn"])) == (9_780_000_000_000, Int64)
    assert type(book["place"]["number"]) is int
    assert "borrowedBy" not in book


def test_a_page(backend: Backend) -> None:
    page = backend.run(list_books, pagination_opts={"numItems": 10, "cursor": None})
    assert_type(page, Page[Book])

    assert page["isDone"]


def test_an_action_returns_what_it_awaited(backend: Backend) -> None:
    sent = backend.run(remind, since=0.0)
    assert_type(sent, int)

    assert sent == 0
    assert backend.from_address("192.0.2.1").run("letters:remind", {"since": 0}) == 0


def test_a_query_is_watched(backend: Backend) -> None:
    with backend.subscribe(counts) as seen, reader(backend).subscribe("books:counts", {}) as by_path:
        assert_type(seen, WatchedQuery[Counts])
        backend.run(order, title="Emma")

        assert seen.wait_for(lambda found: found["total"] == 1) == {"total": 1, "out": 0}
        assert_type(seen.values, list[Counts])
        assert (seen.error, by_path.value) == (None, seen.value)


def titles(ctx: QueryCtx) -> list[str]:
    return [book["title"] for book in ctx.db.query("books")]


def test_without_a_folder() -> None:
    with Backend.in_memory(schema, {"books:titles": titles}) as backend, backend.counting_reads() as reads:
        assert backend.run("books:titles") == []
        assert (reads.ranges, backend.sql("SELECT count(*) FROM books")) == (1, [(0,)])
