"""What `camber dev` and `camber serve` have in common: their flags, their settings, and opening the data."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from camber.cli.places import data_folder
from camber.errors import DataFolderInUseError
from camber.settings import Settings

if TYPE_CHECKING:
    from camber.backend import Backend
    from camber.functions import Application

WAIT_FOR_DATA_SECONDS: Final = 5.0

AppArgument = Annotated[
    str | None,
    Parameter(
        help="The application's folder or package; without it, [tool.camber] app in the nearest pyproject.toml, else backend/.",
        show_default=False,
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where to listen, and with which data. What is not said here, the settings in the environment say (CAMBER_HOST and so on)."""

    host: Annotated[str | None, Parameter(help="The address to listen on. [default: 127.0.0.1]")] = None
    port: Annotated[int | None, Parameter(help="The port of the API; 0 for a free one. [default: 3210]")] = None
    site_port: Annotated[int | None, Parameter(help="The port of the application's HTTP routes. [default: 3211]")] = (
        None
    )
    data: Annotated[Path | None, Parameter(help="The data folder, made if it is not there. [default: .camber]")] = None

    def settings(self, **overrides: object) -> Settings:
        """The settings with these flags. Raises ConfigurationError."""
        return Settings.from_env(os.environ, host=self.host, port=self.port, site_port=self.site_port, **overrides)

    def data_folder(self) -> Path:
        """The data folder to serve."""
        return data_folder(self.data)


AS_SET = Listening()


def open_backend(application: Application, data: Path, settings: Settings, *, has_ports: bool = False) -> Backend:
    """Open the data with this application on it, and show how far that is.

    What would stop the server later is looked at before: where the secret is damaged, or a port is taken (unless this process has
    them already), nothing is changed. Raises ConfigurationError, DataFolderError, SchemaMismatchError.
    """
    from camber.backend import Backend
    from camber.cli.progress import Progress
    from camber.server import address_of, check_secret

    if not has_ports:
        check_ports(settings)
    if not settings.database_url:  # otherwise the file is only a copy
        check_secret(data)
    deadline = time.monotonic() + WAIT_FOR_DATA_SECONDS
    with Progress() as progress:
        while True:
            try:
                return Backend.open(application, data, settings=settings, create=True, on_progress=progress)
            except DataFolderInUseError:
                # Not a server but a command has it, which is soon done.
                if address_of(data) is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def check_ports(settings: Settings) -> None:
    """Raises ConfigurationError, which says who has it, where a port is taken."""
    from camber.server.ports import listen

    for port, setting in ((settings.port, "port"), (settings.site_port, "site_port")):
        for listener in listen(settings.host, port, setting):
            listener.close()
