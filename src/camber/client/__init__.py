"""A client of any deployment, for asyncio: live queries, mutations and actions over one connection that mends itself."""

from camber.client.client import Client
from camber.client.subscription import Subscription
from camber.errors import AuthenticationError, ClientClosedError, ClientError, ConnectionLostError

__all__ = [
    "AuthenticationError",
    "Client",
    "ClientClosedError",
    "ClientError",
    "ConnectionLostError",
    "Subscription",
]
