"""Stories that a client goes through on an event loop of its own, and people to go through them as."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from camber.client import Client, Subscription
from tests.auth.issuing import person, rsa

ISSUER = "https://issuer.example.com"
PATIENCE = 120.0
UNHURRIED = {"CAMBER_DEV": "1", "CAMBER_QUERY_SECONDS": "60", "CAMBER_MUTATION_SECONDS": "60"}
"""The environment of a server whose functions have time."""
AHEAD = 4.5
"""Seconds by which an issuer's clock may be ahead: a server takes its tokens up to 5. They last longer there than clients think."""

T = TypeVar("T")
_numbers = itertools.count()


def tell(url: str, story: Callable[[Client], Awaitable[T]]) -> T:
    """Go through a story with a client of this deployment. Behind it no task of the client may be left."""

    async def whole() -> T:
        async with asyncio.timeout(PATIENCE):
            async with Client(url) as client:
                result = await story(client)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return result

    return asyncio.run(whole(), debug=True)


def a_name() -> str:
    """A name that no other test uses."""
    return f"client {next(_numbers)}"


def a_token(subject: str, *, seconds: float = 3600, age: float = 0) -> str:
    """A good token of this person that was issued so many seconds ago and lives so long."""
    now = time.time() - age
    return rsa().sign(person(ISSUER, now, sub=subject, exp=now + seconds, iat=now))


async def until(values: Subscription, wanted: Any) -> None:
    """Take values until this one comes."""
    async for value in values:
        if value == wanted:
            return


async def soon(what: Callable[[], bool]) -> None:
    """Wait until this is so."""
    while not what():  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0.01)
