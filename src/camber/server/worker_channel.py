"""What a server's parent process and its workers say to each other: lines of JSON on a pair of sockets that nobody else has."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec

from camber.server.reloaded import Reloaded

_LINE_BYTES: Final = 16 * 1024 * 1024
"""More than the largest outcome of a reload."""


class Ready(msgspec.Struct, tag=True):
    """A worker answers requests from now on."""


class AskForReload(msgspec.Struct, tag=True):
    """A worker was told by the operator that all are to have the new code."""

    number: int


class Stop(msgspec.Struct, tag=True):
    """The parent tells a worker to finish what runs and end; or to wait for nobody."""

    at_once: bool = False


class LoadAnew(msgspec.Struct, tag=True):
    """The parent tells a worker to load its code anew."""

    number: int


class Outcome(msgspec.Struct, tag=True):
    """How it went with what the other side wanted under this number."""

    number: int
    outcome: Reloaded


Said = Ready | AskForReload | Stop | LoadAnew | Outcome

_DECODER: Final = msgspec.json.Decoder(Said)


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """The channel over this socket, which it takes."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LINE_BYTES))

    def say(self, what: Said) -> None:
        """Say it, if anybody is there to hear it."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(what) + b"\n")

    async def heard(self) -> AsyncIterator[Said]:
        """What the other side says, until it is gone."""
        with suppress(ConnectionError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                yield _DECODER.decode(line)

    def close(self) -> None:
        """Say and hear nothing more."""
        self._writer.close()
