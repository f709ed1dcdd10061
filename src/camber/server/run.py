"""Running a deployment's two ports in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import uvicorn

from camber.backend import Backend
from camber.server.address_file import Address, name_of_database, written_down
from camber.server.admin_keys import admin_key
from camber.server.app import Api, create_app, create_site_app
from camber.server.asgi import ASGIApp
from camber.server.logging import configure_logging
from camber.server.parent_process import ParentProcess
from camber.server.ports import BACKLOG, Ports
from camber.server.reloaded import Reloaded, log_outcome
from camber.server.reloading import Reloader
from camber.server.signals import Hangups, Signals
from camber.server.sockets import sync_sockets
from camber.settings import Settings

_SPARE_FILES: Final = 512
_GARBAGE_THRESHOLD: Final = 10_000
"""New objects that Python lets come together before it looks for cycles among them; at 700 the looking took 4 % of the time."""
_CLOSING_SECONDS: Final = 5.0
_LAST_WORDS_SECONDS: Final = 1.0
_LAST_REQUEST_SECONDS: Final = 0.1

_log = logging.getLogger("camber.server")


def serve(
    backend: Backend,
    *,
    started: Callable[[Address], None] | None = None,
    alongside: Sequence[Callable[[], Awaitable[None]]] = (),
    reloader: Reloader | None = None,
    hangups: Hangups | None = None,
    parent: ParentProcess | None = None,
) -> None:
    """Serve `backend` on the ports of its settings until SIGTERM or SIGINT; then finish the requests that run, within bounds.

    `started` is called once both ports answer. Each of `alongside` runs on the same event loop meanwhile; one that fails stops the
    server and its error is raised here. With `hangups`, SIGHUP has the code loaded anew. A worker of `parent` serves on the ports that
    it was handed, and stops when that is gone. The backend stays open: who opened it closes it. But where functions did not stop the
    process is replaced by one with the same command line, and a reload that is still at work is not waited for: then the backend is
    closed here, and the process ended if even that takes too long.

    Raises ConfigurationError where a port is taken or not allowed, DataFolderError where the secret can't be read or made, and the
    commit's error, for the process to end with it, where it is not known whether a commit is on disk.
    """
    settings = backend.settings
    if not backend.is_shared:
        admin_key(backend.data, create=True)
    with contextlib.ExitStack() as stack:
        ports = Ports.taken(settings) if parent is None else parent.ports
        stack.callback(ports.close)
        configure_logging(settings, worker=None if parent is None else parent.worker)
        _allow_open_files(2 * settings.connections + _SPARE_FILES)
        url, site_url = ports.origins(settings.host)
        if 0 in (settings.port, settings.site_port):
            backend.listens_at(url, site_url)
        reloader = reloader or Reloader(backend)
        running = _Running(backend, ports, reloader, parent, hangups)
        address = Address(url, site_url, os.getpid(), time.time() * 1_000, name_of_database(settings.database_url))
        if parent is None:
            stack.enter_context(written_down(backend.data, address))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(running.until_stopped(lambda: _announce(address, started, parent), alongside))
    is_loading = reloader.abandon()
    if running.is_unhealthy:
        if backend.database.broken is not None:
            raise backend.database.broken
        _start_anew(backend, parent)
    if is_loading and not _is_closed_in_time(backend):
        _log.warning("the process ends without closing its data, which a reload still works on")
        _leave(0)


class _Running:
    """The two servers on one event loop, and what makes them stop."""

    def __init__(
        self,
        backend: Backend,
        ports: Ports,
        reloader: Reloader,
        parent: ParentProcess | None,
        hangups: Hangups | None,
    ) -> None:
        self.is_unhealthy = False
        self._backend, self._reloader, self._parent, self._hangups = backend, reloader, parent, hangups
        self._sockets = (ports.api, ports.site)
        reload = self._reload_and_log if parent is None else parent.reload
        self._servers = (
            _Server(create_app(backend, reload=reload), backend.settings),
            _Server(create_site_app(backend), backend.settings),
        )
        # A worker leaves SIGHUP to its parent, which has all of them take the new code.
        self._on_hangup = self._begin_reload if parent is None else _nothing
        self._reloads: set[asyncio.Task[Reloaded]] = set()
        self._failure: BaseException | None = None
        self._is_stopping = False

    async def until_stopped(
        self, started: Callable[[], None], alongside: Sequence[Callable[[], Awaitable[None]]]
    ) -> None:
        loop = asyncio.get_running_loop()

        def unhealthy() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends anyway
                loop.call_soon_threadsafe(self._restart)

        self._backend.on_unhealthy = unhealthy
        # Whether nobody is to be waited for, a worker's parent says: service managers may signal both of them.
        stop = self._stop if self._parent is None else partial(self._stop_as_told, False)
        with Signals(stop=stop, reload=self._on_hangup, hangups=self._hangups):
            pairs = zip(self._servers, self._sockets, strict=True)
            serving = asyncio.gather(*(server.serve(sockets=sockets) for server, sockets in pairs))
            up = asyncio.create_task(self._both_up())
            await asyncio.wait([serving, up], return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                up.cancel()
                await serving
                return
            # What was made until now stays: there is no point in looking through it for garbage again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GARBAGE_THRESHOLD, 10, 10)
            started()
            works = alongside if self._parent is None else (*alongside, self._follow_parent)
            beside = [asyncio.create_task(self._watched(work)) for work in works]
            await serving
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    async def _both_up(self) -> None:
        for server in self._servers:
            await server.up.wait()

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  it is raised again once the servers have stopped
            self._failure = error
            self._stop()

    async def _follow_parent(self) -> None:
        assert self._parent is not None
        await self._parent.follow(self._reloader.reload, self._stop_as_told)

    def _stop(self) -> None:
        """Finish what runs. The second time it is meant: nobody is waited for."""
        if self._is_stopping:
            for server in self._servers:
                server.force_exit = True
            self._send_all_away()
            return
        self._is_stopping = True
        for server in self._servers:
            server.stop(is_replaced=self.is_unhealthy and self._parent is not None)
        # A little before the servers themselves lose patience, so that live clients hear of it.
        asyncio.get_running_loop().call_later(self._backend.settings.shutdown_seconds, self._send_all_away)

    def _stop_as_told(self, at_once: bool) -> None:
        if not self._is_stopping:
            self._stop()
        if at_once:
            self._stop()

    def _send_all_away(self) -> None:
        for server in self._servers:
            if server.api is not None:
                server.api.send_all_away()

    def _restart(self) -> None:
        if self.is_unhealthy:  # told again; stopping twice would mean that nobody is waited for
            return
        reason, in_doubt = self._backend.ready(), self._backend.database.broken is not None
        _log.error("the server ends" if in_doubt else "the server starts anew", extra={"reason": reason})
        self.is_unhealthy = True
        self._stop()
        if in_doubt:
            # Those whose calls it was are told that the outcome is not known; nobody else is waited for.
            asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._stop)

    def _begin_reload(self) -> None:
        task = asyncio.create_task(self._reload_and_log())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_log(self) -> Reloaded:
        outcome = await self._reloader.reload()
        log_outcome(outcome)
        return outcome


class _Server(uvicorn.Server):
    """uvicorn's server, which here neither takes signals nor logs requests, and says when it is up."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(_uvicorn_config(app, settings))
        self.api = app if isinstance(app, Api) else None
        self.up = asyncio.Event()
        self._ports: list[socket.socket] = []
        self._accepting: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._ports = sockets or []
        await super().startup(sockets)
        self.up.set()

    def stop(self, *, is_replaced: bool) -> None:
        """Take no connection from now on, and end when what runs is finished.

        Those that have been made and wait to be accepted are accepted, unless this is a worker that `is_replaced` by others.
        """
        if self.started:
            if not is_replaced:
                self._accept_waiting()
            for listener in self.servers:
                listener.close()
        if self.api is not None:
            self.api.stop()
        # Whoever has just been accepted has sent a request already, or does so at once.
        asyncio.get_running_loop().call_later(_LAST_REQUEST_SECONDS, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def _accept_waiting(self) -> None:
        """The system resets connections that nobody has accepted by the time their listener is closed."""
        loop = asyncio.get_running_loop()
        for port in self._ports:
            port.setblocking(False)
            for _ in range(BACKLOG):
                try:
                    connection, _ = port.accept()
                except OSError:  # there is no further one
                    break
                connection.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield


def _uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    try:
        from camber.server.connections import bounded_connections  # httptools is not everywhere

        http: Any = bounded_connections(settings, app if isinstance(app, Api) else None)
    except ImportError:
        http = "h11"
    return uvicorn.Config(
        app,
        http=http,
        ws=sync_sockets(app.sync) if isinstance(app, Api) else "none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        h11_max_incomplete_event_size=settings.header_bytes,
    )


def _nothing() -> None:
    """What there is to do for somebody else."""


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _announce(address: Address, started: Callable[[Address], None] | None, parent: ParentProcess | None) -> None:
    if parent is None:  # which says it for all its workers
        _log.info("serving", extra={"url": address.url, "site_url": address.site_url})
    if started is not None:
        started(address)


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files: each connection is one, and 1,024 is a common default."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


def _start_anew(backend: Backend, parent: ParentProcess | None) -> None:
    """Replace this process by one with the same command line, or have the parent do so. The functions that did not stop end with it."""
    _is_closed_in_time(backend)
    if parent is not None:
        _leave(1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_closed_in_time(backend: Backend) -> bool:
    """Close it; False where that is held up for long by something that does not end."""
    closing = threading.Thread(target=backend.close, daemon=True)
    closing.start()
    closing.join(_CLOSING_SECONDS)
    return not closing.is_alive()


def _leave(code: int) -> NoReturn:
    """End the process at once, whatever its threads are at."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
