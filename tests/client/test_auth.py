"""Being somebody: tokens, functions that give them, the admin key."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from camber import FunctionError
from camber.client import AuthenticationError, Client
from tests.client.telling import AHEAD, ISSUER, a_token, soon, tell
from tests.wire.running_server import RunningServer


def who(me: Any) -> str | None:
    """The subject in what `callers:me` says."""
    return None if me["claims"] is None else me["claims"]["subject"]


class Tokens:
    """Gives tokens, and knows how it was asked."""

    def __init__(self, make: Callable[[int], str | None]) -> None:
        self.asked: list[bool] = []
        self._make = make

    async def fetch(self, force_refresh: bool) -> str | None:
        self.asked.append(force_refresh)
        return self._make(len(self.asked))


def test_a_token_says_who_calls_until_it_is_cleared(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        me = client.subscribe("callers:me")
        assert who(await anext(me)) is None
        await client.set_auth(a_token("ada"))
        assert client.is_authenticated
        assert who(await anext(me)) == "ada"
        assert who(await client.mutation("callers:meInMutation")) == "ada"
        assert who(await client.action("callers:meInAction")) == "ada"
        client.clear_auth()
        assert not client.is_authenticated
        assert who(await client.action("callers:meInAction")) is None
        assert who(await anext(me)) is None

    tell(server.url, story)


def test_a_function_gives_the_token_and_is_asked_once(server: RunningServer) -> None:
    tokens = Tokens(lambda count: a_token("ada"))

    async def story(client: Client) -> None:
        await client.set_auth(tokens.fetch)
        assert who(await client.query("callers:me")) == "ada"

    tell(server.url, story)
    assert tokens.asked == [False]


def test_where_the_function_gives_none_the_client_is_nobody(server: RunningServer) -> None:
    tokens = Tokens(lambda count: None)

    async def story(client: Client) -> None:
        await client.set_auth(a_token("ada"))
        await client.set_auth(tokens.fetch)
        assert not client.is_authenticated
        assert who(await client.query("callers:me")) is None

    tell(server.url, story)
    assert tokens.asked == [False, True]


def test_a_token_is_replaced_before_it_expires(server: RunningServer) -> None:
    asked: list[bool] = []
    seen: list[str | None] = []

    async def fetch(force_refresh: bool) -> str:
        asked.append(force_refresh)
        count = len(asked)
        await soon(lambda: len(seen) >= count - 1)  # the one before has been seen
        return a_token(f"ada {count}", seconds=4, age=-AHEAD)

    async def story(client: Client) -> None:
        await client.set_auth(fetch)
        async for me in client.subscribe("callers:me"):
            seen.append(who(me))
            if len(seen) == 3:
                break
        assert seen == ["ada 1", "ada 2", "ada 3"]  # never nobody in between

    tell(server.url, story)
    assert asked[:3] == [False, True, True]


def test_a_refused_token_is_replaced_by_a_fresh_one(server: RunningServer) -> None:
    tokens = Tokens(lambda count: a_token("ada", age=7200) if count == 1 else a_token("ada"))

    async def story(client: Client) -> None:
        await client.set_auth(tokens.fetch)
        assert client.is_authenticated
        assert who(await client.query("callers:me")) == "ada"

    tell(server.url, story)
    assert tokens.asked == [False, True]


def test_a_fresh_token_that_is_refused_too_is_an_error_and_the_client_goes_on_as_nobody(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(lambda count: f"not even a token {count}")

    async def story(client: Client) -> None:
        me = client.subscribe("callers:me")
        await anext(me)
        with pytest.raises(AuthenticationError, match="the server refuses the token: "):
            await client.set_auth(tokens.fetch)
        assert not client.is_authenticated
        assert who(await client.query("callers:me")) is None

    with caplog.at_level(logging.WARNING, "camber.client"):
        tell(server.url, story)
    assert tokens.asked == [False, True]
    assert "going on as nobody" in caplog.text


def test_a_refused_token_that_stays_as_it_is_is_an_error(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(AuthenticationError):
            await client.set_auth(a_token("ada", age=7200))
        assert who(await client.query("callers:me")) is None
        await client.set_auth(a_token("bob"))
        assert who(await client.query("callers:me")) == "bob"

    tell(server.url, story)


def test_a_token_that_expires_in_use_is_replaced(server: RunningServer) -> None:
    async def fetch(force_refresh: bool) -> str:
        if not force_refresh:
            return a_token("ada", seconds=3)
        await asyncio.sleep(3)  # until then the first one has expired, and the server has said so
        return a_token("ada")

    async def story(client: Client) -> None:
        await client.set_auth(fetch)
        began = time.monotonic()
        while time.monotonic() < began + 6:
            assert who(await client.query("callers:me")) == "ada"
            await asyncio.sleep(0.1)

    tell(server.url, story)


def test_while_no_fresh_token_can_be_had_the_client_keeps_trying(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    def make(count: int) -> str:
        if count in (2, 3):
            raise OSError("the issuer is out of reach")
        return a_token(f"ada {count}", seconds=3 if count == 1 else 3600)

    tokens = Tokens(make)

    async def story(client: Client) -> None:
        await client.set_auth(tokens.fetch)
        async for me in client.subscribe("callers:me"):
            if who(me) != "ada 1":
                assert who(me) is not None
                break

    with caplog.at_level(logging.WARNING, "camber.client"):
        tell(server.url, story)
    assert "a fresh token could not be had" in caplog.text


def test_what_the_function_raises_at_first_reaches_the_caller_and_changes_nothing(server: RunningServer) -> None:
    def fetch(force_refresh: bool) -> str:
        raise OSError("the issuer is out of reach")

    async def story(client: Client) -> None:
        await client.set_auth(a_token("ada"))
        with pytest.raises(OSError, match="out of reach"):
            await client.set_auth(fetch)
        assert who(await client.query("callers:me")) == "ada"

    tell(server.url, story)


def test_the_last_word_on_who_the_client_is_counts(server: RunningServer) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(force_refresh: bool) -> str:
        begun.set()
        await go_on.wait()
        return a_token("slow")

    async def story(client: Client) -> None:
        first = asyncio.create_task(client.set_auth(slow))
        await begun.wait()
        await client.set_auth(a_token("quick"))
        go_on.set()
        await first
        assert who(await client.query("callers:me")) == "quick"

    tell(server.url, story)


def test_the_operator_calls_internal_functions_and_acts_as_anybody(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(FunctionError, match="Could not find"):
            await client.query("callers:secret")
        client.set_admin_auth(server.admin_key)
        assert await client.query("callers:secret") == "for the operator"
        assert await client.query("callers:me") == {"claims": None, "isOperator": True}
        client.set_admin_auth(server.admin_key, {"subject": "ada", "issuer": ISSUER})
        assert who(await client.query("callers:me")) == "ada"
        assert who(await client.mutation("callers:meInMutation")) == "ada"

    tell(server.url, story)


def test_an_admin_key_that_is_refused_ends_the_client(server: RunningServer) -> None:
    async def story(client: Client) -> None:
        me = client.subscribe("callers:me")
        await anext(me)
        client.set_admin_auth(f"{server.admin_key}0")
        for call in (anext(me), client.query("callers:me"), client.set_auth("any")):
            with pytest.raises(AuthenticationError, match="the server refuses the admin key"):
                await call

    tell(server.url, story)


def test_closing_while_a_token_is_fetched_leaves_nothing_behind(server: RunningServer) -> None:
    begun = asyncio.Event()

    async def fetch(force_refresh: bool) -> str | None:
        if not force_refresh:
            return a_token("ada", seconds=2, age=-AHEAD)
        begun.set()
        await asyncio.Event().wait()
        return None

    async def story(client: Client) -> None:
        await client.set_auth(fetch)
        await soon(begun.is_set)

    tell(server.url, story)
