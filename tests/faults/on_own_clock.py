"""The command line on a machine whose clock goes wrong: `on_own_clock.py serve APP …`.

The file CAMBER_TEST_CLOCK has the nanoseconds, as eight bytes, by which the clock is ahead; they may change at any time.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path


def set_clock(ahead: mmap.mmap) -> None:
    """From here on all of this process reads the wrong clock, as it would on a machine that has it."""
    read_ns = time.time_ns

    def time_ns() -> int:
        return read_ns() + struct.unpack_from("<q", ahead)[0]

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if __name__ == "__main__":
    with Path(os.environ.pop("CAMBER_TEST_CLOCK")).open("rb") as file:
        set_clock(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ))
    from camber.cli import main

    main()
