"""All commands under one roof: what they are called, and how errors become messages and exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Group

from camber.cli.printing import complain, complain_of, encodable
from camber.errors import CamberError, ConfigurationError, DataFolderError

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
"""What a program ends with that the system stops for writing to a closed pipe."""

_HELP_FLAGS: Final = ("--help", "-h")

SERVING: Final = Group("Serving", sort_key=0)
WORKING: Final = Group("Working on a deployment", sort_key=1)
ALL_ELSE: Final = Group("Other", sort_key=2)

COMMANDS: Final = {
    "dev": ("camber.cli.dev:dev", SERVING, "Serve an application while you write it."),
    "serve": ("camber.cli.serve:serve", SERVING, "Serve an application."),
    "reload": ("camber.cli.reload:reload", SERVING, "Have the running server load its code anew."),
    "run": ("camber.cli.run:run", WORKING, "Call a function of the application and print its result."),
    "data": ("camber.cli.data:data", WORKING, "Show the tables, or a table's documents."),
    "sql": ("camber.cli.sql:sql", WORKING, "Run one SQL statement that reads."),
    "env": ("camber.cli.env:app", WORKING, "Show and change the environment variables that functions read."),
    "function-spec": (
        "camber.cli.function_spec:function_spec",
        WORKING,
        "Print a description of all functions as JSON.",
    ),
    "logs": ("camber.cli.logs:logs", WORKING, "Print what functions logged and how they failed."),
    "admin-key": ("camber.cli.admin_key:print_admin_key", WORKING, "Print the deployment's admin key."),
    "check": ("camber.cli.check:check", WORKING, "Check the application, and its schema against the data."),
    "completion": ("camber.cli.completion:completion", ALL_ELSE, "Have the shell complete commands and flags."),
}
"""Where each command is, and what the list of commands says of it, which is also the first line of its own help."""

HELP: Final = """A reactive backend in Python that every Convex client speaks to.

camber dev serves the application of this folder. The other commands work on
it, whether a server runs or not; camber COMMAND --help says more.

The exit code is 0 if all went well, 1 if a function or a check failed, 2 if
the command makes no sense or there is nothing to work on, 130 after Ctrl-C.
"""


def command_line(*, with_summaries: bool = False) -> App:
    """The commands, of which none is loaded yet. With summaries they can be listed without being loaded."""
    app = App(
        name="camber",
        help=HELP,
        help_flags=_HELP_FLAGS,
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for place, (name, (path, group, summary)) in enumerate(COMMANDS.items()):
        # A summary given here would take the place of the command's own help.
        app.command(path, name=name, group=group, sort_key=place, help=summary if with_summaries else None)
    app["--help"].group = app["--version"].group = ALL_ELSE
    return app


def run_command_line(words: Sequence[str]) -> int:
    """Do what these words say; returns the exit code. Errors that Camber raises on purpose end in a message, others in a traceback."""
    try:
        encodable(sys.stdout)
        encodable(sys.stderr)
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except CycloptsError as error:
        complain(f"{error}\nSee: {_help_for(error)}")
        return MISUSED
    except CamberError as error:
        complain_of(error)
        return MISUSED if isinstance(error, ConfigurationError | DataFolderError) else FAILED
    return code


def _run(words: Sequence[str]) -> int:
    app = command_line(with_summaries=not words or words[0] in _HELP_FLAGS)
    command, bound, _ = app.parse_args(list(words), print_error=False, exit_on_error=False)
    if command.__name__ != "help_print":
        gc.enable()
    code: object = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else DONE


def _help_for(error: CycloptsError) -> str:
    return " ".join(["camber", *(error.command_chain or ()), "--help"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("camber")
    except PackageNotFoundError:
        return "unknown"
