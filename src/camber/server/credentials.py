"""Who makes a request: from its Authorization header to a `Caller` (protocol 4.4)."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NoReturn, TypeVar, cast

from camber.backend import TokenVerifier
from camber.errors import InvalidValueError, RequestError
from camber.identity import ANONYMOUS, OPERATOR, Caller, Identity
from camber.server.admin_keys import AdminKeys
from camber.values import parse_json

HEADER_BYTES: Final = 16 * 1024
"""The longest Authorization header; a JWT or an impersonated identity has a tenth of that."""

_REMEMBERED: Final = 1_024
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


class NotVerifiedYetError(RequestError):
    """The request has a token that can't be verified without waiting: `Credentials.verify` comes first.

    A client gets to see it only if the token was forgotten right after that.
    """

    def __init__(self) -> None:
        super().__init__(
            503,
            "Overloaded",
            "The server verifies too many tokens at once. Try again in a moment.",
            headers={"Retry-After": "1"},
        )


class Credentials:
    """Reads Authorization headers and remembers what they said, until the deployment's secret changes.

    Refusals are not remembered: a key that is wrong now may be right in a moment, and whoever guesses shall not fill the memory.
    Tokens are remembered by who verifies them, until they expire.
    """

    def __init__(self, keys: AdminKeys, tokens: TokenVerifier) -> None:
        self._keys, self._tokens = keys, tokens
        self._generation = keys.generation
        self._callers: OrderedDict[_Key, Caller] = OrderedDict()
        self._anonymous: OrderedDict[str, Caller] = OrderedDict()

    def caller(self, authorization: bytes | None, address: str | None) -> Caller:
        """The caller that this header stands for, at this address. The operator has no address.

        Raises RequestError with the status, code and text of protocol 4.4, and NotVerifiedYetError.
        """
        if authorization is None:
            return self._anonymous_at(address)
        if (token := token_in(authorization)) is not None:
            if (verified := self._tokens.known(token)) is None:
                raise NotVerifiedYetError
            return Caller(verified.identity, address=address)
        self._forget_after_rotation()
        key = (authorization, address)
        if (caller := self._callers.get(key)) is not None:
            self._callers.move_to_end(key)
            return caller
        caller = self._operator(authorization, address)
        self._forget_after_rotation()
        _remember(self._callers, key, caller)
        return caller

    @property
    def admin_key_shown(self) -> int:
        """The number of the admin key by which `caller` has let in the last operator."""
        return self._generation

    def admin_key(self) -> int:
        """A number for the admin key that holds: another one once the key has been replaced."""
        self._forget_after_rotation()
        return self._generation

    async def verify(self, authorization: bytes | None) -> None:
        """If this header has a token, ask its provider where need be, so that `caller` knows it. Raises RequestError."""
        if authorization is not None and (token := token_in(authorization)) is not None:
            await self._tokens.verify(token)

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

    def _operator(self, authorization: bytes, address: str | None) -> Caller:
        scheme, _, credential = _read(authorization).partition(" ")
        if scheme.lower() != "convex":
            _malformed()
        return self._admin(credential.strip(), address)

    def _admin(self, credential: str, address: str | None) -> Caller:
        key, impersonated = _split(credential)
        if not self._keys.accepts(key):
            raise RequestError(401, "BadAdminKey", "The provided admin key was invalid for this instance")
        if impersonated is None:
            return OPERATOR
        return Caller(identity=_identity(impersonated), is_admin=True, address=address)


def token_in(authorization: bytes) -> str | None:
    """The token of a `Bearer` header; None for other headers. Raises RequestError 400 for one that is too long."""
    if authorization[:6].lower() != b"bearer" or authorization[6:7].strip():
        return None
    return _read(authorization)[6:].strip()


def _read(authorization: bytes) -> str:
    if len(authorization) > HEADER_BYTES:
        _malformed()
    return authorization.decode("latin-1").strip()


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
