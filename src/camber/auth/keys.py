"""The keys of one identity provider: fetched when a token needs them, kept for a while, and shared by all who ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, cast

import httpx

from camber.auth.signatures import SigningKey, UnusableKeysError, read_keys
from camber.clock import Clock
from camber.errors import ConfigurationError, InvalidValueError
from camber.functions import CustomJwt, IdentityProvider, Oidc, canonical_issuer, check_url, decode_data_url
from camber.values import parse_json

FRESH_SECONDS: Final = 600.0
"""Keys as old as this are used and fetched anew meanwhile."""
OLD_SECONDS: Final = 3_600.0
"""Keys as old as this are not used before the provider was asked for new ones."""
MAX_SECONDS: Final = 86_400.0
"""Keys as old as this are not used any more, even if the provider can't be reached."""
UNKNOWN_KEY_SECONDS: Final = 5.0
"""How often a token with an unknown key can make the server ask the provider. Anyone can make up such tokens."""
MAX_PAUSE_SECONDS: Final = 30.0
"""The longest pause after fetching failed; the first is a second, each further one twice the one before."""

FETCH_SECONDS: Final = 5.0
DOCUMENT_BYTES: Final = 256 * 1024

_log = logging.getLogger("camber.auth")


class ProviderKeys:
    """What is known of one provider's keys. Only used on the event loop."""

    def __init__(self, provider: IdentityProvider, clock: Clock) -> None:
        self._provider, self._clock = provider, clock
        self._fetching: asyncio.Task[None] | None = None
        self._keys: tuple[SigningKey, ...] = ()
        self._fetched_at = 0.0
        self._failures = 0
        self._failed_at = 0.0
        self._asked_for_unknown_at: float | None = None
        self.is_fixed = isinstance(provider, CustomJwt) and provider.jwks[:5].lower() == "data:"
        """Whether the application itself brought the keys."""
        if isinstance(provider, CustomJwt) and self.is_fixed:
            self._keys = _fixed_keys(provider)

    @property
    def is_failing(self) -> bool:
        """Whether the provider did not answer when it was last asked."""
        return self._failures > 0

    def at_hand(self) -> tuple[SigningKey, ...]:
        """The keys, if they are good without asking the provider first; else nothing."""
        if self.is_fixed:
            return self._keys
        age = self._age()
        if not self._keys or age >= MAX_SECONDS:
            return ()
        if age >= FRESH_SECONDS and not self._is_pausing():
            self._start_fetching()
            if age >= OLD_SECONDS and not self.is_failing:  # one that hangs shall not hold up everybody again and again
                return ()
        return self._keys

    def may_ask_for_unknown(self) -> bool:
        """Whether a token with a key that is not among these is worth asking the provider."""
        if self._is_fetching():
            return True
        if self.is_fixed or self._is_pausing():
            return False
        last = self._asked_for_unknown_at
        return last is None or not 0 <= self._now() - last < UNKNOWN_KEY_SECONDS

    async def fetch(self, *, for_unknown: bool = False) -> tuple[SigningKey, ...]:
        """Ask the provider, together with all who ask meanwhile; the keys that are good now, nothing where there are none."""
        if for_unknown:
            self._asked_for_unknown_at = self._now()
        if not self.is_fixed and (self._is_fetching() or not self._is_pausing()):
            # Whoever asks may give up waiting; the others' answer is still on its way.
            await asyncio.shield(self._start_fetching())
        return () if not self.is_fixed and self._age() >= MAX_SECONDS else self._keys

    def _now(self) -> float:
        return self._clock.now_ns() / 1e9

    def _age(self) -> float:
        age = self._now() - self._fetched_at
        # A clock that was set back says nothing about age.
        return age if age >= 0 else OLD_SECONDS

    def _is_pausing(self) -> bool:
        if not self._failures:
            return False
        pause = min(2.0 ** (self._failures - 1), MAX_PAUSE_SECONDS)
        return 0 <= self._now() - self._failed_at < pause

    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    def _start_fetching(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            self._keys = await fetch_keys(self._provider)
        except Exception as error:  # noqa: BLE001  whatever a provider answers, the server goes on
            self._failures = min(self._failures + 1, 16)
            self._failed_at = self._now()
            _log.warning(
                "the keys of an identity provider can't be fetched",
                extra={"issuer": _name_of(self._provider), "reason": _reason(error), "attempt": self._failures},
            )
        else:
            self._failures = 0
            self._fetched_at = self._now()


async def fetch_keys(provider: IdentityProvider) -> tuple[SigningKey, ...]:
    """A provider's keys as it publishes them now. Raises UnusableKeysError, httpx.HTTPError, TimeoutError."""
    url = await _key_set_url(provider) if isinstance(provider, Oidc) else provider.jwks
    return read_keys(await _get(url), provider.algorithms)


async def _key_set_url(provider: Oidc) -> str:
    """Where the provider's discovery document says that its keys are (OpenID Connect Discovery 1.0, section 4)."""
    document = _object_in(await _get(f"{provider.issuer}/.well-known/openid-configuration"))
    issuer, url = document.get("issuer"), document.get("jwks_uri")
    if not isinstance(issuer, str) or canonical_issuer(issuer) != provider.issuer:
        raise UnusableKeysError(f"its discovery document is that of another issuer: {str(issuer)[:200]!r}")
    try:
        parts = check_url("jwks_uri", url)
    except ConfigurationError as error:
        raise UnusableKeysError(f"its discovery document names no usable place of its keys: {error}") from None
    if parts.scheme == "http" and provider.issuer.startswith("https:"):
        raise UnusableKeysError("its discovery document sends us from https to http for its keys")
    return cast(str, url)


def _object_in(text: bytes) -> Mapping[str, object]:
    try:
        found: object = parse_json(text)
    except InvalidValueError as error:
        raise UnusableKeysError(f"its discovery document can't be read: {error}") from None
    if not isinstance(found, dict):
        raise UnusableKeysError("its discovery document is no JSON object")
    return cast("dict[str, object]", found)


async def _get(url: str) -> bytes:
    """A document of a provider, within bounds of time and size. A redirect is not followed: the URL is the one that was checked."""
    is_here = url.startswith("http:")
    async with asyncio.timeout(FETCH_SECONDS):
        # Reading the certificates takes long. What is on this machine has none, and is not asked for through a proxy.
        verify: Any = False if is_here else await asyncio.to_thread(httpx.create_ssl_context)
        async with (
            httpx.AsyncClient(
                verify=verify, trust_env=not is_here, timeout=FETCH_SECONDS, follow_redirects=False
            ) as client,
            # Not compressed, so that it can't become large in memory.
            client.stream(
                "GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}
            ) as response,
        ):
            if response.status_code != 200:
                raise UnusableKeysError(f"{url} answered {response.status_code}")
            return await _read(response, url)


async def _read(response: httpx.Response, url: str) -> bytes:
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > DOCUMENT_BYTES:
            raise UnusableKeysError(f"{url} answered more than {DOCUMENT_BYTES} bytes")
    return bytes(content)


def _fixed_keys(provider: CustomJwt) -> tuple[SigningKey, ...]:
    try:
        return read_keys(decode_data_url(provider.jwks), provider.algorithms)
    except UnusableKeysError as error:
        # The application is loaded and goes on for all other callers.
        _log.error(
            "an identity provider has no usable keys", extra={"issuer": _name_of(provider), "reason": str(error)}
        )
        return ()


def _name_of(provider: IdentityProvider) -> str:
    return provider.domain if isinstance(provider, Oidc) else provider.issuer


def _reason(error: Exception) -> str:
    return str(error) or ("it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
