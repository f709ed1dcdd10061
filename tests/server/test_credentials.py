"""Who makes a request (protocol 4.4)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from camber.backend import TokenVerifier
from camber.clock import SystemClock
from camber.errors import RequestError
from camber.server import AdminKeys, SecretFile, admin_key, rotate_admin_key
from camber.server.credentials import Credentials
from tests.server.asking import Client, Reply, call
from tests.server.conftest import Opening


def encoded(identity: object) -> str:
    return base64.b64encode(json.dumps(identity).encode()).decode()


ADA = {"issuer": "https://idp", "subject": "ada", "tokenIdentifier": "https://idp|ada", "name": "Ada", "team": ["x", 1]}


def asked_with(client: Client, authorization: str) -> Reply:
    return client.post("/api/query", call("notes:who"), headers={"Authorization": authorization})


def test_without_a_header_a_caller_is_anonymous(client: Client) -> None:
    assert client.query("notes:who") == {"operator": False, "identity": None}


@pytest.mark.parametrize(
    "text", ["Convex {key}", "convex {key}", "CONVEX  {key} ", "Convex prod:{key}", "Convex dev:{key}"]
)
def test_the_admin_key_makes_the_operator(client: Client, text: str) -> None:
    answered = asked_with(client, text.format(key=client.admin_key))
    assert answered.json["value"] == {"operator": True, "identity": None}


@pytest.mark.parametrize("prefix", ["", "prod:"])
def test_the_operator_can_act_as_somebody(client: Client, prefix: str) -> None:
    answered = asked_with(client, f"Convex {prefix}{client.admin_key}:{encoded(ADA)}")
    assert answered.json["value"] == {"operator": False, "identity": ADA}


def test_the_token_identifier_follows_from_issuer_and_subject(client: Client) -> None:
    answered = asked_with(client, f"Convex {client.admin_key}:{encoded({'issuer': 'i', 'subject': 's', 'name': None})}")
    assert answered.json["value"]["identity"] == {"issuer": "i", "subject": "s", "tokenIdentifier": "i|s"}


@pytest.mark.parametrize(
    "key", ["", "camber", "camber|", "camber|01", "camber|01" + "0" * 64, "camber|ä", "a b", "|", "x:y", "Bearer"]
)
def test_a_wrong_key_is_refused(client: Client, key: str) -> None:
    answered = asked_with(client, f"Convex {key}")
    assert (answered.status, answered.code) == (401, "BadAdminKey")
    assert answered.json["message"] == "The provided admin key was invalid for this instance"


@pytest.mark.parametrize(
    "impersonated",
    [
        "",
        "no base64",
        "e30",
        base64.b64encode(b"{").decode(),
        base64.b64encode(b"\xff").decode(),
        base64.b64encode(b'{"tokenIdentifier":"a","tokenIdentifier":"b"}').decode(),
        encoded([]),
        encoded({}),
        encoded({"subject": "without an issuer"}),
        encoded({"issuer": "i", "subject": 5}),
        encoded({**ADA, "emailVerified": "yes"}),
    ],
)
def test_an_impersonation_that_can_not_be_read_is_refused(client: Client, impersonated: str) -> None:
    answered = asked_with(client, f"Convex {client.admin_key}:{impersonated}")
    assert (answered.status, answered.code) == (400, "HeaderParseFailure")
    assert answered.json["message"] == "Malformed Authorization header."


@pytest.mark.parametrize("header", ["", "Basic YTpi", "x", "Convex " + "x" * 20_000])
def test_another_scheme_is_refused(client: Client, header: str) -> None:
    answered = asked_with(client, header)
    assert (answered.status, answered.code) == (400, "HeaderParseFailure")


@pytest.mark.parametrize("token", ["", "abc", "e30.e30.e30"])
def test_a_token_has_no_provider_yet(client: Client, token: str) -> None:
    answered = asked_with(client, f"Bearer {token}")
    assert (answered.status, answered.code) == (401, "NoAuthProvider")
    assert answered.json["message"].startswith(
        "No auth provider found matching the given token (no providers configured)."
    )


def test_two_headers_are_refused(client: Client) -> None:
    key = f"Convex {client.admin_key}"
    answered = client.post("/api/query", call("notes:who"), headers=[("Authorization", key), ("Authorization", key)])
    assert (answered.status, answered.code) == (400, "DoubledHeader")


@pytest.mark.parametrize("authorization", [None, "Convex wrong|01", "as a user"])
def test_what_is_for_the_operator_needs_a_valid_key(client: Client, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    if authorization == "as a user":
        headers = {"Authorization": f"Convex dev:{client.admin_key[:-1]}"}
    for path in ("function", "camber/sql", "update_environment_variables"):
        answered = client.post(f"/api/{path}", call("notes:hidden"), headers=headers)
        assert (answered.status, answered.code) == (403, "BadDeployKey")
        assert answered.json["message"].startswith("The provided deploy key was invalid for deployment 'camber'. ")


def test_the_operator_acting_as_somebody_reaches_internal_functions(client: Client) -> None:
    headers = {"Authorization": f"Convex {client.admin_key}:{encoded(ADA)}"}
    assert client.post("/api/function", call("notes:hidden"), headers=headers).json["value"] == "hidden"


def test_an_old_key_is_refused_after_a_rotation_though_it_was_remembered(opened: Opening) -> None:
    client = opened()
    old = client.admin_key
    assert asked_with(client, f"Convex {old}").json["value"]["operator"]

    new = rotate_admin_key(client.backend.data)

    assert asked_with(client, f"Convex {new}").json["value"]["operator"]
    assert asked_with(client, f"Convex {old}").status == 401


def test_guesses_are_not_remembered(tmp_path: Path) -> None:
    credentials = Credentials(AdminKeys(SecretFile(tmp_path).look), TokenVerifier(SystemClock()))
    with pytest.raises(RequestError):
        credentials.caller(b"Convex camber|01abc", None)

    key = admin_key(tmp_path, create=True)

    assert credentials.caller(f"Convex {key}".encode(), None).is_operator


def test_memory_does_not_grow_with_addresses(tmp_path: Path) -> None:
    credentials = Credentials(AdminKeys(SecretFile(tmp_path).look), TokenVerifier(SystemClock()))
    callers = {id(credentials.caller(None, f"192.0.2.{number}")) for number in range(3_000)}
    assert len(callers) <= 3_000
    assert credentials.caller(None, "192.0.2.2999") is credentials.caller(None, "192.0.2.2999")
