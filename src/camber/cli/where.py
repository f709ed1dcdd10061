"""Which deployment a command works on: the flags that say so, and the search where they don't."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Group, Parameter

from camber.cli import env_files
from camber.cli.places import (
    DATA_FOLDER,
    application_folder,
    data_folder,
    database_of_environment,
    nearest_data_folder,
    nearest_file,
)
from camber.cli.targets import Target
from camber.errors import ConfigurationError, DataFolderError, DataFolderInUseError

if TYPE_CHECKING:
    from camber.cli.remote import RemoteTarget

WAIT_FOR_ADDRESS_SECONDS: Final = 5.0
"""How long to wait for the address of a process that holds the data: a server that starts has the data first."""

_PAIRS: Final = (
    ("CAMBER_URL", "CAMBER_ADMIN_KEY"),
    ("CONVEX_SELF_HOSTED_URL", "CONVEX_SELF_HOSTED_ADMIN_KEY"),
)
_GROUP: Final = Group(
    "Which deployment",
    help=(
        "The first of these that says so: --url and --admin-key; --data; CAMBER_URL and CAMBER_ADMIN_KEY, CONVEX_SELF_HOSTED_URL and"
        " CONVEX_SELF_HOSTED_ADMIN_KEY, CAMBER_DATA or CAMBER_DATABASE_URL in the environment; the same two pairs in .env.local;"
        " the folder .camber here or above. Where no server is known to run for the data, it is opened directly."
    ),
    sort_key=9,
)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Where:
    """What the command line says about the deployment to work on."""

    url: Annotated[str | None, Parameter(help="Its address, such as https://api.example.com.")] = None
    admin_key: Annotated[
        str | None, Parameter(help="Its admin key; better in CAMBER_ADMIN_KEY, where nobody else sees it.")
    ] = None
    data: Annotated[Path | None, Parameter(help="Its data folder.")] = None
    app: Annotated[
        str | None,
        Parameter(help="The application's folder, needed only while no server runs; else as `camber serve` finds it."),
    ] = None


NOWHERE: Final = Where()


def open_target(where: Where) -> Target:
    """The deployment that is meant, ready to be worked on.

    Raises ConfigurationError that names where it was looked for; and what opening the data raises.
    """
    meant = _meant(where)
    return _of_data(meant, where.app) if isinstance(meant, _Data) else meant


def open_server(where: Where, why: str) -> RemoteTarget:
    """The running server of the deployment that is meant, for what can't be done without one, and why.

    Raises ConfigurationError that names where it was looked for, LostConnectionError where none runs.
    """
    meant = _meant(where)
    if not isinstance(meant, _Data):
        return meant
    meant.check()
    server = _server_of(meant)
    if server is None:
        from camber.cli.remote import LostConnectionError

        raise LostConnectionError(f"{meant.no_server}: {why}")
    return server


@dataclass(frozen=True)
class _Data:
    """Where data lies: a data folder, or a database with a data folder beside it, which may be missing."""

    folder: Path
    database: str
    """Its name; empty for the folder's own data."""

    @property
    def no_server(self) -> str:
        """That none was found."""
        if not self.database:
            return f"no server runs for {self.folder}"
        return (
            f"no server of {self.database} is known here, {self.folder} tells of none (--url and --admin-key name one)"
        )

    def check(self) -> None:
        """Raises ConfigurationError where there can't be any data."""
        if not self.database and not self.folder.is_dir():
            raise ConfigurationError(f"there is no data folder {self.folder}: `camber dev` or `camber serve` makes one")


def _meant(where: Where) -> RemoteTarget | _Data:
    """The server that was named, or the data."""
    if where.url or where.admin_key:
        return _as_flags_say(where)
    database = database_of_environment()
    if where.data is not None:
        return _Data(where.data.absolute(), database)
    if (pair := _pair_in(os.environ, "the environment")) is not None:
        return _remote(*pair)
    if named := os.environ.get("CAMBER_DATA"):
        return _Data(Path(named).absolute(), database)
    here = Path.cwd()
    folder = nearest_data_folder(here)
    if database:
        return _Data(folder or data_folder(None), database)
    file = nearest_file(here, env_files.NAME)
    pair = None if file is None else _pair_in(env_files.read(file), str(file))
    # What `camber dev` wrote there is the way to the data folder beside it, also while no server runs for that.
    if pair is not None and (folder is None or not _opens(pair[1], folder)):
        return _remote(*pair)
    if folder is None:
        raise ConfigurationError(_looked_everywhere(here, file))
    return _Data(folder, database)


def _as_flags_say(where: Where) -> RemoteTarget:
    environ = os.environ
    url = where.url or next((environ[name] for name, _ in _PAIRS if environ.get(name)), None)
    key = where.admin_key or next((environ[name] for _, name in _PAIRS if environ.get(name)), None)
    if url is None:
        raise ConfigurationError("--admin-key without an address: give --url, or set CAMBER_URL")
    if key is None:
        raise ConfigurationError(
            "--url without a key: set CAMBER_ADMIN_KEY, or give --admin-key (`camber admin-key` prints it)"
        )
    return _remote(url, key, "as the command line says")


def _pair_in(variables: Mapping[str, str], source: str) -> tuple[str, str, str] | None:
    """The address and key that these variables name, and where that was found."""
    for url_name, key_name in _PAIRS:
        if url := variables.get(url_name):
            key = variables.get(key_name)
            if not key:
                raise ConfigurationError(f"{source} has {url_name} but no {key_name}: set both, or none")
            return url, key, f"{url_name} in {source}"
    return None


def _remote(url: str, key: str, source: str) -> RemoteTarget:
    from camber.cli.remote import RemoteTarget

    return RemoteTarget(url, key, source=source)


def _of_data(data: _Data, app: str | None) -> Target:
    """The server that runs for this data, else the data itself."""
    data.check()
    deadline = time.monotonic() + WAIT_FOR_ADDRESS_SECONDS
    while True:
        if (server := _server_of(data)) is not None:
            return server
        try:
            return _opened(data.folder, app)
        except DataFolderInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _server_of(data: _Data) -> RemoteTarget | None:
    from camber.server import address_of

    address, key = address_of(data.folder), _key_of(data.folder)
    if address is None or key is None:
        return None
    if data.database and address.database != data.database:
        return None  # the folder's server works on something else
    from camber.cli.remote import RemoteTarget

    server = RemoteTarget(address.url, key, source=f"the server of {data.folder}")
    # One that ended without a word leaves its address behind.
    return server if server.answers() else None


def _opened(data: Path, app: str | None) -> Target:
    from camber.cli.local import LocalTarget
    from camber.cli.progress import Progress

    with Progress() as progress:
        return LocalTarget(data, application_folder(app), on_progress=progress)


def _key_of(data: Path) -> str | None:
    from camber.server import admin_key

    try:
        return admin_key(data)
    except DataFolderError:
        return None


def _opens(key: str, data: Path) -> bool:
    """Whether this is the key of the deployment in this folder; the name before it is for people."""
    own = _key_of(data)
    return own is not None and own.rpartition("|")[2] == key.rpartition("|")[2]


def _looked_everywhere(here: Path, file: Path | None) -> str:
    folders = ", ".join(str(folder / DATA_FOLDER) for folder in (here, *here.parents))
    env_file = f"{env_files.NAME} here or above (there is none)" if file is None else f"{file} (it names none)"
    return (
        "there is no deployment to work on. Looked at:\n"
        "  --url, --admin-key and --data\n"
        "  CAMBER_URL, CONVEX_SELF_HOSTED_URL, CAMBER_DATA and CAMBER_DATABASE_URL in the environment\n"
        f"  {env_file}\n"
        f"  the data folder: {folders}\n"
        "`camber dev` starts one here."
    )
