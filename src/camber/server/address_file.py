"""Where a running server is, as it says itself in its data folder."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from camber.errors import DataFolderError

ADDRESS_FILE: Final = "server.json"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running server is reached from this machine, and since when (ms since the epoch)."""

    url: str
    site_url: str
    pid: int
    started: float


def address_of(data: Path) -> Address | None:
    """Where the server that has this data folder says it is; None if none says so. It may have ended without a word."""
    try:
        said = json.loads((data / ADDRESS_FILE).read_bytes())
        return Address(str(said["url"]), str(said["site_url"]), int(said["pid"]), float(said["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def written_down(data: Path, address: Address) -> Generator[None]:
    """Say in the data folder where the server is, as long as it is there. Raises DataFolderError."""
    path = data / ADDRESS_FILE
    beside = path.with_name(f".{path.name}.{address.pid}.{secrets.token_hex(4)}")
    said = {"url": address.url, "site_url": address.site_url, "pid": address.pid, "started": address.started}
    try:
        beside.touch(0o600, exist_ok=False)
        beside.write_text(json.dumps(said), "utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataFolderError(f"{path} can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        if address_of(data) == address:
            path.unlink(missing_ok=True)
