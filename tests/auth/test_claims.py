"""What a function sees of a token's claims (protocol 4.4, 4.5)."""

from __future__ import annotations

from typing import Any

from camber import minutes
from tests.auth.conftest import Deployment
from tests.auth.issuing import Provider, rsa

Claims = dict[str, Any]

STANDARD: Claims = {
    "name": "Ada Lovelace",
    "given_name": "Ada",
    "family_name": "Lovelace",
    "nickname": "ada",
    "preferred_username": "countess",
    "profile": "https://example.com/ada",
    "picture": "https://example.com/ada.png",
    "website": "https://ada.example.com",
    "email": "ada@example.com",
    "email_verified": True,
    "gender": "female",
    "birthdate": "1815-12-10",
    "zoneinfo": "Europe/London",
    "locale": "en-GB",
    "phone_number": "+44 20 7946 0000",
    "phone_number_verified": False,
    "address": {"formatted": "St James's Square, London", "country": "GB"},
    "updated_at": 1_700_000_000,
}


def claims_of(deployment: Deployment, good: Claims, **more: object) -> Claims:
    """The claims of the identity, without those that every one has."""
    found = deployment.who(rsa().sign({**good, **more}))
    return {name: value for name, value in found.items() if name not in {"issuer", "subject", "tokenIdentifier"}}


def test_standard_claims_have_convexs_names(deployment: Deployment, good: Claims) -> None:
    assert claims_of(deployment, good, **STANDARD) == {
        "name": "Ada Lovelace",
        "givenName": "Ada",
        "familyName": "Lovelace",
        "nickname": "ada",
        "preferredUsername": "countess",
        "profileUrl": "https://example.com/ada",
        "pictureUrl": "https://example.com/ada.png",
        "websiteUrl": "https://ada.example.com",
        "email": "ada@example.com",
        "emailVerified": True,
        "gender": "female",
        "birthday": "1815-12-10",
        "timezone": "Europe/London",
        "language": "en-GB",
        "phoneNumber": "+44 20 7946 0000",
        "phoneNumberVerified": False,
        "address": "St James's Square, London",
        "updatedAt": "2023-11-14T22:13:20+00:00",
    }


def test_other_claims_pass_as_they_are(deployment: Deployment, good: Claims) -> None:
    own: Claims = {"role": "admin", "org": {"id": 7, "teams": ["a"]}, "https://example.com/plan": "gold", "sid": "s1"}

    assert claims_of(deployment, good, **own, empty=None) == own


def test_claims_about_the_token_itself_are_left_out(deployment: Deployment, good: Claims) -> None:
    about = {"jti": "1", "nbf": 0, "auth_time": 5, "nonce": "n", "at_hash": "a", "c_hash": "c", "fva": [1, 2]}

    assert claims_of(deployment, good, **about) == {}


def test_a_standard_claim_of_another_type_is_left_out(deployment: Deployment, good: Claims) -> None:
    wrong = {"name": 5, "email": ["a"], "email_verified": "true", "address": {"country": "GB"}, "updated_at": 1e300}

    assert claims_of(deployment, good, **wrong, pictureUrl=True) == {}


def test_a_token_can_not_say_that_it_is_somebody_else(deployment: Deployment, provider: Provider, good: Claims) -> None:
    found = deployment.who(rsa().sign({**good, "tokenIdentifier": "x|eve", "subject": "eve", "issuer": "x"}))

    assert found == {"tokenIdentifier": f"{provider.issuer}|ada", "subject": "ada", "issuer": provider.issuer}


def test_the_next_token_of_a_person_makes_nothing_run_again(
    deployment: Deployment, provider: Provider, good: Claims
) -> None:
    runs: list[object] = []
    deployment.backend.engine.observe(runs.append)
    deployment.who(rsa().sign({**good, "jti": "1"}))
    deployment.backend.clock.advance(minutes(5))
    now = int(deployment.now)
    deployment.who(rsa().sign({**good, "jti": "2", "iat": now, "exp": now + 3600, "auth_time": now}))
    assert len(runs) == 1

    deployment.who(rsa().sign({**good, "role": "admin"}))
    assert len(runs) == 2
