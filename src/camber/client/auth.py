"""Who a client is to the server: the token it shows, replaced before it expires and when the server refuses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from camber.client.connection import Backoff
from camber.client.conversation import ANONYMOUS, Conversation, Credential
from camber.client.outcomes import one_more
from camber.client.tokens import FetchToken, TokenSource, seconds_to_refresh
from camber.errors import AuthenticationError, ClientError

logger = logging.getLogger("camber.client")


class Authentication:
    """Gives the conversation its credential. `wake` is called when there is something to send."""

    def __init__(self, conversation: Conversation, wake: Callable[[], None]) -> None:
        self._conversation, self._wake = conversation, wake
        self._source: TokenSource | None = None
        self._changes = 0
        self._has_tried_afresh = False
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the one that refreshes, and those that were just cancelled
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_confirmed(self) -> bool:
        """Whether the server has taken what was shown to it last, and that is somebody."""
        return self._conversation.credential != ANONYMOUS and not self._conversation.awaits_authentication

    async def sign_in(self, source: str | FetchToken) -> None:
        """Show this token, or those that the function gives; returns when the server has taken the first.

        Raises AuthenticationError if it does not, and whatever the function raises; who the client was stays then.
        """
        tokens = TokenSource(source)
        change = self._next_change()
        token = await tokens.first_token()
        if change != self._changes:
            return
        if token is None:
            self.sign_out()
            return
        self._show(tokens, token, is_fresh=False)
        await self._confirmation()

    def sign_in_as_operator(self, key: str, identity: Mapping[str, object] | None) -> None:
        """Show the admin key, and act as this person, if one is given."""
        self._next_change()
        self._stop_refreshing()
        self._source = None
        self._authenticate(Credential("Admin", key, identity))

    def sign_out(self) -> None:
        """Show nothing any more."""
        self._next_change()
        self._stop_refreshing()
        self._forget()

    def confirmed(self) -> None:
        """The server has taken it."""
        self._has_tried_afresh = False
        for waiting in self._take_waiting():
            waiting.set_result(None)

    async def refused(self, reason: str) -> None:
        """The server has not taken it, or no longer: try once with a fresh token, and then as nobody.

        Raises AuthenticationError where an admin key was refused: its holder can't mean to go on as nobody.
        """
        credential, source, change = self._conversation.credential, self._source, self._changes
        if credential.kind == "Admin":
            raise AuthenticationError(f"the server refuses the admin key: {reason}")
        self._stop_refreshing()
        fresh = None
        if source is not None and source.can_refresh and not self._has_tried_afresh:
            self._has_tried_afresh = True
            fresh = await _fresh_token(source)
        if change != self._changes:  # somebody signed in or out meanwhile
            return
        if source is None or fresh is None or fresh == credential.value:
            logger.warning("the server refuses the token (%s); going on as nobody", reason)
            self._forget()
            for waiting in self._take_waiting():
                waiting.set_exception(AuthenticationError(f"the server refuses the token: {reason}"))
        else:
            self._show(source, fresh, is_fresh=True)

    def end(self, error: ClientError) -> None:
        """Stop all that goes on here; who waits is told this."""
        self._next_change()
        self._stop_refreshing()
        for waiting in self._take_waiting():
            waiting.set_exception(one_more(error))

    async def wait_ended(self) -> None:
        """Return when nothing goes on here any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _show(self, source: TokenSource, token: str, *, is_fresh: bool) -> None:
        self._stop_refreshing()
        self._source = source
        self._authenticate(Credential("User", token))
        if source.can_refresh:
            self._refreshing = asyncio.create_task(self._keep_fresh(source, token, is_fresh=is_fresh))
            self._tasks.add(self._refreshing)
            self._refreshing.add_done_callback(self._tasks.discard)

    def _forget(self) -> None:
        self._source, self._has_tried_afresh = None, False
        self._authenticate(ANONYMOUS)

    def _authenticate(self, credential: Credential) -> None:
        self._conversation.authenticate(credential)
        self._wake()

    async def _keep_fresh(self, source: TokenSource, token: str, *, is_fresh: bool) -> None:
        while (delay := seconds_to_refresh(token, is_fresh=is_fresh)) is not None:
            await asyncio.sleep(delay)
            fresh = await _fresh_token(source)
            if fresh is None:
                logger.warning("there is no token any more; going on as nobody")
                self._forget()
                return
            if fresh != token:
                self._authenticate(Credential("User", fresh))
            token, is_fresh = fresh, True

    def _stop_refreshing(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None

    def _next_change(self) -> int:
        self._changes += 1
        return self._changes

    async def _confirmation(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _take_waiting(self) -> list[asyncio.Future[None]]:
        waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each.done()]


async def _fresh_token(source: TokenSource) -> str | None:
    """A fresh token, however long it takes: who gives them may be out of reach for a while."""
    backoff = Backoff()
    while True:
        try:
            return await source.token(force_refresh=True)
        except Exception:  # whatever a user's function raises
            logger.warning("a fresh token could not be had; trying again", exc_info=True)
        await asyncio.sleep(backoff.delay())
