"""Verifying tokens: from the text that a client sent to the person it stands for (protocol 4.4, 4.5)."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from camber.auth.claims import identity_of
from camber.clock import Clock
from camber.errors import InvalidValueError, RequestError
from camber.functions import CustomJwt, IdentityProvider, Oidc, canonical_issuer
from camber.identity import Identity
from camber.values import parse_json

if TYPE_CHECKING:
    from camber.auth.keys import ProviderKeys
    from camber.auth.signatures import SigningKey

TOKEN_BYTES: Final = 16 * 1024
LEEWAY_SECONDS: Final = 5.0
"""How far the clock of a provider may be ahead of ours."""
REMEMBERED: Final = 4_096

_LAST_MS: Final = 8.64e15
"""The last moment that JavaScript has a date for."""

_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)
_UNREADABLE: Final = (
    "Could not parse JWT payload. "
    "Check that the token is a valid JWT format with three base64-encoded parts separated by dots."
)
_NOT_VERIFIED: Final = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token hasn't expired."
)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """Who the holder of a token is, and until when (ms since the epoch)."""

    identity: Identity
    expires_ms: float


class TokenVerifier:
    """Verifies tokens of the providers it was told of, and remembers those that were good until they expire.

    Used on the event loop, but for `serve`. No token and nothing out of an unverified one gets into a log or a message.
    """

    def __init__(self, clock: Clock, providers: Sequence[IdentityProvider] = ()) -> None:
        self._clock = clock
        self._serving = _Serving((), clock)
        self.serve(providers)

    def serve(self, providers: Sequence[IdentityProvider]) -> None:
        """Take the tokens of these providers from now on; tokens of others are forgotten. From any thread."""
        if tuple(providers) != self._serving.providers:
            self._serving = _Serving(tuple(providers), self._clock)

    def known(self, token: str) -> VerifiedToken | None:
        """Who holds this token, if that can be told without asking the provider; None if `verify` must be awaited.

        Raises RequestError 401 with the code and text of protocol 4.4.
        """
        return self._judge(token, self._serving)

    async def verify(self, token: str) -> VerifiedToken:
        """Who holds this token; asks its provider if need be.

        Raises RequestError 401, and 503 if the provider can't be reached and no keys of it are known.
        """
        serving = self._serving
        found = self._judge(token, serving)
        if found is not None:
            return found
        parsed = _parse(token)
        provider, keys = serving.fitting(parsed)
        at_hand = keys.at_hand()
        fetched = await keys.fetch(for_unknown=bool(at_hand))
        if serving is not self._serving:  # the application was loaded anew meanwhile
            return await self.verify(token)
        parsed.check_times(provider, self._now())
        if fetched and parsed.is_signed_with(fetched):
            return serving.remember(token, parsed)
        if keys.is_failing:
            raise RequestError(
                503,
                "IdentityProviderUnreachable",
                "The keys of the token's identity provider can't be fetched right now. Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        raise _refusal(provider, "its signature was made with none of the provider's keys")

    def _judge(self, token: str, serving: _Serving) -> VerifiedToken | None:
        now = self._now()
        if (found := serving.remembered(token, now)) is not None:
            return found
        if not serving.providers:
            raise RequestError(401, "NoAuthProvider", _no_provider(()))
        parsed = _parse(token)
        provider, keys = serving.fitting(parsed)
        # What needs no keys comes first: a token that is over makes nobody ask a provider.
        parsed.check(provider, now)
        at_hand = keys.at_hand()
        if not at_hand and not keys.is_fixed:
            return None
        if parsed.is_signed_with(at_hand):
            return serving.remember(token, parsed)
        if not parsed.names_one_of(at_hand) and (keys.may_ask_for_unknown() or keys.is_failing):
            return None
        raise _refusal(provider, "its signature was made with none of the provider's keys")

    def _now(self) -> float:
        return self._clock.now_ns() / 1e9


class _Serving:
    """The providers of one version of an application, with what is known of their keys and tokens."""

    def __init__(self, providers: tuple[IdentityProvider, ...], clock: Clock) -> None:
        self.providers = providers
        self._keys = _keys_of(providers, clock)
        self._verified: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def fitting(self, token: _Parsed) -> tuple[IdentityProvider, ProviderKeys]:
        """The first provider whose issuer and audience are the token's. Raises RequestError."""
        issuer = canonical_issuer(token.issuer)
        for provider, keys in zip(self.providers, self._keys, strict=True):
            own = provider.issuer if isinstance(provider, Oidc) else canonical_issuer(provider.issuer)
            if own == issuer and (provider.application_id is None or provider.application_id in token.audiences):
                return provider, keys
        raise RequestError(401, "NoAuthProvider", _no_provider(self.providers))

    def remembered(self, token: str, now: float) -> VerifiedToken | None:
        """A token that was verified before and is still good."""
        digest = _digest(token)
        found = self._verified.get(digest)
        if found is None:
            return None
        if now * 1000 >= found.expires_ms:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return found

    def remember(self, token: str, parsed: _Parsed) -> VerifiedToken:
        """Keep a token that was just verified."""
        verified = VerifiedToken(identity_of(parsed.claims), min(parsed.expires * 1000, _LAST_MS))
        self._verified[_digest(token)] = verified
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return verified


def _keys_of(providers: tuple[IdentityProvider, ...], clock: Clock) -> tuple[ProviderKeys, ...]:
    if not providers:
        return ()
    # Not above: it loads an HTTP client and more, which nobody needs who has no providers.
    from camber.auth.keys import ProviderKeys

    return tuple(ProviderKeys(provider, clock) for provider in providers)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What a token says of itself; true only once its signature is verified."""

    text: str
    header: Mapping[str, object]
    claims: Mapping[str, object]

    @property
    def issuer(self) -> str:
        issuer = self.claims.get("iss")
        if not isinstance(issuer, str) or not issuer:
            raise RequestError(
                401,
                "InvalidAuthHeader",
                "Missing issuer claim ('iss') in JWT payload. It must be the issuer of one of the providers in auth.py.",
            )
        return issuer

    @property
    def audiences(self) -> Sequence[object]:
        """Whom it is for. `azp`, who asked for it, does not count: some providers write the page's origin there."""
        audience = self.claims.get("aud")
        return cast("list[object]", audience) if isinstance(audience, list) else [audience]

    @property
    def expires(self) -> float:
        return cast(float, self.claims["exp"])

    def check(self, provider: IdentityProvider, now: float) -> None:
        """All that needs no keys. Raises RequestError."""
        if self.header.get("alg") not in provider.algorithms:
            raise _refusal(provider, f"it must be signed with {' or '.join(provider.algorithms)}")
        # Extensions that must be understood (RFC 7515, section 4.1.11). There is none that we know.
        if "crit" in self.header or "b64" in self.header:
            raise _refusal(provider, "its header names an extension")
        if not isinstance(self.header.get("kid", ""), str):
            raise _refusal(provider, "the name of its key (`kid`) is no text")
        if not isinstance(self.claims.get("sub"), str) or not self.claims["sub"]:
            raise _refusal(provider, "it does not say whom it is about (`sub`)")
        for name in ("exp", "nbf", "iat"):
            if not isinstance(self.claims.get(name, 0.0), float):
                raise _refusal(provider, f"`{name}` is no number")
        self.check_times(provider, now)

    def check_times(self, provider: IdentityProvider, now: float) -> None:
        """Whether it is good at this moment. Raises RequestError."""
        if "exp" not in self.claims:
            raise _refusal(provider, "it does not say when it ends (`exp`)")
        if now >= self.expires:
            raise _refusal(provider, "it has expired")
        for name in ("nbf", "iat"):
            if cast(float, self.claims.get(name, 0.0)) > now + LEEWAY_SECONDS:
                raise _refusal(provider, f"it is not valid yet (`{name}` is in the future)")

    def names_one_of(self, keys: Sequence[SigningKey]) -> bool:
        """Whether it says which of these keys it was signed with."""
        kid = self.header.get("kid")
        return kid is not None and any(key.kid == kid for key in keys)

    def is_signed_with(self, keys: Sequence[SigningKey]) -> bool:
        """Whether one of these keys made its signature: the one it names, or any where token or keys have no names."""
        kid = self.header.get("kid")
        named = [key for key in keys if key.kid == kid] if kid is not None else keys
        candidates = named or [key for key in keys if key.kid is None]
        return any(key.algorithm == self.header["alg"] and key.has_signed(self.text) for key in candidates)


def _parse(token: str) -> _Parsed:
    if len(token) > TOKEN_BYTES or not _FORM.fullmatch(token):
        raise RequestError(401, "InvalidAuthHeader", _UNREADABLE)
    header, claims, _ = token.split(".")
    return _Parsed(token, _object_in(header), _object_in(claims))


def _object_in(part: str) -> Mapping[str, object]:
    try:
        found: object = parse_json(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, InvalidValueError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(401, "InvalidAuthHeader", _UNREADABLE)
    return cast("dict[str, object]", found)


def _refusal(provider: IdentityProvider, reason: str) -> RequestError:
    if isinstance(provider, CustomJwt):
        return RequestError(401, "InvalidAuthHeader", f"Could not validate token: {reason}")
    return RequestError(401, "Unauthenticated", f"{_NOT_VERIFIED} ({reason[0].upper()}{reason[1:]}.)")


def _no_provider(providers: Sequence[IdentityProvider]) -> str:
    if not providers:
        return "No auth provider found matching the given token (no providers configured). Check convex/auth.config.ts."
    listed = ", ".join(
        f"OIDC(domain={one.domain}, app_id={one.application_id})"
        if isinstance(one, Oidc)
        else f"CustomJWT(issuer={one.issuer}, app_id={one.application_id or 'none'})"
        for one in providers
    )
    return (
        "No auth provider found matching the given token. Check that your JWT's issuer and audience match one of your "
        f"configured providers: [{listed}]"
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
