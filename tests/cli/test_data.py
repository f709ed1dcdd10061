"""`camber data` and `camber sql`: looking at what is stored."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import pytest

from tests.cli.commands import camber

COVER = '{title: "Dune", barcode: {$integer: "//////////8="}, cover: {$bytes: "AAE="}}'


@pytest.fixture(scope="module")
def filled(deployment: Path) -> Path:
    """A library with 1,201 books."""
    for words in (
        ["books:add", '{title: "Dune"}'],
        ["books:label", COVER],
        ["settings:open"],
        ["books:addMany", "{count: 1200}"],
    ):
        assert camber(deployment, "run", *words).code == 0
    return deployment


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_tables_are_listed_with_counts_descriptions_and_how_they_are_written(filled: Path) -> None:
    for_programs = camber(filled, "data")
    for_people = camber(filled, "data", "--format", "table")

    assert [(row["name"], row["count"], row["writeWith"]) for row in rows(for_programs.out)] == [
        ("books", 1201, None),
        ("settings", 1, "settings:open"),
    ], for_programs
    lines = [line.split() for line in for_people.out.splitlines()]
    assert ["books", "1,201", "Books", "that", "can", "be", "borrowed."] in lines, for_people
    assert ["settings", "1", "How", "the", "library", "is", "run.", "written", "through", "settings:open"] in lines


def test_the_newest_hundred_are_shown_and_that_there_are_more(filled: Path) -> None:
    result = camber(filled, "data", "books")

    assert [row["title"] for row in rows(result.out)] == [f"Volume {number}" for number in range(1199, 1099, -1)], (
        result
    )
    assert "the first 100 documents; there are more" in result.err


def test_all_are_shown_oldest_first_where_that_is_asked_for(filled: Path) -> None:
    result = camber(filled, "data", "books", "--order", "asc", "--limit", "0")

    found = rows(result.out)
    assert (len(found), found[0]["title"], found[-1]["title"]) == (1201, "Dune", "Volume 1199")
    assert result.err == ""


def test_a_limit_that_all_fit_into_is_no_news(filled: Path) -> None:
    result = camber(filled, "data", "settings", "--limit", "1")

    assert (len(rows(result.out)), result.err) == (1, ""), result


def test_json_is_one_array_and_values_are_in_encoded_form(filled: Path) -> None:
    result = camber(filled, "data", "books", "--order", "asc", "--limit", "1", "--format", "json")

    (book,) = json.loads(result.out)
    assert book["barcode"] == {"$integer": "//////////8="}, result
    assert book["cover"] == {"$bytes": "AAE="}
    assert '"pages": 100' in result.out


def test_csv_has_a_column_for_every_field_and_plain_values(filled: Path) -> None:
    result = camber(filled, "data", "books", "--order", "asc", "--limit", "2", "--format", "csv")

    header, first, second = csv.reader(StringIO(result.out))
    assert header == ["_id", "_creationTime", "barcode", "borrower", "cover", "pages", "title"], result
    assert first[2:] == ["-1", "", "AAE=", "100", "Dune"]
    assert second[2:] == ["", "", "", "0", "Volume 0"]


def test_a_table_has_readable_times_and_says_how_the_table_is_written(filled: Path) -> None:
    result = camber(filled, "data", "settings", "--format", "table")

    header, _, row = (line for line in result.out.splitlines() if line.strip())
    assert header.split() == ["_id", "_creationTime", "isOpen", "key"], result
    assert row.split()[1].count("-") == 2
    assert row.split()[3:] == ["true", "library"]
    assert "written through settings:open" in result.err


def test_an_unknown_table_ends_with_the_nearest_one(filled: Path) -> None:
    result = camber(filled, "data", "book")

    assert (result.code, result.out) == (1, ""), result
    assert 'There is no table "book". Did you mean books?' in result.err


def test_stored_text_can_not_steer_a_terminal(filled: Path) -> None:
    camber(filled, "run", "books:add", r'{title: "\x1b]0;gone\x07\x9b2J\u202e", pages: 7}')

    shown = [
        camber(filled, "data", "books", "--limit", "1", "--format", "table").out,
        camber(filled, "data", "books", "--limit", "1").out,
        camber(filled, "run", "books:titles").out,
        camber(filled, "sql", "SELECT title FROM books WHERE pages = 7", "--format", "table").out,
    ]

    for text in shown:
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text), text
        assert "gone" in text


def test_sql_reads_the_tables_under_their_names(filled: Path) -> None:
    result = camber(
        filled, "sql", "SELECT title, pages, typeof(pages) AS kind, cover FROM books ORDER BY _creationTime LIMIT 1"
    )

    assert rows(result.out) == [{"title": "Dune", "pages": 100, "kind": "real", "cover": "AAE="}], result


def test_sql_comes_from_stdin_and_goes_to_csv(filled: Path) -> None:
    statement = (
        "SELECT count(*) AS books, max(pages) AS pages, NULL AS missing FROM books WHERE pages < 1200 AND pages != 7"
    )

    result = camber(filled, "sql", "-", "--format", "csv", stdin=statement)

    assert result.out == "books,pages,missing\n1200,1199,null\n", result


def test_sql_says_that_there_are_more_rows_than_were_asked_for(filled: Path) -> None:
    result = camber(filled, "sql", "SELECT title FROM books", "--limit", "2")

    assert len(rows(result.out)) == 2
    assert "there are more" in result.err, result


def test_two_columns_of_one_name_are_told_apart(filled: Path) -> None:
    result = camber(filled, "sql", "SELECT 1 AS n, 2 AS n")

    assert rows(result.out) == [{"n": 1, "n_2": 2}], result


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE lists (name)", "only statements that read"),
        ("SELECT nmae FROM books", "no such column: nmae"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("", "no SQL statement"),
    ],
)
def test_sql_that_is_refused_ends_with_the_reason_and_exit_code_1(filled: Path, statement: str, message: str) -> None:
    result = camber(filled, "sql", statement)

    assert (result.code, result.out) == (1, ""), result
    assert message in result.err


def test_without_a_statement_sql_says_what_can_be_selected_from(filled: Path) -> None:
    result = camber(filled, "sql")

    assert "settings (_id, _creationTime, isOpen, key)\n" in result.out, result


def test_function_spec_describes_every_function(deployment: Path) -> None:
    spec = json.loads(camber(deployment, "function-spec").out)

    described = {function["identifier"]: function for function in spec["functions"]}
    assert described["books.js:addMany"]["functionType"] == "Mutation"
    assert described["books.js:addMany"]["visibility"] == {"kind": "internal"}
    assert described["books.js:echo"]["functionType"] == "Action"
    assert spec["url"].startswith("http://127.0.0.1:")
