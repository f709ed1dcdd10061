"""A worker's view of its parent: the ports and the channel that it was handed, and what is asked and told over it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from camber.errors import ConfigurationError
from camber.server.ports import Ports
from camber.server.reloaded import Reload, Reloaded
from camber.server.worker_channel import AskForReload, Channel, LoadAnew, Outcome, Ready, Stop

HANDED_OVER: Final = "_CAMBER_WORKER"
"""The environment variable in which a worker finds what it was handed."""

_PARENT_GONE: Final = Reloaded("WorkerEnded", "The server's parent process is gone.")


class HandedOver(msgspec.Struct):
    """The worker's number, who its parent is, and the files that it was handed: its end of the channel and the two ports."""

    worker: int
    parent: int
    channel: int
    api: list[int]
    site: list[int]


def parent_process() -> ParentProcess | None:
    """The parent, where this process is one of its workers."""
    text = os.environ.get(HANDED_OVER)
    if text is None or sys.platform == "win32":
        return None
    try:
        handed = msgspec.json.decode(text, type=HandedOver)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{HANDED_OVER} is for the server itself and can't be set") from error
    # A program that a worker starts has the variable too, but neither the parent nor the files.
    return ParentProcess(handed) if handed.parent == os.getppid() else None


class ParentProcess:
    """The parent of this process, which has taken the ports."""

    def __init__(self, handed: HandedOver) -> None:
        self.worker = handed.worker
        self.ports = Ports(
            *([socket.socket(fileno=number) for number in numbers] for numbers in (handed.api, handed.site))
        )
        self._end = socket.socket(fileno=handed.channel)
        for each in (*self.ports.api, *self.ports.site, self._end):
            each.set_inheritable(False)  # what functions start shall not hold the ports
        self._channel: Channel | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Reloaded]] = {}

    async def follow(self, reload: Reload, stop: Callable[[bool], None]) -> None:
        """Tell it that this worker serves, and do what it says; `stop` is told whether that is meant at once.

        When the parent is gone, this worker is to stop too.
        """
        self._channel = channel = await Channel.over(self._end)
        tasks: set[asyncio.Task[None]] = set()
        try:
            channel.say(Ready())
            async for said in channel.heard():
                match said:
                    case LoadAnew(number):
                        task = asyncio.create_task(self._load_anew(number, reload, channel))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    case Outcome(number, outcome):
                        self._settle(number, outcome)
                    case Stop(at_once):
                        stop(at_once)
                    case _:
                        pass
            stop(False)
        finally:
            for number in list(self._asked):
                self._settle(number, _PARENT_GONE)
            channel.close()

    async def reload(self) -> Reloaded:
        """Have all workers load the code anew."""
        channel = self._channel
        if channel is None:
            return _PARENT_GONE
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        channel.say(AskForReload(number))
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    async def _load_anew(self, number: int, reload: Reload, channel: Channel) -> None:
        channel.say(Outcome(number, await reload()))

    def _settle(self, number: int, outcome: Reloaded) -> None:
        answer = self._asked.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result(outcome)
