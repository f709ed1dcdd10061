"""A process that commits without end and prints the timestamp of each commit once it is acknowledged: `FOLDER SEED`."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from camber.storage.sqlite import open_storage
from tests.storage.people import PEOPLE
from tests.storage.sqlite.witness import Witness

CHECKPOINT_PAGES = 50


def main(folder: Path, seed: int) -> None:
    storage = open_storage(folder, create=False, checkpoint_pages=CHECKPOINT_PAGES)
    storage.use_layouts([PEOPLE])
    witness = Witness(storage, Random(seed))
    while True:
        witness.commit()
        sys.stdout.write(f"{witness.acknowledged}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
