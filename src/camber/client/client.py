"""A client of any deployment, for asyncio."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from camber.client.auth import Authentication
from camber.client.connection import Connection
from camber.client.conversation import Answered, Authenticated, Changed, Conversation, Event, Logged, Lost
from camber.client.outcomes import Outcome, one_more, result_of
from camber.client.subscription import Subscription
from camber.client.tokens import FetchToken
from camber.errors import ClientClosedError, ClientError, ConnectionLostError, InvalidValueError
from camber.values import encode_value, normalize

MAX_REQUESTS: Final = 500
"""So many mutations and actions are under way at once; further ones wait for their turn."""

MAX_ARGUMENTS_BYTES: Final = 16 << 20
"""Arguments that are longer as JSON are refused here: the server would break the connection off."""

MAX_SUBSCRIPTIONS: Final = 10_000
"""So many different queries one client watches at most."""

logger = logging.getLogger("camber.client")


class Client:
    """A connection to a deployment, which mends itself; to be used as `async with Client(url) as client`.

    It connects in the background and calls wait until the server can be reached, however long that takes (`asyncio.timeout` bounds
    it). Values are as in functions: a number is a float, an int64 an `Int64`; ints are sent as numbers. A function that fails raises
    ConvexError with its data, else FunctionError. When the client can't go on, or is closed, everything raises ClientError.

    One client belongs to one event loop. Raises ConfigurationError for what is no address.
    """

    def __init__(self, url: str) -> None:
        self._conversation = Conversation(str(uuid.uuid4()))
        self._connection = Connection(url, self._conversation, tell=self._told, mend=self._refused)
        self._authentication = Authentication(self._conversation, self._connection.wake)
        self._requests: dict[int, asyncio.Future[Outcome]] = {}
        # Held weakly: a subscription that nobody iterates over any more ends by itself.
        self._subscriptions: dict[int, WeakSet[Subscription]] = {}
        self._slots = asyncio.Semaphore(MAX_REQUESTS)
        self._running: asyncio.Task[None] | None = None
        self._end: ClientError | None = None

    async def __aenter__(self) -> Self:
        if self._end is not None:
            raise one_more(self._end)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Who waits for something gets ClientClosedError, iterations end. A second time does nothing."""
        self._finish(ClientClosedError("the client was closed"), by_the_user=True)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._authentication.wait_ended()

    # --- Calling functions

    async def query(self, path: str, args: Mapping[str, object] | None = None) -> Any:
        """The result of a query, such as `query("tasks:open", {"list": "home"})`."""
        async with self.subscribe(path, args) as values:
            try:
                return await anext(values)
            except StopAsyncIteration:
                raise ClientClosedError("the client was closed") from None

    async def mutation(self, path: str, args: Mapping[str, object] | None = None) -> Any:
        """Run a mutation once, whatever happens to the connection meanwhile; returns its result.

        When it returns, what this client's subscriptions and queries give shows what it wrote. Mutations run in the order of
        their calls. If the call is cancelled, the mutation may have been carried out or not.
        """
        return await self._request(path, args, is_action=False)

    async def action(self, path: str, args: Mapping[str, object] | None = None) -> Any:
        """Run an action; returns its result.

        Raises ConnectionLostError if the connection breaks meanwhile: whether it was carried out is not known then, and it is not
        begun a second time.
        """
        return await self._request(path, args, is_action=True)

    def subscribe(self, path: str, args: Mapping[str, object] | None = None) -> Subscription:
        """The values of a query, from the present one on, for `async for`; see `Subscription`.

        All subscriptions of a client show the same moment of the database, and those with the same arguments share one query.
        """
        self._raise_if_ended()
        if self._conversation.watched >= MAX_SUBSCRIPTIONS:
            raise ClientError(f"one client watches at most {MAX_SUBSCRIPTIONS:,} queries")
        query_id = self._conversation.watch(path, _encoded(args))
        subscription = Subscription(query_id, self._conversation.latest(query_id), self._leave)
        self._subscriptions.setdefault(query_id, WeakSet()).add(subscription)
        self._connection.wake()
        return subscription

    # --- Who this client is

    async def set_auth(self, token: str | FetchToken) -> None:
        """Call functions as whom this token names; returns when the server has taken it.

        A function, `async def` or not, is called with False for a token that may be a kept one, and with True for one that must be
        fresh: some seconds before the last one expires, and once when the server refuses it. Where it gives None, and where its
        fresh token is refused too, the client goes on as nobody. Raises AuthenticationError if the first token is refused.
        """
        self._raise_if_ended()
        await self._authentication.sign_in(token)

    def set_admin_auth(self, key: str, identity: Mapping[str, object] | None = None) -> None:
        """Call functions as the operator, or with an identity as that person: `subject`, `issuer` and other claims.

        A key that the server refuses ends the client with AuthenticationError.
        """
        self._raise_if_ended()
        self._authentication.sign_in_as_operator(key, identity)

    def clear_auth(self) -> None:
        """Call functions as nobody from here on."""
        self._raise_if_ended()
        self._authentication.sign_out()

    @property
    def is_authenticated(self) -> bool:
        """Whether the server has taken the token or key, and still does as far as it has said."""
        return self._end is None and self._authentication.is_confirmed

    # --- Inside

    async def _request(self, path: str, args: Mapping[str, object] | None, *, is_action: bool) -> Any:
        encoded = _encoded(args)
        self._raise_if_ended()
        send = self._conversation.act if is_action else self._conversation.mutate
        await self._slots.acquire()
        try:
            self._raise_if_ended()
            request_id = send(path, encoded)
        except BaseException:
            self._slots.release()
            raise
        answer = self._requests[request_id] = asyncio.get_running_loop().create_future()
        self._connection.wake()
        try:
            return result_of(await answer)
        finally:
            del self._requests[request_id]
            # Behind one that was sent the slot is free when it has ended, also if nobody waits for it.
            if self._conversation.abandon(request_id):
                self._slots.release()

    def _leave(self, query_id: int) -> None:
        self._conversation.unwatch(query_id)
        if query_id in self._subscriptions and not self._subscriptions[query_id]:
            del self._subscriptions[query_id]
        self._connection.wake()

    def _told(self, event: Event) -> None:
        match event:
            case Changed(query_id, outcome, is_news):
                for subscription in list(self._subscriptions.get(query_id, ())):
                    subscription.offer(outcome, is_news=is_news)
            case Answered(request_id, outcome):
                self._slots.release()
                if (answer := self._waiting_for(request_id)) is not None:
                    answer.set_result(outcome)
            case Lost(request_id):
                self._slots.release()
                if (answer := self._waiting_for(request_id)) is not None:
                    answer.set_exception(ConnectionLostError("the connection was lost while the action was in flight"))
            case Authenticated():
                self._authentication.confirmed()
            case Logged(path, lines):
                for line in lines:
                    logger.info("%s: %s", path, line)
            case _:
                pass

    def _waiting_for(self, request_id: int) -> asyncio.Future[Outcome] | None:
        answer = self._requests.get(request_id)
        return None if answer is None or answer.done() else answer

    async def _refused(self, reason: str) -> None:
        await self._authentication.refused(reason)

    async def _run(self) -> None:
        try:
            await self._connection.run()
        except ClientError as error:
            self._finish(error)
        except Exception as error:
            logger.exception("the client ends by a fault of its own")
            self._finish(ClientClosedError(f"the client ended by a fault of its own: {error!r}"))

    def _finish(self, error: ClientError, *, by_the_user: bool = False) -> None:
        """Tell everybody who waits. Only the first end counts."""
        if self._end is not None:
            return
        self._end = error
        self._authentication.end(error)
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(one_more(error))
        for subscriptions in self._subscriptions.values():
            for subscription in list(subscriptions):
                subscription.end(None if by_the_user else error)

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise one_more(self._end)
        if self._running is None:
            raise ClientError("the client is not open: use it as `async with Client(url) as client`")


def _encoded(args: Mapping[str, object] | None) -> bytes:
    """Arguments as JSON. Raises InvalidValueError for what is no value, and for what is too large."""
    normal = normalize(dict(args or {}))
    encoded = encode_value(normal)
    if len(encoded) > MAX_ARGUMENTS_BYTES:
        raise InvalidValueError(
            f"the arguments are too large: {len(encoded):,} bytes as JSON, of {MAX_ARGUMENTS_BYTES:,} at most"
        )
    return encoded
