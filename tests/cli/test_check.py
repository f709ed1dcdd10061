"""`camber check`: the code, its names, and its schema against the data, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import camber, server


@pytest.fixture(params=["the data alone", "a running server"])
def with_a_book(request: pytest.FixtureRequest, with_data: Path) -> Iterator[Path]:
    """A project with a document, and perhaps a server that has it."""
    if request.param == "the data alone":
        assert camber(with_data, "run", "books:add", '{title: "Dune"}').code == 0
        yield with_data
    else:
        with server(with_data):
            assert camber(with_data, "run", "books:add", '{title: "Dune"}').code == 0
            yield with_data


def change_schema(project: Path, old: str, new: str) -> None:
    file = project / "backend/schema.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_application_that_fits_its_data_passes(with_a_book: Path) -> None:
    result = camber(with_a_book, "check")

    assert (result.code, result.err) == (0, ""), result
    assert "backend loads: 8 functions, 2 tables" in result.out
    assert f"the data in {with_a_book / '.camber'} fits" in result.out


def test_what_the_next_start_would_change_is_said_and_not_done(with_a_book: Path) -> None:
    change_schema(with_a_book, '.index("by_title", ["title"])', '.index("by_pages", ["pages"])')

    for _ in range(2):
        result = camber(with_a_book, "check")
        assert result.code == 0, result
        assert 'the next start will create index "books.by_pages"' in result.out
        assert 'the next start will drop index "books.by_title"' in result.out


def test_every_document_that_does_not_fit_is_named(with_a_book: Path) -> None:
    camber(with_a_book, "run", "books:add", '{title: "Emma"}')
    ids = [line.split('"')[3] for line in camber(with_a_book, "sql", "SELECT _id FROM books").out.splitlines()]
    change_schema(with_a_book, "    title: str\n", "    title: str\n    author: str\n")

    result = camber(with_a_book, "check")

    assert result.code == 1, result
    assert "2 misfits" in result.err
    assert all(f'Document with ID "{id}" in table "books"' in result.err for id in ids)
    assert "author" in result.err


def test_whole_numbers_are_told_from_others(with_a_book: Path) -> None:
    change_schema(with_a_book, "    pages: int\n", "    pages: float\n")
    assert camber(with_a_book, "check").code == 0
    change_schema(with_a_book, "    pages: float\n", "    pages: str\n")
    assert camber(with_a_book, "check").code == 1


def test_code_that_does_not_load_ends_with_every_problem(project: Path) -> None:
    (project / "backend/broken.py").write_text("def broken(:\n")
    (project / "backend/colour.py").write_text(
        "from camber import QueryCtx, query\n\n\n@query\nasync def slow(ctx: QueryCtx) -> None: ...\n"
    )

    result = camber(project, "check", "--no-data")

    assert (result.code, result.out) == (1, ""), result
    assert "2 problems" in result.err
    assert "backend/broken.py:1: invalid syntax" in result.err
    assert "backend/colour.py:4: slow is an `async def`" in result.err


def test_names_beside_the_conventions_are_warned_of(project: Path) -> None:
    (project / "backend/schema.py").write_text(
        """
from camber import define_schema, define_table, v

codes = define_table("BackerCodes", {
    "access_code": v.string(), "usedAt": v.optional(v.array(v.object({"DayOfWeek": v.number()}))),
}).index("access", ["access_code"])
books = define_table("books", {"title": v.string(), "pages": v.number()}).index("by_title", ["title"])
settings = define_table("settings", {"key": v.string(), "isOpen": v.boolean()})

schema = define_schema(codes, books, settings)
"""
    )

    result = camber(project, "check", "--no-data")

    assert result.code == 0, result
    assert result.err.splitlines() == [
        'warning: table "BackerCodes": tables are named in snake_case, as in "backer_codes"',
        'warning: table "BackerCodes", field "access_code": fields are named in camelCase, as in "accessCode"',
        'warning: table "BackerCodes", field "DayOfWeek": fields are named in camelCase, as in "dayOfWeek"',
        'warning: table "BackerCodes", index "access": indexes are named by_ and what they are for',
    ]


def test_bad_habits_are_warned_of(project: Path) -> None:
    (project / "backend/clock.py").write_text(
        "import time\n\nfrom camber import QueryCtx, query\n\n\n@query\ndef now(ctx: QueryCtx) -> float:\n    return time.time()\n"
    )

    result = camber(project, "check", "--no-data")

    assert result.code == 0, result
    assert "warning: backend/clock.py:8: now is a query and uses time.time; use ctx.now" in result.err


def test_the_application_of_this_repository_passes() -> None:
    result = camber(Path(__file__).resolve().parents[2], "check", "--no-data")

    assert (result.code, result.err) == (0, ""), result


def test_without_data_it_says_where_it_looked(project: Path) -> None:
    result = camber(project, "check")

    assert result.code == 2, result
    assert f"{project / '.camber'}, {project.parent / '.camber'}" in result.err
    assert "--no-data" in result.err
    assert not (project / ".camber").exists()
