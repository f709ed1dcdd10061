"""Where a client's token comes from, and when the next one is due."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

FetchToken: TypeAlias = Callable[[bool], str | Awaitable[str | None] | None]
"""Gives a token, or None if nobody is signed in. It is told whether a token it may have kept won't do (`force_refresh`)."""

LEEWAY_SECONDS: Final = 10.0
"""So long before a token expires the next one is fetched; in the last half of its life if that is short."""
SOONEST_REFRESH_SECONDS: Final = 1.0
"""No sooner is a fresh token replaced, however short it lives."""

FETCH_SECONDS: Final = 60.0
"""So long a function may take to give a token."""


class _Claims(msgspec.Struct):
    exp: float | None = None
    iat: float | None = None


_claims = msgspec.json.Decoder(_Claims)


class TokenSource:
    """A token that stays as it is, or a function that gives tokens."""

    def __init__(self, source: str | FetchToken) -> None:
        self._source = source

    @property
    def can_refresh(self) -> bool:
        return not isinstance(self._source, str)

    async def token(self, *, force_refresh: bool) -> str | None:
        """The token. A function that is no coroutine function may block, and so runs in a thread."""
        if isinstance(self._source, str):
            return self._source
        async with asyncio.timeout(FETCH_SECONDS):
            if inspect.iscoroutinefunction(self._source):
                given = self._source(force_refresh)
            else:
                given = await asyncio.to_thread(self._source, force_refresh)
            return await given if inspect.isawaitable(given) else given

    async def first_token(self) -> str | None:
        """The token to begin with: one that the function has kept will do, and if it has none, a fresh one."""
        token = await self.token(force_refresh=False)
        if token is None and self.can_refresh:
            token = await self.token(force_refresh=True)
        return token


def seconds_to_refresh(token: str, *, is_fresh: bool, now: float | None = None) -> float | None:
    """In how many seconds the token is to be replaced; None if it does not say when it expires.

    Of a token that has just been issued only its life counts, so that a clock that is wrong here does no harm.
    """
    claims = _claims_of(token)
    if claims is None or claims.exp is None:
        return None
    left = claims.exp - (time.time() if now is None else now)
    if claims.iat is not None:
        life = claims.exp - claims.iat
        left = life if is_fresh else min(life, left)
    soonest = SOONEST_REFRESH_SECONDS if is_fresh else 0.0
    return max(left - LEEWAY_SECONDS, left / 2, soonest)


def _claims_of(token: str) -> _Claims | None:
    """What a JWT says of its life. It is not verified; that is the server's part."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return _claims.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None
