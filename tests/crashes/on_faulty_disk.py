"""The command line on a disk that breaks when it is told to: `on_faulty_disk.py serve APP …`.

Orders come over the socket CAMBER_TEST_ORDERS, one at a time: what to call on the disk, or what to set. In the end, what survives a loss
of power is written into the folder CAMBER_TEST_SURVIVED.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from random import Random
from typing import Any

import camber.backend
from camber.cli import main
from camber.storage import Storage
from camber.storage.sqlite import open_storage
from tests.storage.sqlite.faulty_disk import FaultyDisk


def obey(disk: FaultyDisk, connection: Connection) -> None:
    while True:
        try:
            order, *arguments = connection.recv()
        except EOFError:
            return
        if order == "capacity":
            disk.capacity = disk.used() if arguments == ["as it is"] else None
        else:
            getattr(disk, order)(*arguments)
        connection.send("done")


def listen(disk: FaultyDisk, place: str) -> None:
    with Listener(place, "AF_UNIX") as listener:
        while True:
            obey(disk, listener.accept())


def on_disk(disk: FaultyDisk) -> Callable[..., Storage]:
    """Opens a data folder on this disk."""

    def opened(location: Path, *, database_url: str, handler_seconds: float, **options: Any) -> Storage:
        assert not database_url
        return open_storage(location, vfs=disk.name, **options)

    return opened


if __name__ == "__main__":
    disk = FaultyDisk()
    # The command line has no option for it, on purpose.
    camber.backend.open_storage = on_disk(disk)
    place, survived = os.environ.pop("CAMBER_TEST_ORDERS"), os.environ.pop("CAMBER_TEST_SURVIVED")
    threading.Thread(target=listen, args=(disk, place), daemon=True).start()
    try:
        main()
    finally:
        sys.stdout.flush()
        disk.crash(Path(survived), "tear", Random(1))
