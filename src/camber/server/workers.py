"""A server of several processes: a parent that takes the ports, and workers that share them.

The parent binds and listens once and hands the sockets to its workers, instead of each binding its own with SO_REUSEPORT: connections that
wait to be accepted wait in one place, so none is lost with a worker that ends, and a busy worker takes fewer of them. The parent neither
opens the data nor loads the application. Workers are new processes of the same command, not forks, so that they begin without its threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from camber.server.address_file import Address, name_of_database, written_down
from camber.server.parent_process import HANDED_OVER, HandedOver
from camber.server.ports import Ports
from camber.server.reloaded import ALREADY_RUNNING, Reloaded, log_outcome
from camber.server.signals import Hangups, Signals, held_back_hangups
from camber.server.worker_channel import AskForReload, Channel, LoadAnew, Outcome, Ready, Said, Stop
from camber.settings import Settings

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0
"""A worker that served for so long has begun well: if it ends, the next one comes after the shortest pause."""
_RELOAD_SECONDS: Final = 3_600.0
"""A schema may have to be compared with very many documents first."""
_LAST_SECONDS: Final = 20.0
"""For a worker to close what it has open, once it serves nobody any more."""

_FAILED: Final = 1
_WORKER_ENDED: Final = Reloaded("WorkerEnded", "It ended meanwhile.")

_log = logging.getLogger("camber.server")


def serve_with_workers(settings: Settings, data: Path, command: Sequence[str], hangups: Hangups) -> int:
    """Serve by `settings.workers` processes of this command until SIGTERM or SIGINT; returns the exit code.

    The code is that of a worker which can't start, else 0. Raises ConfigurationError, DataFolderError.
    """
    ports = Ports.taken(settings)
    with contextlib.closing(ports):
        return asyncio.run(_Workers(settings, data, command, ports).until_stopped(hangups))


class _Worker:
    """One process, and the parent's end of the channel to it."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel, version: int) -> None:
        self.number, self.process, self.version = number, process, version
        self.ready = asyncio.Event()
        self.began = time.monotonic()
        self._is_leaving = False
        self._channel = channel
        self._numbers = itertools.count(1)
        self._loading: dict[int, asyncio.Future[Reloaded]] = {}

    @property
    def serves(self) -> bool:
        """Whether it can be asked for something. One that closes what it has open can't, though its process is still there."""
        return self.ready.is_set() and not self._is_leaving and self.process.returncode is None

    @property
    def name(self) -> str:
        return f"worker {self.number} (pid {self.process.pid})"

    async def load_anew(self) -> Reloaded:
        """Have it load its code anew."""
        if self._is_leaving:
            return _WORKER_ENDED
        number = next(self._numbers)
        answer = self._loading[number] = asyncio.get_running_loop().create_future()
        self._channel.say(LoadAnew(number))
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                return await answer
        except TimeoutError:
            return Reloaded("ReloadIncomplete", f"It gave no answer for {_RELOAD_SECONDS:.0f} seconds.")
        finally:
            self._loading.pop(number, None)

    async def until_gone(self, asked: Callable[[_Worker, int], None]) -> None:
        """Take in what it says; `asked` is told when it wants all to have the new code.

        Whoever says nothing more has served its last request: it is killed if it does not end then.
        """
        try:
            async for said in self._channel.heard():
                self._take(said, asked)
        finally:
            self._is_leaving = True
            self._channel.close()
            for answer in self._loading.values():
                if not answer.done():
                    answer.set_result(_WORKER_ENDED)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.process.wait()
        except TimeoutError:
            _log.error("a worker that did not end is killed", extra={"worker": self.number, "pid": self.process.pid})
            self.signal(signal.SIGKILL)

    def tell(self, number: int, outcome: Reloaded) -> None:
        """How it went with what it asked for."""
        self._channel.say(Outcome(number, outcome))

    def stop(self, *, at_once: bool) -> None:
        """Have it end."""
        self._channel.say(Stop(at_once))
        if not self.ready.is_set():  # it does not listen yet
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _take(self, said: Said, asked: Callable[[_Worker, int], None]) -> None:
        match said:
            case Ready():
                self.ready.set()
            case AskForReload(number):
                asked(self, number)
            case Outcome(number, outcome):
                answer = self._loading.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(outcome)
            case _:
                pass


class _Workers:
    """All workers of this parent, from the first start to the end of the last."""

    def __init__(self, settings: Settings, data: Path, command: Sequence[str], ports: Ports) -> None:
        self._settings, self._data, self._command, self._ports = settings, data, command, ports
        self._workers: dict[int, _Worker] = {}
        self._code = 0
        self._version = 0
        """Counts reloads that at least one worker has carried out."""
        self._is_serving = self._is_reload_due = False
        self._stopping = asyncio.Event()
        self._reloading, self._spawning = asyncio.Lock(), asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()

    async def until_stopped(self, hangups: Hangups) -> int:
        """Start them, keep them, and wait until all have ended; returns the exit code."""
        with Signals(stop=self._stop, reload=self._hung_up, hangups=hangups):
            # The first one alone: it brings the tables to the schema, and what keeps it from starting is said once.
            if await self._start(1):
                others = range(2, self._settings.workers + 1)
                all_up = all(await asyncio.gather(*(self._start(number) for number in others)))
                if all_up and not self._stopping.is_set():
                    await self._serve()
            if not self._stopping.is_set():
                self._stop()
            await self._end()
        return self._code

    async def _serve(self) -> None:
        url, site_url = self._ports.origins(self._settings.host)
        database = name_of_database(self._settings.database_url)
        with written_down(self._data, Address(url, site_url, os.getpid(), time.time() * 1_000, database)):
            _log.info("serving", extra={"url": url, "site_url": site_url, "workers": self._settings.workers})
            for number in range(1, self._settings.workers + 1):
                self._begin(self._keep(number))
            self._is_serving = True
            if self._is_reload_due:
                self._hung_up()
            await self._stopping.wait()

    # One worker

    async def _start(self, number: int) -> bool:
        """Start a worker and wait until it serves. Where it ends before, its exit code is that of the parent."""
        worker = await self._spawn(number)
        if worker is None:
            return False
        code = await self._until_ready(worker)
        if code is not None and not self._stopping.is_set():
            self._code = code if code > 0 else _FAILED
            _log.error("a worker can't start", extra={"worker": number, "pid": worker.process.pid, "code": code})
            self._stop()
        if code is None:
            await self._catch_up(worker)
        return code is None

    async def _keep(self, number: int) -> None:
        """Have a new worker take the place of one that ends, as long as the server runs."""
        ends = 0
        while True:
            worker = self._workers[number]
            code = await worker.process.wait()
            if self._stopping.is_set():
                return
            ends = 1 if time.monotonic() - worker.began > _HEALTHY_SECONDS else ends + 1
            pause = min(_FIRST_PAUSE * 2 ** min(ends - 1, 10), _LONGEST_PAUSE)
            _log.error(
                "a worker ended and is started again",
                extra={"worker": number, "pid": worker.process.pid, "code": code, "after_seconds": pause},
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return
            try:
                await self._replace(number)
            except Exception as error:  # noqa: BLE001  no process or no thread can be had just now; the next try may have them
                _log.error("a worker can't be started", extra={"worker": number, "reason": str(error)})

    async def _replace(self, number: int) -> None:
        worker = await self._spawn(number)
        if worker is None or await self._until_ready(worker) is not None:
            return
        _log.info("a worker serves again", extra={"worker": number, "pid": worker.process.pid})
        await self._catch_up(worker)

    async def _catch_up(self, worker: _Worker) -> None:
        """Have it load its code once more where it began before all were told to."""
        if worker.version == self._version:
            return
        async with self._reloading:  # and the reload that has this now may have brought it up already
            told = await self._bring_up(worker) if worker.version != self._version else None
        if told is not None and not self._stopping.is_set():
            _log.error("a worker has the code before", extra={"reason": told})

    async def _spawn(self, number: int) -> _Worker | None:
        """A new process; None where all are to end."""
        async with self._spawning:
            if self._stopping.is_set():
                return None
            worker = self._workers[number] = await self._new_worker(number)
            if self._stopping.is_set():  # too late to be told with the others
                worker.stop(at_once=False)
        self._begin(worker.until_gone(self._asked))
        return worker

    async def _new_worker(self, number: int) -> _Worker:
        version = self._version
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.callback(ours.close)  # a process that has begun all the same ends when it finds nobody there
            handed = HandedOver(
                worker=number,
                parent=os.getpid(),
                channel=theirs.fileno(),
                api=[each.fileno() for each in self._ports.api],
                site=[each.fileno() for each in self._ports.site],
            )
            with held_back_hangups():
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env={**os.environ, HANDED_OVER: msgspec.json.encode(handed).decode()},
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[handed.channel, *handed.api, *handed.site],
                    # A group of its own: Ctrl-C in a terminal is for the parent, which passes it on.
                    process_group=0,
                )
            on_failure.pop_all()
        return _Worker(number, process, await Channel.over(ours), version)

    async def _until_ready(self, worker: _Worker) -> int | None:
        """Wait until it serves; returns its exit code where it ends before."""
        ready, ended = asyncio.ensure_future(worker.ready.wait()), asyncio.ensure_future(worker.process.wait())
        await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ended.cancel()
            return None
        ready.cancel()
        return ended.result()

    # All of them

    def _stop(self) -> None:
        """Have all end; told a second time, without waiting for anybody."""
        at_once = self._stopping.is_set()
        self._stopping.set()
        self._ports.close()
        for worker in self._workers.values():
            if worker.process.returncode is None:
                worker.stop(at_once=at_once)

    async def _end(self) -> None:
        """Wait for the workers to end, and for the rest of what was begun."""
        async with self._spawning:
            waiting = [asyncio.ensure_future(worker.process.wait()) for worker in self._workers.values()]
        _, late = await asyncio.wait(waiting, timeout=self._settings.shutdown_seconds + _LAST_SECONDS)
        if late:
            _log.error("workers that did not end are killed", extra={"workers": len(late)})
            for worker in self._workers.values():
                if worker.process.returncode is None:
                    worker.signal(signal.SIGKILL)
        codes = await asyncio.gather(*waiting)
        if self._code == 0 and not {0, -signal.SIGTERM}.issuperset(codes):
            self._code = _FAILED
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hung_up(self) -> None:
        """At SIGHUP. While the workers start it waits until all serve."""
        if self._is_serving:
            self._begin(self._reload_and_log())
        else:
            self._is_reload_due = True

    def _asked(self, worker: _Worker, number: int) -> None:
        async def reload() -> None:
            worker.tell(number, await self._reload_and_log())

        self._begin(reload())

    async def _reload_and_log(self) -> Reloaded:
        outcome = await self._reload()
        log_outcome(outcome)
        return outcome

    async def _reload(self) -> Reloaded:
        """Have one worker try the new code, and then the others take it."""
        if self._reloading.locked():
            return ALREADY_RUNNING
        async with self._reloading:
            first = next((worker for worker in self._workers.values() if worker.serves), None)
            if first is None:
                return Reloaded("ReloadIncomplete", "No worker serves just now. Ask again in a moment.")
            outcome = await first.load_anew()
            if outcome.code:
                return outcome
            self._version += 1
            first.version = self._version
            # One that does not serve yet is told when it does.
            others = [worker for worker in self._workers.values() if worker.serves and worker is not first]
            failed = [told for told in await asyncio.gather(*map(self._bring_up, others)) if told is not None]
        have_it = 1 + len(others) - len(failed)
        if not failed:
            return msgspec.structs.replace(outcome, workers=have_it)
        return Reloaded(
            "ReloadIncomplete",
            f"{len(failed)} of {1 + len(others)} workers go on with the code before. Ask again.",
            problems=tuple(failed),
            total=len(failed),
            workers=have_it,
        )

    async def _bring_up(self, worker: _Worker) -> str | None:
        """Have one more worker take the code that another has already; returns in words what went wrong."""
        version = self._version
        outcome = await worker.load_anew()
        if not outcome.code:
            worker.version = version
            return None
        return " ".join([f"{worker.name}: {outcome.message}", *outcome.problems[:3]])

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the parent process failed at something", exc_info=error)
