"""The unmodified HTTP clients of npm and PyPI, several versions of each, against a real server."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode

import pytest

from tests.clients.driver import Client, running_client
from tests.wire.running_server import RunningServer


def int64(number: int) -> dict[str, str]:
    return {"$integer": b64encode(number.to_bytes(8, "little", signed=True)).decode()}


def raw(data: bytes) -> dict[str, str]:
    return {"$bytes": b64encode(data).decode()}


# The four kinds of float that are no JSON number (protocol 1.1).
NAN, INFINITY, MINUS_INFINITY, MINUS_ZERO = (
    {"$float": b64encode(bytes.fromhex(bits)).decode()}
    for bits in ("000000000000f87f", "000000000000f07f", "000000000000f0ff", "0000000000000080")
)

EVERY_KIND = {
    "null": None,
    "int64": [int64(0), int64(-1), int64(2**63 - 1), int64(-(2**63))],
    "float64": [0, 1, -1.5, 1e300, 5e-324, 2**53, NAN, INFINITY, MINUS_INFINITY, MINUS_ZERO],
    "boolean": [True, False],
    "string": ["", "text", "\x00", "ä€𝄞", "two\nlines", '"\\'],
    "bytes": [raw(b""), raw(b"\x00\xff"), raw(bytes(range(256)))],
    "array": [[], [[]], [None, [1, ["deep"]]]],
    "object": {"": 1, "with space": {"nested": {"further": int64(7)}}, "empty": {}},
}


@pytest.mark.parametrize(
    ("call", "path"), [("query", "echo:fromQuery"), ("mutation", "echo:fromMutation"), ("action", "echo:fromAction")]
)
def test_every_kind_of_value_comes_back_as_it_was_sent(client: Client, call: str, path: str) -> None:
    outcome = client.perform(call, path=path, args={"value": EVERY_KIND})

    assert outcome.error is None
    assert outcome.value == EVERY_KIND


def test_an_int64_is_a_number_to_the_function(client: Client) -> None:
    assert client.query("echo:nextInt64", {"number": int64(2**62)}).value == int64(2**62 + 1)


def test_bytes_are_bytes_to_the_function(client: Client) -> None:
    assert client.query("echo:reversedBytes", {"data": raw(b"\x00ab")}).value == raw(b"ba\x00")


def test_what_a_mutation_wrote_is_read_by_the_next_query(client: Client) -> None:
    written = client.mutation("notes:add", {"title": client.name, "value": EVERY_KIND})

    assert isinstance(written.value, str)
    assert client.query("notes:byTitle", {"title": client.name}).value == [EVERY_KIND]


def test_an_action_runs_mutations_and_queries(client: Client) -> None:
    title = f"action of {client.name}"

    assert client.action("notes:addTwice", {"title": title}).value == ["first", "second"]


def test_a_refusal_with_text_brings_the_text(client: Client) -> None:
    outcome = client.query("failures:withText")

    assert outcome.data == "This is refused"
    assert "This is refused" in (outcome.error or "")


def test_a_refusal_with_an_object_brings_its_data_and_leaves_nothing_behind(client: Client) -> None:
    title = f"refused to {client.name}"

    outcome = client.mutation("failures:withObject", {"title": title})

    assert outcome.data == {
        "code": "Refused",
        "count": int64(3),
        "ratio": 0.5,
        "raw": raw(b"\x00\xff"),
        "list": [None, True],
    }
    assert client.query("notes:byTitle", {"title": title}).value == []


def test_a_refusal_of_an_action_brings_its_data(client: Client) -> None:
    assert client.action("failures:inAction").data == ["from", "an", "action"]


def test_a_refusal_with_null_is_told_from_one_without_data(client: Client) -> None:
    with_null, plain = client.query("failures:withNull"), client.query("failures:plainly")

    assert with_null.has_data
    assert with_null.data is None
    assert not plain.has_data


def test_broken_code_is_an_error_without_data(client: Client) -> None:
    outcome = client.query("failures:plainly")

    assert re.match(r"\[Request ID: [0-9a-f]{16}\] Server Error\n", outcome.error or "")
    assert "the cupboard is bare" in (outcome.error or "")


def test_wrong_arguments_are_refused_by_name(client: Client) -> None:
    outcome = client.query("echo:nextInt64", {"number": "seven"})

    assert "ArgumentValidationError" in (outcome.error or "")
    assert ".number" in (outcome.error or "")


@pytest.mark.parametrize("path", ["notes:nothing", "nowhere:at_all", "notes:countAll"])
def test_what_is_missing_or_internal_can_not_be_found(client: Client, path: str) -> None:
    outcome = client.query(path)

    assert f"Could not find public function for '{path}'" in (outcome.error or "")
    assert not outcome.has_data


def test_a_function_of_another_kind_is_not_run(client: Client) -> None:
    outcome = client.mutation("echo:fromQuery", {"value": 1})

    assert "as Mutation, but it is defined as Query" in (outcome.error or "")


def test_what_a_function_logs_reaches_the_client(client: Client) -> None:
    outcome = client.query("echo:logged", {"text": "seen by the client"})

    assert any("seen by the client" in line for line in outcome.logs)


def test_the_admin_key_opens_internal_functions(client: Client, server: RunningServer) -> None:
    client.perform("setAdminAuth", token=server.admin_key)

    assert client.query("callers:me").value == {"claims": None, "isOperator": True}
    assert client.query("notes:countAll").error is None


def test_a_wrong_admin_key_is_refused(client: Client, server: RunningServer) -> None:
    name = server.admin_key.split("|")[0]
    client.perform("setAdminAuth", token=f"{name}|0123456789abcdef")

    assert "BadAdminKey" in (client.query("callers:me").error or "")


def test_nobody_is_signed_in_without_a_token(client: Client) -> None:
    assert client.query("callers:me").value == {"claims": None, "isOperator": False}


def test_a_token_is_refused_while_there_is_no_provider(client: Client) -> None:
    client.perform("setAuth", token=".".join(_token_parts({"alg": "RS256"}, {"iss": "https://idp.test", "sub": "ada"})))

    assert "NoAuthProvider" in (client.query("callers:me").error or "")


def _token_parts(*parts: dict[str, str]) -> list[str]:
    return [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (*parts, {"no": "signature"})]


def test_the_operator_can_act_as_somebody(npm_client: Client, server: RunningServer) -> None:
    identity = {
        "issuer": "https://idp.test",
        "subject": "ada",
        "tokenIdentifier": "https://idp.test|ada",
        "name": "Ada",
    }
    npm_client.perform("setAdminAuth", token=server.admin_key, identity=identity)

    answer = npm_client.query("callers:me").value

    assert answer["isOperator"] is False
    assert answer["claims"].items() >= identity.items()


def test_consistent_queries_see_one_moment(npm_client: Client) -> None:
    title = f"moment of {npm_client.name}"
    npm_client.mutation("notes:add", {"title": title, "value": 1})
    before = npm_client.perform("consistentQuery", path="notes:byTitle", args={"title": title})
    npm_client.mutation("notes:add", {"title": title, "value": 2})
    after = npm_client.perform("consistentQuery", path="notes:byTitle", args={"title": title})

    assert before.value == after.value == [1]
    assert npm_client.query("notes:byTitle", {"title": title}).value == [1, 2]


@pytest.mark.parametrize("name", ["npm newest", "pypi newest"])
def test_in_production_only_data_tells_what_went_wrong(production_server: RunningServer, name: str) -> None:
    with running_client(name, production_server.url) as client:
        broken, refused = client.query("failures:plainly"), client.query("failures:withText")
        logged = client.query("echo:logged", {"text": "not for the client"})

    assert re.fullmatch(r"\[Request ID: [0-9a-f]{16}\] Server Error", broken.error or "")
    assert refused.data == "This is refused"
    assert logged.logs == []
