"""Calling functions over HTTP (protocol 4.1 to 4.3)."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.server.asking import Client, call
from tests.server.conftest import Opening

ERROR = re.compile(r"\[Request ID: [0-9a-f]{16}\] Server Error\n")


def test_a_query_answers_with_its_value_and_no_log_lines(client: Client) -> None:
    answered = client.post("/api/query", call("notes:same", {"value": [5, None]}))

    assert answered.body == b'{"status":"success","value":[5.0,null],"logLines":[]}'
    assert answered.headers["content-type"] == "application/json"
    assert answered.headers["content-length"] == str(len(answered.body))


def test_a_mutation_shows_in_the_next_query_though_the_same_query_was_cached(client: Client) -> None:
    before = [client.query("notes:texts") for _ in range(3)][-1]
    client.mutation("notes:add", {"text": "fresh"})
    assert client.query("notes:texts") == [*before, "fresh"]
    assert client.query("notes:texts") == [*before, "fresh"]


def test_an_action_answers(client: Client) -> None:
    assert client.call("action", "notes:later", {"seconds": 0}) == "later"


@pytest.mark.parametrize("args", [{"value": 1}, [{"value": 1}]])
def test_arguments_are_an_object_or_an_array_of_one(client: Client, args: object) -> None:
    assert client.query("notes:same", args) == 1


def test_log_lines_travel_with_the_answer_in_development(client: Client) -> None:
    assert client.post("/api/query", call("notes:told")).json["logLines"] == ["[INFO] 'hello'"]


def test_production_sends_neither_log_lines_nor_error_texts_but_the_data_of_a_convex_error(opened: Opening) -> None:
    client = opened(dev=False)

    assert client.post("/api/query", call("notes:told")).json["logLines"] == []
    broken = client.post("/api/mutation", call("notes:broken")).json
    assert re.fullmatch(r"\[Request ID: [0-9a-f]{16}\] Server Error", broken["errorMessage"])
    assert client.post("/api/query", call("notes:refused")).json["errorData"]["code"] == "nope"


def test_a_convex_error_brings_its_data(client: Client) -> None:
    answered = client.post("/api/query", call("notes:refused"))

    assert answered.status == 200
    assert answered.json["status"] == "error"
    assert answered.json["errorData"] == {"code": "nope", "count": {"$integer": "AQAAAAAAAAA="}}
    assert ERROR.match(answered.json["errorMessage"])


def test_a_convex_error_with_null_has_null_data(client: Client) -> None:
    assert client.post("/api/query", call("notes:refusedWithNull")).json["errorData"] is None


def test_any_other_error_has_no_data_at_all(client: Client) -> None:
    answered = client.post("/api/mutation", call("notes:broken"))

    assert answered.status == 200
    assert answered.json.keys() == {"status", "errorMessage", "logLines"}
    assert "a detail" in answered.json["errorMessage"]


@pytest.mark.parametrize(
    ("kind", "path", "text"),
    [
        ("query", "notes:nope", "Could not find public function for 'notes:nope'."),
        ("query", "notes:hidden", "Could not find public function for 'notes:hidden'."),
        ("mutation", "notes:texts", "Trying to execute notes.js:texts as Mutation, but it is defined as Query."),
        ("query", "_system/cli/tables", "Could not find public function for '_system/cli/tables:default'."),
    ],
)
def test_a_function_that_can_not_be_called_is_an_outcome_not_an_http_error(
    client: Client, kind: str, path: str, text: str
) -> None:
    answered = client.post(f"/api/{kind}", call(path, {}))
    assert answered.status == 200
    assert ERROR.sub("", answered.json["errorMessage"]) == text


def test_a_path_that_is_no_path_is_a_bad_request(client: Client) -> None:
    answered = client.post("/api/query", call("no tes:texts"))
    assert (answered.status, answered.code) == (400, "BadConvexFunctionIdentifier")
    assert answered.json["message"].startswith("no tes:texts is not a valid path to a Convex function. ")


# Formats.
ENCODED = {
    "int64": {"$integer": "BQAAAAAAAAA="},
    "bytes": {"$bytes": "AP8="},
    "float": 0.5,
    "nan": {"$float": "AAAAAAAA+H8="},
    "text": "ä",
}
CLEAN = {"int64": "5", "bytes": "AP8=", "float": 0.5, "nan": "NaN", "text": "ä"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("convex_encoded_json", ENCODED),
        ("convex_json", ENCODED),
        ("json", CLEAN),
        ("convex_clean_json", CLEAN),
        ("export_json", {**ENCODED, "int64": 5}),
    ],
)
def test_values_travel_in_the_format_that_is_asked_for(client: Client, name: str, value: object) -> None:
    assert client.post("/api/query", call("notes:kinds", format=name)).json["value"] == value


@pytest.mark.parametrize(
    ("convex_client", "value"),
    [
        (None, CLEAN),
        ("npm-1.48.0", CLEAN),
        ("npm-cli-1.48.0", CLEAN),
        ("npm-1.4.1", CLEAN),
        ("npm-1.4.0", ENCODED),
        ("npm-1.0.0-alpha.1", ENCODED),
        ("python-0.8.1", CLEAN),
        ("python-0.4.9", ENCODED),
        ("something-else", CLEAN),
    ],
)
def test_without_a_format_the_client_decides(client: Client, convex_client: str | None, value: object) -> None:
    headers = {} if convex_client is None else {"Convex-Client": convex_client}
    answered = client.post("/api/query", {"path": "notes:kinds", "args": {}}, headers=headers)
    assert answered.json["value"] == value


def test_the_data_of_an_error_is_in_the_format_too(client: Client) -> None:
    assert client.post("/api/query", call("notes:refused", format="json")).json["errorData"]["count"] == "1"


def test_an_unknown_format_is_refused(client: Client) -> None:
    answered = client.post("/api/query", call("notes:kinds", format="xml"))
    assert (answered.status, answered.code) == (400, "BadFormat")
    assert answered.json["message"] == "format param must be one of [`json`]. Got xml"


@pytest.mark.parametrize(
    ("convex_client", "code"),
    [("npm", "InvalidClientVersion"), ("npm-0.19.1", "ClientVersionUnsupported"), ("n-" * 500, "InvalidClientVersion")],
)
def test_a_client_that_is_too_old_or_says_no_version_is_refused(client: Client, convex_client: str, code: str) -> None:
    answered = client.post("/api/query", call("notes:texts"), headers={"Convex-Client": convex_client})
    assert (answered.status, answered.code) == (400, code)


# The other ways to call.
def test_a_query_by_get(client: Client) -> None:
    query = urlencode({"path": "notes:same", "args": '{"value": "ä &"}', "format": "json"})
    assert client.get("/api/query", query=query).json["value"] == "ä &"
    assert client.get("/api/query", query="path=notes:kinds").json["value"] == CLEAN


@pytest.mark.parametrize("query", ["", "args={}", "path=a&path=b", "path=%ff", "path=" + "x" * 70_000])
def test_a_query_string_that_makes_no_sense_is_refused(client: Client, query: str) -> None:
    answered = client.get("/api/query", query=query)
    assert (answered.status, answered.code) == (400, "BadQueryString")


@pytest.mark.parametrize("path", ["notes/same", "notes:same"])
def test_run_takes_the_function_from_the_url(client: Client, path: str) -> None:
    assert client.post(f"/api/run/{path}", {"args": {"value": 7}}).json["value"] == 7
    assert client.post("/api/run/notes/kinds", {"args": {}}).json["value"] == CLEAN
    assert client.post("/api/run/notes/kinds", {"args": {}, "format": "convex_json"}).json["value"] == ENCODED


def test_run_reaches_no_internal_function(client: Client) -> None:
    assert client.post("/api/run/notes/hidden", {"args": {}}).json["status"] == "error"


def test_function_runs_whichever_kind_it_is_for_the_operator(client: Client, admin: dict[str, str]) -> None:
    def run(path: str, **args: object) -> Any:
        return client.post("/api/function", call(path, args), headers=admin).json

    assert run("notes:hidden")["value"] == "hidden"
    assert run("notes:add", text="by the operator")["value"] is None
    assert run("notes:later", seconds=0)["value"] == "later"
    assert "Could not find function for 'notes:nope'." in run("notes:nope")["errorMessage"]


def test_components_are_not_there(client: Client, admin: dict[str, str]) -> None:
    whole = client.post("/api/function", call("notes:hidden", componentPath=""), headers=admin)
    assert whole.json["value"] == "hidden"
    part = client.post("/api/function", call("notes:hidden", componentPath="part"), headers=admin)
    assert (part.status, part.code) == (400, "NotOfferedYet")


# Queries of one moment.
def test_queries_at_a_timestamp_see_that_moment(client: Client) -> None:
    ts = client.post("/api/query_ts").json["ts"]
    before = client.query("notes:texts")
    client.mutation("notes:add", {"text": "later"})

    then = client.post("/api/query_at_ts", call("notes:texts", ts=ts))

    assert len(base64.b64decode(ts)) == 8
    assert then.json["value"] == before
    assert client.query("notes:texts") == [*before, "later"]


def test_a_batch_answers_each_of_its_queries(client: Client) -> None:
    queries = [call("notes:same", {"value": 1}), call("notes:refused"), {"path": "notes:kinds", "args": {}}]
    first, second, third = client.post("/api/query_batch", {"queries": queries}).json["results"]

    assert first == {"status": "success", "value": 1.0, "logLines": []}
    assert second["errorData"]["code"] == "nope"
    assert third["value"] == CLEAN


def test_a_batch_is_bounded(client: Client) -> None:
    answered = client.post("/api/query_batch", {"queries": [call("notes:texts")] * 101})
    assert (answered.status, answered.code) == (400, "TooManyQueries")


@pytest.mark.parametrize("ts", ["", "AAAA", "no base64!", 5])
def test_a_timestamp_that_is_none_is_refused(client: Client, ts: object) -> None:
    assert client.post("/api/query_at_ts", call("notes:texts", ts=ts)).status == 400


def test_a_timestamp_that_is_no_longer_kept_is_refused(client: Client) -> None:
    assert client.post("/api/query_at_ts", call("notes:texts", ts="AAAAAAAAAAA=")).status == 400


# Request ids.
def test_every_answer_names_its_request(client: Client) -> None:
    ids = {client.post("/api/query", call("notes:texts")).headers["convex-request-id"] for _ in range(3)}
    ids.add(client.get("/nowhere").headers["convex-request-id"])
    assert len(ids) == 4
    assert all(re.fullmatch(r"[0-9a-f]{16}", given) for given in ids)


def test_the_client_may_choose_the_request_id(client: Client) -> None:
    answered = client.post("/api/mutation", call("notes:broken"), headers={"Convex-Request-Id": "mine-1"})
    assert answered.headers["convex-request-id"] == "mine-1"
    assert "[Request ID: mine-1]" in answered.json["errorMessage"]


def test_a_request_id_that_could_forge_log_lines_is_replaced(client: Client) -> None:
    answered = client.post("/api/query", call("notes:texts"), headers={"Convex-Request-Id": "a b\tc"})
    assert re.fullmatch(r"[0-9a-f]{16}", answered.headers["convex-request-id"])


def test_the_same_bytes_from_two_callers_give_each_his_own_answer(client: Client, admin: dict[str, str]) -> None:
    identity = base64.b64encode(json.dumps({"issuer": "i", "subject": "s"}).encode()).decode()
    as_user = {"Authorization": f"{admin['Authorization']}:{identity}"}

    for _ in range(2):
        assert client.query("notes:who") == {"operator": False, "identity": None}
        assert client.query("notes:who", headers=admin)["operator"] is True
        assert client.query("notes:who", headers=as_user)["identity"]["tokenIdentifier"] == "i|s"
