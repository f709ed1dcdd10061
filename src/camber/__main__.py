"""`python -m camber` is the command line."""

from __future__ import annotations

from camber.cli import main

if __name__ == "__main__":
    main()
