"""`camber run`: calling functions, on a running server and on the data alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camber.cli.run import function_path
from camber.errors import ConfigurationError
from tests.cli.commands import camber


def test_a_result_is_printed_as_json_and_what_was_logged_on_stderr(deployment: Path) -> None:
    added = camber(deployment, "run", "books:add", '{"title": "Dune"}')
    titles = camber(deployment, "run", "books:titles")

    assert (added.code, added.err) == (0, "[INFO] 'adding Dune'\n"), added
    assert len(json.loads(added.out)) == 32
    assert (titles.code, titles.out, titles.err) == (0, '[\n  "Dune"\n]\n', ""), titles


def test_null_prints_nothing(deployment: Path) -> None:
    result = camber(deployment, "run", "books:reader")

    assert (result.code, result.out, result.err) == (0, "", ""), result


def test_internal_functions_and_actions_can_be_called(deployment: Path) -> None:
    filled = camber(deployment, "run", "books:addMany", "{count: 2}")
    echoed = camber(deployment, "run", "books:echo", "{value: [1, 2.5, null]}")

    assert (filled.code, filled.out) == (0, ""), filled
    assert echoed.out == "[\n  1,\n  2.5,\n  null\n]\n", echoed


def test_int64_and_bytes_go_in_and_come_out_in_encoded_form(deployment: Path) -> None:
    result = camber(
        deployment, "run", "books:echo", '{value: {n: {$integer: "BQAAAAAAAAA="}, b: {$bytes: "AAE="}, x: -Infinity}}'
    )

    assert json.loads(result.out) == {
        "n": {"$integer": "BQAAAAAAAAA="},
        "b": {"$bytes": "AAE="},
        "x": {"$float": "AAAAAAAA8P8="},
    }, result


def test_a_function_that_fails_ends_with_its_message_and_exit_code_1(deployment: Path) -> None:
    refused = camber(
        deployment, "run", "books:label", '{title: "?", barcode: {$integer: "AQAAAAAAAAA="}, cover: {$bytes: ""}}'
    )
    misfit = camber(deployment, "run", "books:add", "{title: 5}")

    assert (refused.code, refused.out) == (1, ""), refused
    assert "books:label failed:" in refused.err
    assert '"code":"NoSuchBook"' in refused.err
    assert "Traceback" not in refused.err
    assert misfit.code == 1
    assert "ArgumentValidationError" in misfit.err
    assert ".title" in misfit.err


def test_an_unknown_function_ends_with_the_nearest_one(deployment: Path) -> None:
    result = camber(deployment, "run", "books:titels")

    assert result.code == 1, result
    assert "Did you mean 'books:titles'?" in result.err


def test_a_server_that_tells_callers_nothing_still_leads_to_the_function(production: Path) -> None:
    unknown = camber(production, "run", "books:titels")
    failed = camber(production, "run", "books:add", "{title: 5}")

    assert unknown.code == 1
    assert "There is no function books:titels. Did you mean books:titles?" in unknown.err, unknown
    assert failed.code == 1
    assert "[Request ID: " in failed.err
    assert "its log has it" in failed.err, failed


def test_an_identity_is_filled_in_as_convex_does(deployment: Path) -> None:
    result = camber(deployment, "run", "books:reader", "--identity", '{name: "Ada"}')

    assert json.loads(result.out) == {
        "name": "Ada",
        "subject": "1947304225",
        "issuer": "https://convex.test",
        "tokenIdentifier": "https://convex.test|1947304225",
    }, result


def test_what_an_identity_says_itself_stays(deployment: Path) -> None:
    claims = {
        "subject": "ada",
        "issuer": "https://idp.example.com",
        "tokenIdentifier": "x|y",
        "email": "ada@example.com",
    }

    result = camber(deployment, "run", "books:reader", "{}", "--identity", json.dumps(claims))

    assert json.loads(result.out) == claims, result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["books:add", "{title: "], "the arguments can't be read as JSON5"),
        (["books:reader", "{}", "--identity", "[1]"], "the identity is one object of claims"),
        (["api.titles"], "write api.titles.module.name"),
        ([], "PATH requires an argument"),
    ],
)
def test_what_makes_no_sense_ends_with_exit_code_2(project: Path, words: list[str], message: str) -> None:
    result = camber(project, "run", *words)

    assert (result.code, result.out) == (2, ""), result
    assert message in result.err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("books:add", "one object of named arguments"),
        ("books:no-such", "is not a valid path"),
    ],
)
def test_a_call_that_is_refused_as_a_whole_says_why(deployment: Path, path: str, message: str) -> None:
    result = camber(deployment, "run", path, "[{}, {}]")

    assert (result.code, result.out) == (1, ""), result
    assert message in result.err


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("messages:list", "messages:list"),
        ("messages", "messages:default"),
        ("dir/messages:list", "dir/messages:list"),
        ("api.dir.messages.list", "dir/messages:list"),
        ("internal.messages.list", "messages:list"),
        ("convex/messages.ts:list", "messages:list"),
        ("./convex/dir/messages.js", "dir/messages:default"),
        ("messages.py:list", "messages:list"),
    ],
)
def test_a_path_can_be_typed_as_for_convex(typed: str, path: str) -> None:
    assert function_path(typed) == path


def test_a_path_with_too_few_parts_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        function_path("api.list")
