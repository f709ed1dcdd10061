"""`camber reload`: have a running server load its code anew."""

from __future__ import annotations

from camber.cli.printing import counted, say, warn
from camber.cli.where import NOWHERE, Where, open_server


def reload(*, where: Where = NOWHERE) -> None:
    """Have the running server load its code anew.

    The server loads the files in its application's folder beside the code that
    runs, and compares the schema with the stored documents. If all is well it
    changes over in one moment: no call fails, and live queries are run anew.
    Else every problem is named, the code before goes on, and the exit code
    is 1. All workers of the server are brought to the new code; servers on
    other machines are not. Settings and installed packages stay as they are
    until the server is started again.

    For example:

        camber reload
        camber reload --data /var/lib/shop
    """
    with open_server(where, "it loads its code when it starts") as server:
        done = server.reload()
    for warning in done.warnings:
        warn(warning)
    everywhere = f" by {counted(done.workers, 'worker')}" if done.workers > 1 else ""
    say(f"reloaded{everywhere}" + (":" if done.changes else ": nothing has changed"))
    for change in done.changes:
        say(f"  {change}")
