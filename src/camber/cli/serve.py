"""`camber serve`: serve an application in production."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from camber.cli.places import application_folder
from camber.cli.serving import AS_SET, AppArgument, Listening, open_backend
from camber.errors import ConfigurationError

if TYPE_CHECKING:
    from camber.settings import Settings


def serve(
    app: AppArgument = None,
    /,
    *,
    workers: Annotated[
        int | None, Parameter(help="How many processes share the ports; more than one need PostgreSQL. [default: 1]")
    ] = None,
    listening: Listening = AS_SET,
) -> int:
    """Serve an application.

    The schema is compared with the stored documents first. If some don't fit,
    all of them are named, nothing is changed, and the exit code is 1.

    Clients are told neither error texts nor log lines of functions, unless
    CAMBER_DEV=1 is set. SIGTERM and Ctrl-C stop the server when the requests
    that run are answered; `camber reload` and SIGHUP have it load its code
    anew. docs/reference/settings.md lists all settings.

    For example:

        camber serve apps/crowdfunding --data /var/lib/shop
        camber serve --host 0.0.0.0 --port 8000 --site-port 8001
        camber serve --workers 4
    """
    from camber.server import Hangups

    hangups = Hangups()  # from now on, as opening the data can take long

    from structlog import get_logger

    from camber.server import configure_logging, parent_process, serve_with_workers

    settings = listening.settings(workers=workers)
    folder, data, parent = application_folder(app), listening.data_folder(), parent_process()
    if settings.workers > 1 and parent is None:
        _check_workers(settings)
        configure_logging(settings)
        for warning in settings.warnings:
            get_logger("camber.cli").warning(warning)
        return serve_with_workers(settings, data, [sys.executable, *sys.orig_argv[1:]], hangups)

    from camber.functions import load_application
    from camber.server import serve as run_server

    application = load_application(folder)
    configure_logging(settings, worker=None if parent is None else parent.worker)
    if parent is None or parent.worker == 1:  # once is enough
        for warning in (*(settings.warnings if parent is None else ()), *application.warnings):
            get_logger("camber.cli").warning(warning)
    with closing(open_backend(application, data, settings, has_ports=parent is not None)) as backend:
        run_server(backend, hangups=hangups, parent=parent)
    return 0


def _check_workers(settings: Settings) -> None:
    several = f"workers (CAMBER_WORKERS) is {settings.workers}"
    if not settings.database_url:
        raise ConfigurationError(
            f"{several}, and the data is a SQLite file, which only one process can have. Set CAMBER_DATABASE_URL"
            " to the URL of a PostgreSQL database, or serve with one worker"
        )
    if sys.platform == "win32":
        raise ConfigurationError(f"{several}, and processes can't share ports on Windows; serve with one worker")
