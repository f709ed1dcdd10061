"""Signing in over the WebSocket with tokens: the unmodified clients' own flow, and what a connection is told (protocol 5.10)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.auth.issuing import SigningKey, ec, person
from tests.clients.sync_driver import Event, SyncClient, of_subscription
from tests.wire.raw_client import RawClient, adding, raw_client
from tests.wire.running_server import RunningServer

ISSUER = "https://tokens.example.com"
NOBODY = {"claims": None, "isOperator": False}


def token(subject: str = "ada", *, seconds: int = 3600, **claims: str) -> str:
    """A token that is taken for so long."""
    now = int(time.time())
    return ec().sign(person(ISSUER, now, sub=subject, exp=now + seconds, **claims))


def forged() -> str:
    """A token of somebody who knows only the name of the key."""
    return SigningKey("ES256", "ec-1", ec("somebody's").key).sign(person(ISSUER, sub="eve"))


def claims_of(subject: str) -> dict[str, object]:
    claims = {"issuer": ISSUER, "subject": subject, "tokenIdentifier": f"{ISSUER}|{subject}"}
    return {"claims": claims, "isOperator": False}


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["kind"] == kind]


def said(events: list[Event], kind: str) -> list[Event]:
    """The messages of this type that the client sent."""
    return [event["message"] for event in of_kind(events, "sent") if event["message"]["type"] == kind]


def heard(events: list[Event], kind: str) -> list[Event]:
    """The messages of this type that it received."""
    return [event["message"] for event in of_kind(events, "received") if event["message"]["type"] == kind]


def changes(events: list[Event]) -> list[bool]:
    """What `onChange` was told. The clients tell it of every token that was confirmed."""
    return [event["isAuthenticated"] for event in of_kind(events, "auth")]


def test_who_signs_in_is_known_to_every_function(sync_client: SyncClient) -> None:
    sync_client.tell("setAuth", tokens=[token()])
    sync_client.subscribe("callers:me")
    sync_client.wait_for("callers:me", claims_of("ada"))

    assert sync_client.mutation("callers:meInMutation").value == claims_of("ada")
    assert sync_client.action("callers:meInAction").value == claims_of("ada")

    sync_client.tell("clearAuth")
    sync_client.wait_for("callers:me", NOBODY)


def test_the_client_is_told_that_it_is_signed_in_and_asks_for_a_fresh_token(npm_sync_client: SyncClient) -> None:
    client = npm_sync_client
    client.tell("setAuth", tokens=[token(jti="1"), token(jti="2")])
    events = client.until(lambda events: len(said(events, "Authenticate")) == 2)
    client.subscribe("callers:me")
    client.wait_for("callers:me", claims_of("ada"))

    assert [event["forced"] for event in of_kind(events, "fetch")] == [False, True]
    assert [message["baseVersion"] for message in said(events, "Authenticate")] == [0, 1]
    assert set(changes(client.events())) == {True}
    assert heard(client.events(), "AuthError") == []


def test_a_token_is_refreshed_before_it_expires_and_nothing_flickers(
    npm_sync_client: SyncClient, sync_server: RunningServer
) -> None:
    """The client counts from the second that it gets a token: the hour that is left is for the server, whatever the machine does."""
    client = npm_sync_client
    client.open(sync_server.url, authRefreshTokenLeewaySeconds=3598)
    client.tell("setAuth", tokens=[token(seconds=3598, jti="1"), token(jti="2"), token(seconds=7200, jti="3")])
    client.until(lambda events: len(said(events, "Authenticate")) == 2)
    client.subscribe("callers:me")
    events = client.until(
        lambda events: (
            of_subscription(events, "callers:me") and heard(events, "Transition")[-1]["endVersion"]["identity"] == 3
        )
    )

    assert [event["forced"] for event in of_kind(events, "fetch")] == [False, True, True]
    assert set(changes(events)) == {True}
    assert heard(events, "AuthError") == []
    assert [event["value"] for event in of_subscription(events, "callers:me")] == [claims_of("ada")]


def test_a_bad_token_signs_out_and_the_rest_goes_on(npm_sync_client: SyncClient) -> None:
    client = npm_sync_client
    client.tell("setAuth", tokens=[forged()])
    client.subscribe("callers:me")
    client.wait_for("callers:me", NOBODY)
    events = client.until(changes)

    assert changes(events) == [False]
    [error] = heard(events, "AuthError")
    assert error["authUpdateAttempted"] is True
    assert error["baseVersion"] == 0
    assert "Could not validate token" in error["error"]


def test_after_a_bad_token_a_good_one_is_taken(npm_sync_client: SyncClient) -> None:
    client = npm_sync_client
    client.tell("setAuth", tokens=[forged(), token()])
    client.subscribe("callers:me")
    client.wait_for("callers:me", claims_of("ada"))
    events = client.until(changes)

    assert changes(events) == [True]
    assert len(heard(events, "AuthError")) == 1


def test_each_client_sees_what_is_its_own(sync_server: RunningServer) -> None:
    with raw_client(sync_server.url) as ada, raw_client(sync_server.url) as bob, raw_client(sync_server.url) as nobody:
        for client, name in ((ada, "ada"), (bob, "bob")):
            client.connect()
            client.say("Authenticate", baseVersion=0, tokenType="User", value=token(name))
            client.modify(adding(0, "callers:me"))
        nobody.connect()
        nobody.modify(adding(0, "callers:me"))

        ada.hear_value(0, claims_of("ada"))
        bob.hear_value(0, claims_of("bob"))
        nobody.hear_value(0, NOBODY)
        bob.say("Authenticate", baseVersion=1, tokenType="User", value=token("ada"))
        bob.hear_value(0, claims_of("ada"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nonsense", "Could not parse JWT payload"),
        (forged(), "Could not validate token"),
        (token(seconds=-1), "Could not validate token"),
        (ec().sign(person("https://else.example.com")), "No auth provider found"),
        (token(aud="somebody else"), "No auth provider found"),
        ("", "Could not parse JWT payload"),
    ],
    ids=["no token", "forged", "expired", "another issuer", "for somebody else", "empty"],
)
def test_a_bad_token_is_an_auth_error_that_says_why(sync_server: RunningServer, value: str, reason: str) -> None:
    with raw_client(sync_server.url) as client:
        client.connect()
        client.say("Authenticate", baseVersion=0, tokenType="User", value=value)
        error = client.hear()

        assert error["type"] == "AuthError"
        assert reason in error["error"]
        assert (error["baseVersion"], error["authUpdateAttempted"]) == (0, True)
        assert client.hear_goodbye() == 1000


@contextmanager
def signed_in_for_a_moment(server: RunningServer) -> Iterator[RawClient]:
    """A client whose token soon expires; not as soon where the machine stood still and one had expired on its way."""
    for seconds in (2, 10, 50):
        with raw_client(server.url) as client:
            client.connect()
            client.say("Authenticate", baseVersion=0, tokenType="User", value=token(seconds=seconds))
            client.modify(adding(0, "callers:me"))
            while client.values.get(0) != claims_of("ada") and client.hear()["type"] != "AuthError":
                pass
            if client.values.get(0) == claims_of("ada"):
                yield client
                return
    pytest.fail("no token was taken")


def test_a_token_that_expires_in_use_ends_the_conversation(sync_server: RunningServer) -> None:
    with signed_in_for_a_moment(sync_server) as client:
        while (error := client.hear())["type"] in {"Transition", "Ping"}:
            assert not error.get("modifications")

        assert error["type"] == "AuthError"
        assert error["error"] == "Convex token identity expired"
        assert error["authUpdateAttempted"] is False
        assert client.hear_goodbye() == 1000
