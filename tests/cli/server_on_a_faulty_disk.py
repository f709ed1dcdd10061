"""Serves the project in the current folder on a disk whose next sync after the start fails: `python server_on_a_faulty_disk.py`."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from camber.backend import Backend
from camber.cli.printing import complain_of
from camber.errors import CamberError
from camber.functions import load_application
from camber.server import Address, serve
from camber.settings import Settings
from camber.storage.sqlite.storage import open_storage
from tests.storage.sqlite.faulty_disk import FaultyDisk


def main() -> int:
    """Serve until the disk fails; what `camber serve` does, but on that disk."""
    data, disk = Path(".camber"), FaultyDisk()
    storage = open_storage(data, create=False, vfs=disk.name)
    settings = Settings(dev=True, port=0, site_port=0, shutdown_seconds=600)

    def started(address: Address) -> None:
        disk.fail_next_sync()

    try:
        with closing(Backend(load_application(Path("backend")), storage, data=data, settings=settings)) as backend:
            serve(backend, started=started)
    except CamberError as error:
        complain_of(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
