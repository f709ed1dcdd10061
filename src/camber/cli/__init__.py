"""The command line `camber`: one file per command, each loaded only when it is called."""

from __future__ import annotations


def main() -> None:
    """Run this process's command line and end with its exit code: 0 done, 1 failed, 2 misused or nothing to work on."""
    import gc
    import sys

    # Starting makes many small objects that live until the end; looking for garbage among them only takes time.
    gc.disable()
    from camber.cli.command_line import run_command_line

    sys.exit(run_command_line(sys.argv[1:]))
