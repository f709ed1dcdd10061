"""Request bodies that make no sense: each is refused with 400, says what is wrong, and changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.asking import Client

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", ""),
        (b"not json", ""),
        (b"\xef\xbb\xbf{}", ""),
        (b"null", "object"),
        (b"[]", "object"),
        (b"{}", "path"),
        (b'{"path":"notes:texts"}', "args"),
        (b'{"args":{}}', "path"),
        (b'{"path":5,"args":{}}', "path"),
        (b'{"path":"notes:texts","args":{},"format":5}', "format"),
        (b'{"path":"notes:texts","args":{}} more', ""),
        (b'{"path":"notes:texts","args":{},}', ""),
        (b'{"path":"notes:texts","args":{}', ""),
        (b'{"path":"notes:\xff","args":{}}', ""),
        (b'{"path":"notes:\\ud800","args":{}}', ""),
        (b'{"path":' + DEEP + b',"args":{}}', ""),
        (b'{"path":"notes:texts","args":{},"path":"notes:texts"}', "path"),
        (b'{"path":"notes:texts","args":{},"args":{}}', "args"),
        (b'{"path":"notes:texts","args":{"a":1},"args":{"a":2}}', "args"),
        (b'{"path":"notes:texts","args":{},"p\\u0061th":"notes:texts"}', "path"),
        (b'{"path":"notes:texts","args":{},"format":"json","format":"json"}', "format"),
        (b'{"path":"notes:texts","args":{},"other":1,"other":2}', "other"),
    ],
)
def test_an_outer_object_that_is_not_as_expected(client: Client, body: bytes, hint: str) -> None:
    answered = client.post("/api/query", body)
    assert (answered.status, answered.code) == (400, "BadJsonBody")
    assert hint in answered.json["message"]


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (b"5", "object"),
        (b'"text"', "object"),
        (b"[{},{}]", "one object"),
        (b"[5]", "object"),
        (DEEP, ""),
        (b'{"value":' + DEEP + b"}", ""),
        (b'{"value":1,"value":2}', "value"),
        (b'{"value":{"a":1,"a":2}}', "a"),
        (b'{"value":"\\ud800"}', ""),
        (b'{"value":"\xff"}', ""),
        (b'{"value":1e999}', ""),
        (b'{"value":NaN}', ""),
        (b'{"value":{"$integer":"AA=="}}', "value"),
        (b'{"value":{"$integer":5}}', "value"),
        (b'{"value":{"$float":"AAAAAAAA8D8="}}', "value"),
        (b'{"value":{"$undefined":null}}', "value"),
        (b'{"value":{"$set":[]}}', "value"),
    ],
)
@pytest.mark.parametrize("kind", ["query", "mutation"])
def test_arguments_that_are_no_values(client: Client, kind: str, args: bytes, hint: str) -> None:
    answered = client.post(f"/api/{kind}", b'{"path":"notes:same","args":' + args + b"}")
    assert (answered.status, answered.json["code"]) in {(400, "InvalidArguments"), (400, "BadJsonBody")}
    assert hint in answered.json["message"]


@pytest.mark.parametrize("args", [{}, {"text": 5}, {"text": "a", "more": 1}])
def test_arguments_of_the_wrong_shape_are_an_outcome(client: Client, args: object) -> None:
    answered = client.post("/api/mutation", {"path": "notes:add", "args": args})
    assert (answered.status, answered.json["status"]) == (200, "error")
    assert "ArgumentValidationError" in answered.json["errorMessage"]


@pytest.mark.parametrize(
    "path", ["query", "mutation", "action", "query_at_ts", "query_batch", "run/notes/same", "function"]
)
def test_every_endpoint_refuses_what_is_no_json(client: Client, admin: dict[str, str], path: str) -> None:
    answered = client.post(f"/api/{path}", b"{", headers=admin)
    assert (answered.status, answered.code) == (400, "BadJsonBody")


def test_fields_that_newer_clients_may_send_are_ignored(client: Client) -> None:
    body = b'{"path":"notes:same","args":{"value":1},"format":"json","journal":null}'
    assert client.post("/api/query", body).json["value"] == 1


def test_a_path_may_look_like_the_rest_of_the_body(client: Client) -> None:
    body = b'{"path":"notes:same","args":{"value":"{\\"path\\":\\"args\\"}"},"format":"json"}'
    assert client.post("/api/query", body).json["value"] == '{"path":"args"}'


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_bytes_do_harm(client: Client, body: bytes) -> None:
    assert client.post("/api/query", body).status == 400


@settings(max_examples=200, deadline=None)
@given(
    head=st.sampled_from([b'{"path":"notes:same","args":', b'{"args":{"value":1},"path":', b'{"format":"json",']),
    tail=st.text(max_size=60),
)
def test_no_half_body_does_harm(client: Client, head: bytes, tail: str) -> None:
    answered = client.post("/api/query", head + tail.encode("utf-8", "surrogatepass"))
    assert answered.status in {200, 400}
    assert answered.json
