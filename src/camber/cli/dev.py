"""`camber dev`: serve an application while it is written."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from camber.cli.places import application_folder
from camber.cli.printing import BOLD, CYAN, DIM, GREEN, RED, counted, from_here, in_words, note, warn
from camber.cli.serving import AS_SET, AppArgument, Listening, check_ports, open_backend
from camber.cli.source_watch import SourceWatch
from camber.errors import DataFolderError, LoadError, SchemaMismatchError

if TYPE_CHECKING:
    from camber.backend import Backend
    from camber.functions import Application
    from camber.server import Address
    from camber.settings import Settings


def dev(app: AppArgument = None, /, *, listening: Listening = AS_SET) -> None:
    """Serve an application while you write it.

    When a file changes the application is loaded anew; data and connections
    stay. While it does not load, or its schema does not fit the data, the last
    good version goes on and the terminal says what is wrong. Clients are told
    error texts and log lines of functions.

    The address and the admin key are written to .env.local in this folder,
    where `npx convex` finds them. What stands there already is not changed.

    For example:

        camber dev
        camber dev apps/crowdfunding --port 4000 --site-port 4001
    """
    settings = listening.settings(dev=True, log_level=None if os.environ.get("CAMBER_LOG_LEVEL") else "warning")
    for warning in settings.warnings:
        warn(warning)
    check_ports(settings)
    _Development(application_folder(app), listening.data_folder(), settings).serve()


class _Development:
    """One application under development, from the first version that loads to the last."""

    def __init__(self, folder: Path, data: Path, settings: Settings) -> None:
        self._folder, self._data, self._settings = folder, data, settings
        self._watch = SourceWatch(folder)
        self._serving_since = ""

    def serve(self) -> None:
        """Wait for a version that can be served, then serve it and those that follow until the server is stopped."""
        from camber.server import Reloader, serve

        with closing(self._first_version()) as backend:
            _keep_out_of_git(self._data)
            self._backend, self._reloader = backend, Reloader(backend)
            self._serving_since = _now()
            serve(backend, started=self._greet, alongside=[self._follow_changes], reloader=self._reloader)
            note("stopped", DIM)

    def _first_version(self) -> Backend:
        from camber.functions import load_application, reload_application

        load = load_application
        while True:
            try:
                return open_backend(load(self._folder), self._data, self._settings)
            except (LoadError, SchemaMismatchError) as error:
                asyncio.run(self._wait_for_another(error))
            load = reload_application

    async def _wait_for_another(self, error: LoadError | SchemaMismatchError) -> None:
        # Said once the event loop is there: Ctrl-C while it is being made would show a traceback.
        self._show_problems(error, "Waiting for a change. Stop with Ctrl-C.")
        await self._watch.changed()

    async def _follow_changes(self) -> None:
        while True:
            changed = await self._watch.changed()
            try:
                application = await self._reloader.load()
            except (LoadError, SchemaMismatchError) as error:
                self._show_problems(
                    error, f"The version of {self._serving_since} is still served. Waiting for a change."
                )
            else:
                self._serving_since = _now()
                note(f"{_now()}  reloaded: {_names(changed)}", GREEN)
                _tell_of(application)

    def _greet(self, address: Address) -> None:
        from camber.server import name_of_database

        application = self._backend.application
        note()
        note(f"  camber dev  {application.name}, {counted(len(application.functions), 'function')}", BOLD)
        note()
        note(f"  API         {address.url}", CYAN)
        note(f"  HTTP        {address.site_url}", CYAN)
        note(f"  data        {name_of_database(self._settings.database_url) or from_here(str(self._data))}")
        for line in _remembered(self._data, address, self._settings):
            note(f"  {line}")
        note()
        note("  Reloads when a file changes. Stop with Ctrl-C.", DIM)
        note()
        _tell_of(application)

    def _show_problems(self, error: LoadError | SchemaMismatchError, what_now: str) -> None:
        note()
        note(f"{_now()}  {from_here(str(self._folder))}", RED)
        note(in_words(error))
        note()
        note(what_now, DIM)


def _tell_of(application: Application) -> None:
    for warning in application.warnings:
        warn(warning)


def _remembered(data: Path, address: Address, settings: Settings) -> list[str]:
    """Write address and key where `npx convex` looks for them; returns what there is to say about that."""
    from camber.cli.convex_env import remember
    from camber.server import admin_key

    key = admin_key(data, instance_name=settings.instance_name)
    return remember(Path.cwd(), os.environ, settings.cloud_url or address.url, key)


def _keep_out_of_git(data: Path) -> None:
    """The data folder holds the secret and everybody's documents: it tells git to leave it alone."""
    mark = data / ".gitignore"
    try:
        data.mkdir(parents=True, exist_ok=True)  # it is not there yet where the documents lie in PostgreSQL
        if not mark.exists():
            mark.write_text("*\n")
    except OSError as error:
        raise DataFolderError(f"the data folder {data} can't be written to: {error.strerror}") from error


def _names(changed: list[Path]) -> str:
    listed = ", ".join(path.name for path in changed[:3])
    return listed if len(changed) <= 3 else f"{listed} and {len(changed) - 3} more"


def _now() -> str:
    return time.strftime("%H:%M:%S")
