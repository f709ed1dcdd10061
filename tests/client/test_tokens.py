"""When the next token is due, and where tokens come from."""

from __future__ import annotations

import asyncio
import threading

import pytest

from camber.client.tokens import TokenSource, seconds_to_refresh
from tests.auth.issuing import rsa

NOW = 1_800_000_000.0


def token(**claims: object) -> str:
    return rsa().sign(claims)


@pytest.mark.parametrize(
    ("issued", "expires", "is_fresh", "seconds"),
    [
        (NOW, NOW + 3600, True, 3590),
        (NOW, NOW + 3600, False, 3590),
        (NOW - 3000, NOW + 600, False, 590),  # the function had kept it for a while
        (NOW - 3000, NOW + 600, True, 3590),  # the clock here is wrong: it has just been issued
        (NOW + 3000, NOW + 6600, True, 3590),
        (NOW, NOW + 12, True, 6),
        (NOW - 100, NOW - 50, False, 0),
        (NOW, NOW, True, 1),
        (None, NOW + 100, True, 90),
    ],
)
def test_a_token_is_replaced_before_it_expires(
    issued: float | None, expires: float, is_fresh: bool, seconds: float
) -> None:
    claims = {"exp": expires} if issued is None else {"exp": expires, "iat": issued}

    assert seconds_to_refresh(token(**claims), is_fresh=is_fresh, now=NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "opaque", ["", "secret", "a.b", "a.b.c", "a.bnVsbA.c", "a.W10.c", "ä.ö.ü", token(sub="ada"), token(exp="soon")]
)
def test_a_token_that_does_not_say_when_is_not_replaced(opaque: str) -> None:
    assert seconds_to_refresh(opaque, is_fresh=True, now=NOW) is None


def test_functions_of_either_kind_give_tokens() -> None:
    threads: set[int] = set()

    def plain(force_refresh: bool) -> str:
        threads.add(threading.get_ident())
        return f"plain {force_refresh}"

    async def asynchronous(force_refresh: bool) -> str | None:
        return f"asynchronous {force_refresh}"

    class Callable:
        async def __call__(self, force_refresh: bool) -> str:
            return f"object {force_refresh}"

    async def fetched() -> list[str | None]:
        sources = [TokenSource(each) for each in ("kept", plain, asynchronous, Callable(), lambda fresh: None)]
        return [await source.token(force_refresh=True) for source in sources]

    assert asyncio.run(fetched()) == ["kept", "plain True", "asynchronous True", "object True", None]
    assert threading.get_ident() not in threads  # what may block does not block the loop


def test_where_a_function_has_kept_none_it_is_asked_for_a_fresh_one() -> None:
    asked: list[bool] = []

    def fetch(force_refresh: bool) -> str | None:
        asked.append(force_refresh)
        return "fresh" if force_refresh else None

    assert asyncio.run(TokenSource(fetch).first_token()) == "fresh"
    assert asked == [False, True]
