"""Which tokens are taken and which are refused, over HTTP (protocol 4.4, 4.5)."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest

from camber import minutes, seconds
from tests.auth.conftest import Declaring, Deployment
from tests.auth.issuing import (
    KEYS,
    Provider,
    SigningKey,
    data_url,
    ec,
    ed,
    key_set,
    person,
    respond,
    rsa,
    shared,
    signed,
)
from tests.server.asking import Reply

UNREADABLE = "Could not parse JWT payload. Check that the token is a valid JWT format with three base64-encoded parts separated by dots."
NOT_VERIFIED = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token hasn't expired."
)

Claims = dict[str, Any]


def refusal(reply: Reply) -> tuple[int, str]:
    """Status and code. A page of any origin can read why."""
    assert reply.headers["access-control-allow-origin"] == "http://localhost:5173"
    return reply.status, reply.code


@pytest.mark.parametrize("key", [rsa(), ed(), ec()], ids=lambda key: key.algorithm)
def test_a_token_of_the_provider_signs_in(
    deployment: Deployment, provider: Provider, good: Claims, key: SigningKey
) -> None:
    provider.publish(key)

    assert deployment.who(key.sign(good)) == {
        "tokenIdentifier": f"{provider.issuer}|ada",
        "issuer": provider.issuer,
        "subject": "ada",
    }


@pytest.mark.parametrize(
    ("path", "function"),
    [
        ("/api/mutation", "people:signIn"),
        ("/api/action", "people:ask"),
        ("/api/query", "people:whoami"),
        ("/api/run/people/signIn", "people:signIn"),
    ],
)
def test_every_way_to_call_a_function_takes_tokens(
    deployment: Deployment, provider: Provider, good: Claims, path: str, function: str
) -> None:
    for _ in range(2):  # with keys that must be fetched, and with a token that is remembered
        reply = deployment.ask(rsa().sign(good), path, function)

        assert "ada" in str(reply.json["value"])


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", "convex"]},
        {"azp": "http://localhost:5173"},
        {"iat": None},
        {"nbf": 0},
        {"exp": 1e18},
        {"exp": 4_000_000_000.5},
    ],
)
def test_what_providers_do_differently_is_taken(deployment: Deployment, good: Claims, changes: Claims) -> None:
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}

    assert deployment.who(rsa().sign(claims))["subject"] == "ada"


def test_a_header_may_have_fields_of_the_issuer(deployment: Deployment, good: Claims) -> None:
    assert deployment.who(rsa().sign(good, cat="cl_B7d4PD111AAA", typ=None))["subject"] == "ada"


@pytest.mark.parametrize(
    ("domain", "issuer"),
    [("{0}", "{0}/"), ("{0}/", "{0}"), ("{0}/", "{0}/")],
)
def test_a_slash_at_the_end_makes_no_difference(
    declaring: Declaring, provider: Provider, domain: str, issuer: str
) -> None:
    provider.document["issuer"] = issuer.format(provider.issuer)
    deployment = declaring(f"Oidc({domain.format(provider.issuer)!r}, 'convex')")
    claims = person(issuer.format(provider.issuer), deployment.now)

    assert deployment.who(rsa().sign(claims))["issuer"] == issuer.format(provider.issuer)


@pytest.mark.parametrize(
    ("domain", "issuer"), [("id.example.com", "https://id.example.com/"), ("https://id.example.com", "id.example.com")]
)
def test_https_may_be_left_out_of_an_issuer(declaring: Declaring, domain: str, issuer: str) -> None:
    deployment = declaring(f"CustomJwt({domain!r}, {data_url(key_set(rsa()))!r})")

    assert deployment.who(rsa().sign(person(issuer, deployment.now)))["issuer"] == issuer


@pytest.mark.parametrize(
    "token", ["", "abc", "a.b", "a.b.c.d", "e30.e30", "e30..", "é.e30.e30", "e30.e30.e30=", "W10.W10.AA"]
)
def test_what_is_no_token_is_refused(deployment: Deployment, token: str) -> None:
    reply = deployment.ask(token)

    assert refusal(reply) == (401, "InvalidAuthHeader")
    assert reply.json["message"] == UNREADABLE


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"\xff", b'{"iss":"a","iss":"b"}', b"[" * 5_000 + b"]" * 5_000, b'{"exp":1e999}'],
)
def test_claims_that_can_not_be_read_are_refused(deployment: Deployment, payload: bytes) -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
    middle = base64.urlsafe_b64encode(payload).decode().rstrip("=")

    reply = deployment.ask(f"{header}.{middle or 'A'}.AAAA")

    assert refusal(reply) == (401, "InvalidAuthHeader")
    assert reply.json["message"] == UNREADABLE


def test_a_token_that_is_too_long_is_refused(deployment: Deployment, provider: Provider, good: Claims) -> None:
    assert refusal(deployment.ask(rsa().sign({**good, "more": "x" * 20_000}))) == (400, "HeaderParseFailure")
    assert provider.asked == []


def test_a_token_without_an_issuer_is_refused(deployment: Deployment, good: Claims) -> None:
    del good["iss"]
    reply = deployment.ask(rsa().sign(good))

    assert refusal(reply) == (401, "InvalidAuthHeader")
    assert reply.json["message"].startswith("Missing issuer claim ('iss') in JWT payload.")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example.com"},
        {"aud": "other"},
        {"aud": []},
        {"aud": None},
        {"aud": {"convex": 1}},
        {"iss": "http:"},
    ],
)
def test_a_token_for_or_of_somebody_else_has_no_provider(
    deployment: Deployment, provider: Provider, good: Claims, changes: Claims
) -> None:
    reply = deployment.ask(rsa().sign({**good, **changes}))

    assert refusal(reply) == (401, "NoAuthProvider")
    assert reply.json["message"] == (
        "No auth provider found matching the given token. Check that your JWT's issuer and audience match one of your "
        f"configured providers: [OIDC(domain={provider.issuer}, app_id=convex)]"
    )
    assert provider.asked == []


def test_without_providers_no_token_has_one(declaring: Declaring) -> None:
    reply = declaring("").ask("abc")

    assert refusal(reply) == (401, "NoAuthProvider")
    assert "(no providers configured)" in reply.json["message"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": -1}, "It has expired."),
        ({"exp": 0}, "It has expired."),
        ({"nbf": 60}, "It is not valid yet (`nbf` is in the future)."),
        ({"iat": 60}, "It is not valid yet (`iat` is in the future)."),
    ],
)
def test_a_token_of_another_time_is_refused(
    deployment: Deployment, provider: Provider, good: Claims, changes: dict[str, int], reason: str
) -> None:
    times = {name: int(deployment.now) + offset for name, offset in changes.items()}
    reply = deployment.ask(rsa().sign({**good, **times}))

    assert refusal(reply) == (401, "Unauthenticated")
    assert reply.json["message"] == f"{NOT_VERIFIED} ({reason})"
    assert provider.asked == []  # nobody can make us ask with old tokens


def test_a_provider_whose_clock_is_ahead_a_little_is_taken(deployment: Deployment, good: Claims) -> None:
    ahead = int(deployment.now) + 4

    assert deployment.who(rsa().sign({**good, "iat": ahead, "nbf": ahead}))["subject"] == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": "4000000000"},
        {"exp": True},
        {"nbf": "0"},
        {"iat": []},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"sub": ["ada"]},
    ],
)
def test_claims_that_make_no_sense_are_refused(deployment: Deployment, good: Claims, changes: Claims) -> None:
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
    reply = deployment.ask(rsa().sign(claims))

    assert refusal(reply) == (401, "Unauthenticated")
    assert reply.json["message"].startswith(NOT_VERIFIED)


def test_a_token_ends_though_it_is_remembered(deployment: Deployment, good: Claims) -> None:
    token = rsa().sign({**good, "exp": int(deployment.now) + 120})
    assert deployment.who(token)
    deployment.backend.clock.advance(minutes(2) - seconds(1))
    assert deployment.who(token)

    deployment.backend.clock.advance(seconds(1))

    assert refusal(deployment.ask(token)) == (401, "Unauthenticated")


# Forgeries.
def public_pem() -> bytes:
    return rsa().key.as_pem(private=False)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "forge",
    [
        lambda claims: SigningKey("RS256", "rsa-1", rsa("somebody's").key).sign(claims),
        lambda claims: signed(claims, None, {"alg": "none", "kid": "rsa-1"}),
        lambda claims: signed(claims, None, {"alg": "none"}),
        lambda claims: _unsigned("NONE", claims),
        lambda claims: shared(claims, public_pem(), {"alg": "HS256", "kid": "rsa-1"}),
        lambda claims: shared(claims, json.dumps(rsa().public()).encode(), {"alg": "HS256"}),
        lambda claims: shared(claims, public_pem(), {"alg": "RS256", "kid": "rsa-1"}),
        lambda claims: signed(claims, rsa().key, {"alg": "RS512", "kid": "rsa-1"}),
        lambda claims: signed(claims, rsa().key, {"alg": "PS256", "kid": "rsa-1"}),
        lambda claims: ec("rsa-1").sign(claims),
        lambda claims: rsa("somebody's").sign(claims, kid="rsa-1", jwk=rsa("somebody's").public()),
        lambda claims: rsa().sign(claims, crit=["exp"], exp=0),
        lambda claims: rsa().sign(claims, crit=["b64"], b64=True),
        lambda claims: _with(rsa().sign(claims), 1, {**claims, "sub": "eve"}),
        lambda claims: _with(rsa().sign(claims), 0, {"alg": "RS256", "kid": "rsa-1", "more": 1}),
        lambda claims: rsa().sign(claims).rpartition(".")[0] + ".",
        lambda claims: rsa().sign(claims)[:-8],
        lambda claims: rsa().sign(claims, kid=None) + "AAAA",
    ],
)
def test_a_forged_token_is_refused(deployment: Deployment, good: Claims, forge: Any) -> None:
    reply = deployment.ask(forge(good))

    assert refusal(reply) == (401, "Unauthenticated")
    assert reply.json["message"].startswith(NOT_VERIFIED)
    assert deployment.who(rsa().sign(good))["subject"] == "ada"


def _unsigned(algorithm: str, claims: Claims) -> str:
    return _with(_with("e30.e30.", 0, {"alg": algorithm, "kid": "rsa-1"}), 1, claims)


def _with(token: str, part: int, content: object) -> str:
    parts = token.split(".")
    parts[part] = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    return ".".join(parts)


def test_a_key_for_encryption_verifies_nothing(deployment: Deployment, provider: Provider, good: Claims) -> None:
    provider.answers[KEYS] = lambda handler: respond(
        handler, {"keys": [rsa().public(use="enc"), rsa("other").public(key_ops=["encrypt"]), ed().public()]}
    )

    assert refusal(deployment.ask(rsa().sign(good))) == (401, "Unauthenticated")
    assert deployment.who(ed().sign(good))["subject"] == "ada"


def test_a_key_is_used_for_its_own_algorithm_only(deployment: Deployment, provider: Provider, good: Claims) -> None:
    provider.answers[KEYS] = lambda handler: respond(handler, {"keys": [rsa().public(alg="RS512"), ec().public()]})

    assert refusal(deployment.ask(rsa().sign(good))) == (401, "Unauthenticated")


def test_a_short_key_is_not_used(deployment: Deployment, provider: Provider, good: Claims) -> None:
    short = rsa("short", bits=1024)
    provider.publish(short, ed())

    assert refusal(deployment.ask(short.sign(good))) == (401, "Unauthenticated")


def test_keys_without_names_are_tried(deployment: Deployment, provider: Provider, good: Claims) -> None:
    provider.publish(rsa(None), ec(None), ed(None))

    for key in (rsa(None), ec(None), ed(None)):
        assert deployment.who(key.sign(good))["subject"] == "ada"
        assert deployment.who(key.sign(good, kid="named by the token"))["subject"] == "ada"
    assert refusal(deployment.ask(rsa("somebody's").sign(good, kid=None))) == (401, "Unauthenticated")


# Custom issuers.
CUSTOM = "https://tokens.example.com"


@pytest.mark.parametrize("key", [rsa(), ec()], ids=lambda key: key.algorithm)
def test_keys_may_stand_in_the_application(declaring: Declaring, key: SigningKey) -> None:
    deployment = declaring(f"CustomJwt({CUSTOM!r}, {data_url(key_set(key))!r}, {key.algorithm!r}, 'convex')")
    claims = person(CUSTOM, deployment.now)

    assert deployment.who(key.sign(claims))["tokenIdentifier"] == f"{CUSTOM}|ada"


def test_keys_may_be_percent_encoded(declaring: Declaring) -> None:
    url = "data:application/json," + quote(json.dumps(key_set(rsa())))
    deployment = declaring(f"CustomJwt({CUSTOM!r}, {url!r})")

    assert deployment.who(rsa().sign(person(CUSTOM, deployment.now, aud=None)))["subject"] == "ada"


def test_keys_of_a_custom_issuer_may_be_fetched(declaring: Declaring, provider: Provider) -> None:
    deployment = declaring(f"CustomJwt({CUSTOM!r}, '{provider.issuer}{KEYS}', 'RS256', 'convex')")

    assert deployment.who(rsa().sign(person(CUSTOM, deployment.now)))["subject"] == "ada"
    assert provider.asked == [KEYS]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda now: rsa().sign(person(CUSTOM, now - 7200)), "it has expired"),
        (lambda now: rsa().sign(person(CUSTOM, now + 60)), "it is not valid yet (`iat` is in the future)"),
        (lambda now: ec().sign(person(CUSTOM, now)), "it must be signed with RS256"),
        (lambda now: ed().sign(person(CUSTOM, now)), "it must be signed with RS256"),
        (lambda now: rsa("other").sign(person(CUSTOM, now)), "its signature was made with none of the provider's keys"),
        (lambda now: _unsigned("none", person(CUSTOM, now)), "it must be signed with RS256"),
    ],
)
def test_a_custom_token_is_refused_with_the_reason(declaring: Declaring, make: Any, reason: str) -> None:
    deployment = declaring(f"CustomJwt({CUSTOM!r}, {data_url(key_set(rsa()))!r}, application_id='convex')")
    reply = deployment.ask(make(deployment.now))

    assert refusal(reply) == (401, "InvalidAuthHeader")
    assert reply.json["message"] == f"Could not validate token: {reason}"


def test_of_several_providers_the_one_that_fits_counts(declaring: Declaring, provider: Provider) -> None:
    deployment = declaring(
        f"Oidc({provider.issuer!r}, 'phone'), Oidc({provider.issuer!r}, 'convex'), "
        f"CustomJwt({CUSTOM!r}, {data_url(key_set(ec()))!r}, 'ES256')"
    )

    assert deployment.who(rsa().sign(person(provider.issuer, deployment.now)))["issuer"] == provider.issuer
    assert deployment.who(rsa().sign(person(provider.issuer, deployment.now, aud="phone")))["issuer"] == provider.issuer
    assert deployment.who(ec().sign(person(CUSTOM, deployment.now)))["issuer"] == CUSTOM
    message = deployment.ask(rsa().sign(person("https://x.example.com", deployment.now))).json["message"]
    assert message.endswith(f"CustomJWT(issuer={CUSTOM}, app_id=none)]")


# Around it.
def test_a_reload_without_the_provider_ends_its_tokens(deployment: Deployment, good: Claims) -> None:
    token = rsa().sign(good)
    assert deployment.who(token)

    deployment.declare("")

    assert refusal(deployment.ask(token)) == (401, "NoAuthProvider")


def test_a_reload_with_the_same_providers_keeps_their_keys(
    deployment: Deployment, provider: Provider, good: Claims
) -> None:
    assert deployment.who(rsa().sign(good))
    before = len(provider.asked)

    deployment.declare(f"Oidc({provider.issuer!r}, 'convex')")

    assert deployment.who(rsa().sign(good))
    assert len(provider.asked) == before


@pytest.mark.parametrize("path", ["/api/function", "/api/camber/sql", "/api/update_environment_variables"])
def test_a_token_makes_nobody_the_operator(deployment: Deployment, good: Claims, path: str) -> None:
    assert refusal(deployment.ask(rsa().sign(good), path)) == (403, "BadDeployKey")


def test_tokens_are_in_no_log_and_no_message(
    deployment: Deployment, provider: Provider, good: Claims, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.is_down()
    tokens = [
        rsa("hidden").sign(good),
        rsa().sign(good),
        rsa().sign({**good, "exp": 1}),
        rsa().sign({**good, "sub": 1}),
    ]
    replies = [deployment.ask(token) for token in tokens]
    provider.is_down(down=False)
    replies += [deployment.ask(token) for token in tokens]

    shown = caplog.text + "".join(reply.body.decode() for reply in replies)
    for token in tokens:
        assert not any(part in shown for part in token.split(".") if len(part) > 8)
