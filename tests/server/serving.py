"""Serves the application next to this file in a process of its own: `python serving.py DATA [NAME=VALUE …]`, settings by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from camber.backend import Backend
from camber.errors import CamberError
from camber.functions import load_application
from camber.server import serve
from camber.settings import Settings


def main() -> int:
    """Serve until told to stop. Exits 2 where that can't be done."""
    data = Path(sys.argv[1])
    try:
        settings = Settings.from_env(os.environ)
        application = load_application(Path(__file__).parent / "application")
        backend = Backend.open(application, data, settings=settings, create=True)
    except CamberError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        serve(backend)
    except CamberError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
