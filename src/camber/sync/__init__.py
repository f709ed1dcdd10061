"""The conversation with one live client: what it says, what is decided, and what it is told (protocol 5)."""

from camber.sync.messages import Authenticate, Encoded
from camber.sync.worker import Authenticator, Proof, Socket, SyncHub, SyncWorker

__all__ = ["Authenticate", "Authenticator", "Encoded", "Proof", "Socket", "SyncHub", "SyncWorker"]
