"""Who makes a request: from its Authorization header to a `Caller` (protocol 4.4)."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NoReturn, TypeVar, cast

from camber.errors import InvalidValueError, RequestError
from camber.identity import ANONYMOUS, OPERATOR, Caller, Identity
from camber.server.admin_keys import AdminKeys
from camber.values import parse_json

HEADER_BYTES: Final = 16 * 1024
"""The longest Authorization header; a JWT or an impersonated identity has a tenth of that."""

_REMEMBERED: Final = 1_024
_NO_PROVIDER: Final = (
    "No auth provider found matching the given token (no providers configured). Check convex/auth.config.ts."
)
_TRUTHS: Final = frozenset({"emailVerified", "phoneNumberVerified"})
_TEXTS: Final = frozenset(
    {
        *("tokenIdentifier", "issuer", "subject", "name", "givenName", "familyName", "nickname", "preferredUsername"),
        *("profileUrl", "pictureUrl", "websiteUrl", "email", "gender", "birthday", "timezone", "language"),
        *("phoneNumber", "address", "updatedAt"),
    }
)

_Key = tuple[bytes, str | None]
K = TypeVar("K")


class Credentials:
    """Reads Authorization headers and remembers what they said, until the deployment's secret changes.

    Refusals are not remembered: a key that is wrong now may be right in a moment, and whoever guesses shall not fill the memory.
    """

    def __init__(self, keys: AdminKeys) -> None:
        self._keys = keys
        self._generation = keys.generation
        self._callers: OrderedDict[_Key, Caller] = OrderedDict()
        self._anonymous: OrderedDict[str, Caller] = OrderedDict()

    def caller(self, authorization: bytes | None, address: str | None) -> Caller:
        """The caller that this header stands for, at this address. The operator has no address.

        Raises RequestError with the status, code and text of protocol 4.4.
        """
        if authorization is None:
            return self._anonymous_at(address)
        self._forget_after_rotation()
        key = (authorization, address)
        if (caller := self._callers.get(key)) is not None:
            self._callers.move_to_end(key)
            return caller
        caller = self._read(authorization, address)
        self._forget_after_rotation()
        _remember(self._callers, key, caller)
        return caller

    def _anonymous_at(self, address: str | None) -> Caller:
        if address is None:
            return ANONYMOUS
        if (caller := self._anonymous.get(address)) is None:
            caller = Caller(address=address)
            _remember(self._anonymous, address, caller)
        return caller

    def _forget_after_rotation(self) -> None:
        self._keys.refresh()
        if self._keys.generation != self._generation:
            self._generation = self._keys.generation
            self._callers.clear()

    def _read(self, authorization: bytes, address: str | None) -> Caller:
        if len(authorization) > HEADER_BYTES:
            _malformed()
        scheme, _, credential = authorization.decode("latin-1").strip().partition(" ")
        scheme = scheme.lower()
        if scheme == "bearer":
            raise RequestError(401, "NoAuthProvider", _NO_PROVIDER)
        if scheme != "convex":
            _malformed()
        return self._admin(credential.strip(), address)

    def _admin(self, credential: str, address: str | None) -> Caller:
        key, impersonated = _split(credential)
        if not self._keys.accepts(key):
            raise RequestError(401, "BadAdminKey", "The provided admin key was invalid for this instance")
        if impersonated is None:
            return OPERATOR
        return Caller(identity=_identity(impersonated), is_admin=True, address=address)


def _split(credential: str) -> tuple[str, str | None]:
    """The key, without a type prefix (`prod:`), and the impersonation behind the first colon that is left."""
    name, bar, rest = credential.partition("|")
    if bar:
        credential = name.rpartition(":")[2] + bar + rest
    key, colon, impersonated = credential.partition(":")
    return key, impersonated if colon else None


def _identity(encoded: str) -> Identity:
    try:
        claims = parse_json(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, InvalidValueError):
        _malformed()
    if not isinstance(claims, dict):
        _malformed()
    given = {name: value for name, value in cast("dict[str, object]", claims).items() if value is not None}
    if not _has_sound_claims(given):
        _malformed()
    if "tokenIdentifier" not in given:
        given["tokenIdentifier"] = f"{given['issuer']}|{given['subject']}"
    return Identity(given)


def _has_sound_claims(claims: Mapping[str, object]) -> bool:
    if "tokenIdentifier" not in claims and not ("issuer" in claims and "subject" in claims):
        return False
    return all(
        isinstance(value, str) if name in _TEXTS else isinstance(value, bool) if name in _TRUTHS else True
        for name, value in claims.items()
    )


def _remember(memory: OrderedDict[K, Caller], key: K, caller: Caller) -> None:
    memory[key] = caller
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _malformed() -> NoReturn:
    raise RequestError(400, "HeaderParseFailure", "Malformed Authorization header.")
