"""The socket under a conversation: opened, read and written, and opened anew when it breaks."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from camber.client.conversation import AuthRefused, Conversation, Ended, Event
from camber.client.messages import MAX_MESSAGE_BYTES, MessageError
from camber.errors import ClientClosedError, ConfigurationError

OPEN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
SILENCE_SECONDS: Final = 60.0
"""Without a message for so long, the connection is taken for dead: a server says something every 15 seconds."""

_FIRST_DELAY: Final = 1.0
_FIRST_DELAY_AFTER_A_REASON: Final = 0.1
_FIRST_DELAY_IF_OVERLOADED: Final = 3.0
_LONGEST_DELAY: Final = 16.0
_REFUSED_LATELY_SECONDS: Final = 10.0

_CLEAN_CODES: Final = (1000, 1001, 1012)
_TOO_LARGE: Final = 1009
_TRY_AGAIN_LATER: Final = 1013
_NO_CODE: Final = 1006

logger = logging.getLogger("camber.client")


class Backoff:
    """How long to wait before the next attempt: twice as long each time, give or take a half, at most 16 seconds."""

    def __init__(self) -> None:
        self.attempts = 0

    def delay(self, first: float = _FIRST_DELAY) -> float:
        """The next waiting time; `first` is about how long the first one is."""
        self.attempts += 1
        return min(first * 2 ** min(self.attempts - 1, 10), _LONGEST_DELAY / 1.5) * random.uniform(0.5, 1.5)

    def reset(self) -> None:
        """All is well: the next series begins small."""
        self.attempts = 0


class _RefusedError(Exception):
    """The server refuses the identity that this client shows."""


@dataclass(frozen=True, slots=True)
class _Break:
    """Why a connection ended or did not come about, and how long it is to wait before the next attempt."""

    reason: str
    first_delay: float = _FIRST_DELAY
    refusal: str | None = None


class Connection:
    """Moves texts between a conversation and one socket after the other.

    `tell` is given what the application is to know; `mend` has the time between two sockets to find another token when the server
    refused the last one.
    """

    def __init__(
        self,
        url: str,
        conversation: Conversation,
        *,
        tell: Callable[[Event], None],
        mend: Callable[[str], Awaitable[None]],
    ) -> None:
        self._url, self._socket_url = url, socket_url(url)
        self._conversation = conversation
        self._tell, self._mend = tell, mend
        self._backoff = Backoff()
        self._has_outgoing = asyncio.Event()
        self._refused_at = -math.inf

    def wake(self) -> None:
        """The conversation has something to say."""
        self._has_outgoing.set()

    async def run(self) -> None:
        """Keep a connection until this is cancelled. Raises ClientError when there is no point in going on."""
        while True:
            broken = await self._until_it_breaks()
            self._tell_of(broken)
            if broken.refusal is not None:
                await self._mend(broken.refusal)
            await asyncio.sleep(self._backoff.delay(broken.first_delay))

    async def _until_it_breaks(self) -> _Break:
        try:
            await self._one_connection()
        except _RefusedError as error:
            return _Break("AuthError", self._delay_after_refusal(), refusal=str(error))
        except ConnectionClosed as error:
            _raise_if_too_large(error)
            return _Break(_reason(error), _first_delay(error))
        except (OSError, WebSocketException, MessageError) as error:
            return _Break(_trouble(error))
        return _Break("closed")

    def _delay_after_refusal(self) -> float:
        """At once with another token; but tokens that don't last may not keep client and server running in circles."""
        before, self._refused_at = self._refused_at, time.monotonic()
        return _FIRST_DELAY if self._refused_at - before < _REFUSED_LATELY_SECONDS else _FIRST_DELAY_AFTER_A_REASON

    def _tell_of(self, broken: _Break) -> None:
        for event in self._conversation.disconnected(broken.reason):
            self._tell(event)
        # Once for a series of attempts; a refusal is told of by those who deal with it.
        level = logging.DEBUG if self._backoff.attempts or broken.refusal else logging.WARNING
        logger.log(level, "no connection to %s (%s); trying again", self._url, broken.reason)

    async def _one_connection(self) -> None:
        """From opening a socket to its end, which is an exception always."""
        async with connect(
            self._socket_url,
            additional_headers={"Convex-Client": f"camber-{client_version()}"},
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            # The server's messages tell whether it is there; its own pings are answered.
            ping_interval=None,
            max_size=MAX_MESSAGE_BYTES,
        ) as socket:
            self._conversation.connected(int(time.time() * 1000))
            await self._exchange(socket)

    async def _exchange(self, socket: ClientConnection) -> None:
        tasks = [asyncio.create_task(self._receive(socket)), asyncio.create_task(self._send(socket))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _send(self, socket: ClientConnection) -> None:
        """Send what there is to send. Ends when the socket is closed, of which the receiving side has more to say."""
        while True:
            self._has_outgoing.clear()
            while (message := self._conversation.next_message()) is not None:
                try:
                    await socket.send(message, text=True)
                except ConnectionClosed:
                    return
            await self._has_outgoing.wait()

    async def _receive(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SILENCE_SECONDS) as silence:
                while True:
                    text = await socket.recv(decode=False)
                    silence.reschedule(loop.time() + SILENCE_SECONDS)
                    self._received(text)
        except TimeoutError:
            raise MessageError("InactiveServer") from None

    def _received(self, text: bytes) -> None:
        for event in self._conversation.receive(text):
            match event:
                case AuthRefused(reason):
                    raise _RefusedError(reason)
                case Ended(reason):
                    raise ClientClosedError(f"the server ended the session: {reason}")
                case _:
                    self._tell(event)
        if self._backoff.attempts and self._conversation.is_settled:
            self._backoff.reset()
            logger.info("connected to %s again", self._url)


def socket_url(url: str) -> str:
    """Where the socket of a deployment is. A path in its address is kept, for servers behind one. Raises ConfigurationError."""
    parts = urlsplit(url.strip())
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{url!r} is no address of a deployment; it looks like http://127.0.0.1:3210")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/{client_version()}/sync"


def client_version() -> str:
    """Which version of this client speaks."""
    try:
        return version("camber")
    except PackageNotFoundError:
        return "0.0.0"


def _raise_if_too_large(error: ConnectionClosed) -> None:
    """Where a message was too large, the next attempt would end the same way."""
    if error.rcvd is not None and error.rcvd.code == _TOO_LARGE:
        raise ClientClosedError("the server does not take a message of this client: it is too large") from error
    if error.sent is not None and error.sent.code == _TOO_LARGE and not error.rcvd_then_sent:
        raise ClientClosedError(f"the server sent a message of more than {MAX_MESSAGE_BYTES >> 20} MiB") from error


def _reason(error: ConnectionClosed) -> str:
    close = error.rcvd
    if close is None:
        return f"closed with code {_NO_CODE}"
    return close.reason or f"closed with code {close.code}"


def _first_delay(error: ConnectionClosed) -> float:
    close = error.rcvd
    if close is not None and close.code == _TRY_AGAIN_LATER:
        return _FIRST_DELAY_IF_OVERLOADED
    return (
        _FIRST_DELAY_AFTER_A_REASON
        if close is not None and close.code in _CLEAN_CODES and close.reason
        else _FIRST_DELAY
    )


def _trouble(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"the server answers with status {error.response.status_code}"
    return str(error) or type(error).__name__
