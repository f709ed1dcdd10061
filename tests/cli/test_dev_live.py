"""`camber dev` with live clients: what they watch follows the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Serving, camber, rewrite, serving
from tests.wire.raw_client import RawClient, adding, raw_client

SECRET = '\n\n@query\ndef quiet(ctx: QueryCtx) -> str:\n    """Say nothing."""\n    return "hush"\n'


@pytest.fixture
def dev(project: Path) -> Iterator[Serving]:
    """`camber dev` in the project, with one book, ready."""
    with serving(project, "dev") as running:
        running.wait_for("Reloads when a file changes")
        camber(project, "run", "books:add", '{"title": "Dune"}')
        yield running


@pytest.fixture
def client(dev: Serving) -> Iterator[RawClient]:
    """A page that shows the titles and the motto."""
    with raw_client(dev.url) as client:
        client.connect()
        client.modify(adding(0, "books:titles"), adding(1, "settings:motto"))
        client.hear_transition()
        assert client.values == {0: ["Dune"], 1: "none"}
        yield client


def change(project: Path, file: str, old: str, new: str) -> None:
    path = project / "backend" / file
    text = path.read_text()
    assert old in text
    rewrite(path, text.replace(old, new))


def shelve(dev: Serving, title: str) -> None:
    """Put a book on the shelf as another client."""
    with raw_client(dev.url) as other:
        other.connect()
        other.mutation(0, "books:add", title=title)
        assert other.hear_response()["success"]


def test_a_value_that_new_code_changes_is_pushed_and_the_others_are_not(
    dev: Serving, client: RawClient, project: Path
) -> None:
    change(project, "books.py", 'return [book["title"] for', 'return [book["title"].upper() for')
    pushed = client.hear_transition()
    dev.wait_for("reloaded: books.py")

    assert [(m["queryId"], m["value"]) for m in pushed["modifications"]] == [(0, ["DUNE"])]
    shelve(dev, "Emma")
    assert [m["queryId"] for m in client.hear_transition()["modifications"]] == [0]
    assert client.values == {0: ["DUNE", "EMMA"], 1: "none"}


def test_a_change_that_changes_no_value_pushes_nothing(dev: Serving, client: RawClient, project: Path) -> None:
    change(project, "books.py", '"""Put a book on the shelf."""', '"""Shelve a book."""')
    dev.wait_for("reloaded: books.py")
    client.modify()

    answer = client.hear_transition()

    assert (answer["endVersion"]["querySet"], answer["modifications"]) == (2, [])


def test_a_function_that_goes_is_an_error_until_it_is_back(dev: Serving, client: RawClient, project: Path) -> None:
    change(project, "settings.py", "def motto(", "def slogan(")
    (gone,) = client.hear_transition()["modifications"]
    change(project, "settings.py", "def slogan(", "def motto(")
    (back,) = client.hear_transition()["modifications"]

    assert (gone["type"], gone["queryId"]) == ("QueryFailed", 1)
    assert "Could not find public function for 'settings:motto'" in gone["errorMessage"]
    assert "errorData" not in gone
    assert (back["type"], back["queryId"], back["value"]) == ("QueryUpdated", 1, "none")


def test_a_function_that_becomes_internal_is_gone_for_clients(dev: Serving, client: RawClient, project: Path) -> None:
    change(project, "settings.py", "@query\n", "@internal_query\n")
    change(project, "settings.py", "mutation, query", "internal_query, mutation")

    (gone,) = client.hear_transition()["modifications"]

    assert (gone["type"], gone["queryId"]) == ("QueryFailed", 1)
    assert "Could not find public function" in gone["errorMessage"]


def test_a_function_that_is_written_while_a_page_asks_for_it_appears(
    dev: Serving, client: RawClient, project: Path
) -> None:
    client.modify(adding(2, "books:quiet"))
    (before,) = client.hear_transition()["modifications"]

    change(project, "books.py", "\n\n@action\n", SECRET + "\n\n@action\n")
    (after,) = client.hear_transition()["modifications"]

    assert before["type"] == "QueryFailed"
    assert (after["queryId"], after["value"]) == (2, "hush")


def test_what_makes_no_sense_still_makes_none_with_new_code(dev: Serving, client: RawClient, project: Path) -> None:
    client.modify(adding(2, "not a path"), {"type": "Add", "queryId": 3, "udfPath": "settings:motto", "args": [1]})
    client.hear_transition()
    told = dict(client.values)

    change(project, "books.py", 'return [book["title"] for', 'return [book["title"].upper() for')
    pushed = client.hear_transition()

    assert [m["queryId"] for m in pushed["modifications"]] == [0]
    assert client.values == told | {0: ["DUNE"]}


def test_what_does_not_load_leaves_clients_on_the_version_before(
    dev: Serving, client: RawClient, project: Path
) -> None:
    change(project, "books.py", "-> list[str]:", "-> list[str]")
    dev.wait_for("is still served")

    shelve(dev, "Emma")

    assert [(m["queryId"], m["value"]) for m in client.hear_transition()["modifications"]] == [(0, ["Dune", "Emma"])]
    change(project, "books.py", "-> list[str]", "-> list[str]:")
    dev.wait_for("reloaded: books.py")
    client.modify()
    assert client.hear_transition()["modifications"] == []


def test_a_schema_that_the_data_does_not_fit_leaves_clients_on_the_version_before(
    dev: Serving, client: RawClient, project: Path
) -> None:
    change(project, "schema.py", "    title: str\n", "    title: str\n    author: str\n")
    change(project, "settings.py", '"none"', '"nothing"')
    dev.wait_for("is still served")
    shelve(dev, "Emma")
    assert client.hear_transition()["modifications"][0]["value"] == ["Dune", "Emma"]

    change(project, "schema.py", "    author: str\n", "    author: NotRequired[str]\n")
    (motto,) = client.hear_transition()["modifications"]

    assert (motto["queryId"], motto["value"]) == (1, "nothing")


def test_a_mutation_that_runs_while_the_code_changes_is_answered(
    dev: Serving, client: RawClient, project: Path
) -> None:
    change(project, "books.py", 'return [book["title"] for', 'return [book["title"].upper() for')
    for number in range(200):
        client.mutation(number, "books:add", title=f"Volume {number}")
    answered: list[int] = []
    while len(answered) < 200 or len(client.values[0]) < 201 or client.values[0][0] != "DUNE":
        message = client.hear()
        if message["type"] == "MutationResponse":
            assert message["success"]
            answered.append(message["requestId"])

    assert answered == list(range(200))
