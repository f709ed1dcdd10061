"""`camber serve`: serve an application in production."""

from __future__ import annotations

from contextlib import closing

from camber.cli.places import application_folder
from camber.cli.serving import AS_SET, AppArgument, Listening, open_backend


def serve(app: AppArgument = None, /, *, listening: Listening = AS_SET) -> None:
    """Serve an application.

    The schema is compared with the stored documents first. If some don't fit,
    all of them are named, nothing is changed, and the exit code is 1.

    Clients are told neither error texts nor log lines of functions, unless
    CAMBER_DEV=1 is set. SIGTERM and Ctrl-C stop the server when the requests
    that run are answered. docs/reference/settings.md lists all settings.

    For example:

        camber serve apps/crowdfunding --data /var/lib/shop
        camber serve --host 0.0.0.0 --port 8000 --site-port 8001
    """
    from structlog import get_logger

    from camber.functions import load_application
    from camber.server import configure_logging
    from camber.server import serve as run_server

    settings = listening.settings()
    application = load_application(application_folder(app))
    configure_logging(settings)
    for warning in (*settings.warnings, *application.warnings):
        get_logger("camber.cli").warning(warning)
    with closing(open_backend(application, listening.data_folder(), settings)) as backend:
        run_server(backend)
