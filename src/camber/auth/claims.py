"""From a token's claims to an `Identity` under Convex's names (protocol 4.4, 4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, cast

from camber.identity import Identity

_NAMES: Final[Mapping[str, str]] = {
    "name": "name",
    "given_name": "givenName",
    "family_name": "familyName",
    "nickname": "nickname",
    "preferred_username": "preferredUsername",
    "profile": "profileUrl",
    "picture": "pictureUrl",
    "website": "websiteUrl",
    "email": "email",
    "email_verified": "emailVerified",
    "gender": "gender",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
    "phone_number": "phoneNumber",
    "phone_number_verified": "phoneNumberVerified",
    "address": "address",
    "updated_at": "updatedAt",
}
"""OpenID Connect's standard claims (Core 1.0, section 5.1) and what they are called here."""

_TRUTHS: Final = frozenset({"emailVerified", "phoneNumberVerified"})

_OF_THE_TOKEN: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti"),
        *("auth_time", "nonce", "at_hash", "c_hash", "s_hash", "rt_hash", "fva"),
        *("issuer", "subject", "tokenIdentifier"),
    }
)
"""Claims that an identity does not have.

The first two lines are about the token, not about the person: the next token of the same person has other ones, and would make
everything run again that looked at who asks. The last line is ours to say.
"""


def identity_of(claims: Mapping[str, object]) -> Identity:
    """The person that a verified token is about. Its `iss` and `sub` are texts.

    A standard claim of another type than its own is left out: functions may rely on `email` being a text.
    """
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    found: dict[str, object] = {
        name: value
        for name, value in claims.items()
        if name not in _NAMES and name not in _OF_THE_TOKEN and value is not None
    }
    for own in _NAMES.values():
        if own in found and not _fits(own, found[own]):
            del found[own]
    for claim, own in _NAMES.items():
        if claim in claims and _fits(own, value := _standard(claim, claims[claim])):
            found[own] = value
    return Identity({"tokenIdentifier": f"{issuer}|{subject}", "issuer": issuer, "subject": subject, **found})


def _fits(own: str, value: object) -> bool:
    return isinstance(value, bool if own in _TRUTHS else str)


def _standard(claim: str, value: object) -> object:
    """The value of a standard claim in Convex's form: an address as text, a time as RFC 3339 has it."""
    if claim == "address" and isinstance(value, dict):
        return cast("dict[str, object]", value).get("formatted")
    if claim == "updated_at" and isinstance(value, float):
        try:
            return datetime.fromtimestamp(value, UTC).isoformat()
        except (OverflowError, ValueError, OSError):
            return None
    return value
