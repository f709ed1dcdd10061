"""Where a running server is, as it says itself in its data folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

from camber.errors import DataFolderError
from camber.server.small_files import clear_unfinished, written_beside

ADDRESS_FILE: Final = "server.json"

_WHERE: Final = frozenset({"host", "hostaddr", "port", "dbname", "service"})
"""Parameters of a database's URL that say which database it is; among the others there are passwords."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running server is reached from this machine, since when (ms since the epoch), and on which database it works."""

    url: str
    site_url: str
    pid: int
    started: float
    database: str = ""
    """As `name_of_database` calls it."""


def name_of_database(database_url: str) -> str:
    """What tells a database from others, for people and for the address file: its URL without user and password; empty for SQLite."""
    if not database_url:
        return ""
    # By hand, as libpq takes it apart: Python's own functions know no lists of hosts, and refuse some passwords.
    place, _, query = database_url.partition("://")[2].partition("?")
    hosts, slash, name = place.partition("/")
    where = urlencode([(word, value) for word, value in parse_qsl(query) if word in _WHERE])
    return f"postgresql://{hosts.rpartition('@')[2]}{slash}{name}" + (f"?{where}" if where else "")


def address_of(data: Path) -> Address | None:
    """Where the server that has this data folder says it is; None if none says so. It may have ended without a word."""
    try:
        said = json.loads((data / ADDRESS_FILE).read_bytes())
        place = str(said["url"]), str(said["site_url"])
        return Address(*place, int(said["pid"]), float(said["started"]), str(said.get("database", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def written_down(data: Path, address: Address) -> Generator[None]:
    """Say in the data folder where the server is, as long as it is there. Raises DataFolderError."""
    path = data / ADDRESS_FILE
    said = {name: value for name, value in asdict(address).items() if value != ""}
    try:
        clear_unfinished(data)
        with written_beside(path, json.dumps(said)) as written:
            written.replace(path)
    except OSError as error:
        raise DataFolderError(f"{path} can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        if address_of(data) == address:
            path.unlink(missing_ok=True)
