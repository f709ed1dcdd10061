"""How the keys of a provider are come by: fetched once for all, kept, fetched anew, and done without when it is down."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from camber import hours, minutes, seconds
from camber.auth import keys
from tests.auth.conftest import PATIENCE, Deployment
from tests.auth.issuing import DISCOVERY, KEYS, Provider, key_set, person, respond, rsa

Claims = dict[str, Any]
Answer = Callable[[BaseHTTPRequestHandler], None]


def fresh(deployment: Deployment, provider: Provider, **claims: object) -> str:
    """A token that was never seen before, good for two days."""
    now = deployment.now
    return rsa().sign(person(provider.issuer, now, exp=int(now) + 200_000, jti=str(time.monotonic_ns()), **claims))


def test_many_callers_at_once_share_one_fetch(deployment: Deployment, provider: Provider) -> None:
    replies = deployment.ask_all([fresh(deployment, provider) for _ in range(50)])

    assert {reply.status for reply in replies} == {200}
    assert provider.asked == [DISCOVERY, KEYS]


def test_keys_at_hand_are_used_without_asking(deployment: Deployment, provider: Provider) -> None:
    for _ in range(5):
        deployment.who(fresh(deployment, provider))

    assert provider.asked == [DISCOVERY, KEYS]


def test_who_gives_up_waiting_takes_the_answer_from_nobody(deployment: Deployment, provider: Provider) -> None:
    given_up: list[str] = []
    provider.answers[KEYS] = lambda handler: (_wait_for(given_up), respond(handler, key_set(rsa())))[1]

    async def one_of_two() -> None:
        first, second = (asyncio.create_task(deployment.asking(fresh(deployment, provider))) for _ in range(2))
        while KEYS not in provider.asked:  # noqa: ASYNC110  another thread's
            await asyncio.sleep(0.01)
        first.cancel()
        assert (await first).status == 503  # as when the server stops
        given_up.append("first")
        assert (await second).status == 200

    deployment.runner.run(one_of_two())
    assert provider.asked == [DISCOVERY, KEYS]


# New keys.
def test_a_new_key_of_the_provider_is_found_by_its_first_token(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    provider.publish(rsa(), rsa("rsa-2"))

    now = deployment.now
    replies = deployment.ask_all([rsa("rsa-2").sign(person(provider.issuer, now, jti=str(one))) for one in range(20)])

    assert {reply.status for reply in replies} == {200}
    assert provider.asked == [DISCOVERY, KEYS] * 2


def test_made_up_key_names_ask_the_provider_seldom(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    claims = person(provider.issuer, deployment.now)

    for one in range(30):
        assert deployment.ask(rsa("somebody's").sign(claims, kid=f"made up {one}")).status == 401
    assert provider.asked == [DISCOVERY, KEYS] * 2

    deployment.backend.clock.advance(seconds(keys.UNKNOWN_KEY_SECONDS))
    assert deployment.ask(rsa("somebody's").sign(claims, kid="made up")).status == 401
    assert provider.asked == [DISCOVERY, KEYS] * 3


def test_a_bad_signature_with_a_known_key_asks_nobody(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))

    assert deployment.ask(rsa("somebody's").sign(person(provider.issuer, deployment.now), kid="rsa-1")).status == 401
    assert provider.asked == [DISCOVERY, KEYS]


def test_a_withdrawn_key_is_good_until_the_keys_are_fetched_anew(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    provider.publish(rsa("rsa-2"))
    deployment.backend.clock.advance(seconds(keys.FRESH_SECONDS))

    assert deployment.who(fresh(deployment, provider))  # and the keys are fetched meanwhile
    deployment.settle(lambda: len(provider.asked) == 4)
    deployment.settle(lambda: deployment.ask(fresh(deployment, provider)).status == 401)


def test_old_keys_are_not_used_before_the_provider_was_asked(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    provider.publish(rsa("rsa-2"))
    deployment.backend.clock.advance(seconds(keys.OLD_SECONDS))

    assert deployment.ask(fresh(deployment, provider)).status == 401


# A provider in trouble.
def test_while_the_provider_is_down_its_old_keys_go_on_working(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    provider.is_down()
    for _ in range(23):
        deployment.backend.clock.advance(hours(1))
        assert deployment.who(fresh(deployment, provider))

    deployment.backend.clock.advance(hours(1))
    reply = deployment.ask(fresh(deployment, provider))

    assert (reply.status, reply.code) == (503, "IdentityProviderUnreachable")
    assert reply.headers["retry-after"] == "1"


def test_without_any_keys_the_answer_is_503_and_the_provider_is_asked_seldom(
    deployment: Deployment, provider: Provider
) -> None:
    provider.is_down()
    replies = [deployment.ask(fresh(deployment, provider)) for _ in range(20)]

    assert {(reply.status, reply.code) for reply in replies} == {(503, "IdentityProviderUnreachable")}
    assert provider.asked == [DISCOVERY]

    provider.is_down(down=False)
    deployment.backend.clock.advance(seconds(1))

    assert deployment.who(fresh(deployment, provider))


def test_the_pauses_grow(deployment: Deployment, provider: Provider) -> None:
    provider.is_down()
    for _ in range(300):
        deployment.ask(fresh(deployment, provider))
        deployment.backend.clock.advance(seconds(1))

    # After 0, 1, 3, 7, 15, 31 seconds, then every half minute.
    assert len(provider.asked) == 14


def test_an_unknown_key_while_the_provider_is_down_is_not_called_forged(
    deployment: Deployment, provider: Provider
) -> None:
    deployment.who(fresh(deployment, provider))
    provider.is_down()
    token = rsa("rsa-2").sign(person(provider.issuer, deployment.now))

    for _ in range(3):
        assert deployment.ask(token).status == 503

    provider.is_down(down=False)
    provider.publish(rsa(), rsa("rsa-2"))
    deployment.backend.clock.advance(seconds(keys.UNKNOWN_KEY_SECONDS))
    assert deployment.who(token)


def redirected(handler: BaseHTTPRequestHandler) -> None:
    respond(handler, {}, 302, location="/elsewhere")


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):  # nobody reads any more
        for _ in range(1_000):
            handler.wfile.write(b'{"keys":[' + b" " * 65_536)
        handler.server.shutdown()  # all of it was read: this provider answers nobody any more


def packed(handler: BaseHTTPRequestHandler) -> None:
    respond(handler, gzip.compress(json.dumps(key_set(rsa())).encode()), encoding="gzip")


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
@pytest.mark.parametrize(
    "answer",
    [
        redirected,
        endless,
        packed,
        lambda handler: respond(handler, {}, 500),
        lambda handler: respond(handler, b"<html>"),
        lambda handler: respond(handler, b"\xff"),
        lambda handler: respond(handler, []),
        lambda handler: respond(handler, {}),
        lambda handler: respond(handler, b'{"keys":' + b"[" * 50_000),
    ],
)
def test_what_is_no_answer_is_not_taken(
    deployment: Deployment, provider: Provider, path: str, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers[path] = answer
    provider.answers["/elsewhere"] = lambda handler: respond(handler, key_set(rsa()))

    assert deployment.ask(fresh(deployment, provider)).status == 503
    (record,) = [one for one in caplog.records if one.name == "camber.auth"]
    assert record.__dict__["issuer"] == provider.issuer
    assert len(record.__dict__["reason"]) < 600

    provider.answers.clear()
    deployment.backend.clock.advance(seconds(1))
    assert deployment.who(fresh(deployment, provider))


@pytest.mark.parametrize(
    "found",
    [
        {"keys": {}},
        {"keys": []},
        {"keys": [{}] * 65},
        {"keys": [None, 1, "x", [], {"kty": 5}, {"kty": "RSA"}, {"kty": "RSA", "n": 1, "e": 2}]},
        {"keys": [rsa().public(n="AQAB")]},
        {"keys": [rsa().public(n="!" * 342)]},
        {"keys": [rsa().public(n="A" * 100_000)]},
        {"keys": [rsa().public(e="AQ")]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]},
        {"keys": [{"kty": "OKP", "crv": "X25519", "x": "A" * 43}]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "rsa-1"}]},
    ],
)
def test_a_set_without_sound_keys_is_not_taken(deployment: Deployment, provider: Provider, found: object) -> None:
    provider.answers[KEYS] = lambda handler: respond(handler, found)

    assert deployment.ask(fresh(deployment, provider)).status == 503


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example.com"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:password@id.example.com/keys"},
        {"jwks_uri": "//id.example.com"},
        {"jwks_uri": "data:,{}"},
    ],
)
def test_a_document_that_leads_elsewhere_is_not_taken(
    deployment: Deployment, provider: Provider, document: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    provider.document = document

    assert deployment.ask(fresh(deployment, provider)).status == 503
    assert provider.asked == [DISCOVERY]
    assert "password" not in str([record.__dict__ for record in caplog.records])


def test_a_provider_that_hangs_is_not_waited_for_long(
    deployment: Deployment, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0.3)
    is_over: list[str] = []
    provider.answers[DISCOVERY] = lambda handler: _wait_for(is_over)
    began = time.monotonic()

    try:
        assert {reply.status for reply in deployment.ask_all([fresh(deployment, provider) for _ in range(5)])} == {503}
        assert time.monotonic() - began < PATIENCE / 2
        assert provider.asked in ([DISCOVERY], [])  # none where it stood still itself
    finally:
        is_over.append("the test")


def test_others_are_answered_while_a_provider_is_waited_for(deployment: Deployment, provider: Provider) -> None:
    answered: list[str] = []
    provider.answers[KEYS] = lambda handler: (_wait_for(answered), respond(handler, key_set(rsa())))[1]

    async def both() -> None:
        slow = asyncio.create_task(deployment.asking(fresh(deployment, provider)))
        while KEYS not in provider.asked:  # noqa: ASYNC110  another thread's
            await asyncio.sleep(0.01)
        assert (await deployment.asking(None)).status == 200
        answered.append("others")
        assert (await slow).status == 200

    deployment.runner.run(both())


def test_a_clock_that_is_set_back_does_not_keep_keys(deployment: Deployment, provider: Provider) -> None:
    deployment.who(fresh(deployment, provider))
    provider.publish(rsa("rsa-2"))
    deployment.backend.clock.advance(-minutes(60))

    assert deployment.ask(rsa().sign(person(provider.issuer, deployment.now))).status == 401


def _wait_for(answered: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not answered and time.monotonic() < deadline:
        time.sleep(0.01)
