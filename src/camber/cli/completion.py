"""`camber completion`: have the shell complete commands and flags."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from camber.cli.command_line import command_line
from camber.cli.printing import note
from camber.errors import ConfigurationError


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="Which shell; without it, the one this runs in.")
    ] = None,
    /,
    *,
    install: Annotated[
        bool, Parameter(help="Put the script where the shell finds it, instead of printing it.", negative="")
    ] = False,
) -> None:
    """Have the shell complete commands and flags.

    Prints a script that does, or installs it.

    For example:

        camber completion --install
        camber completion fish > ~/.config/fish/completions/camber.fish
    """
    app = command_line()
    chosen = shell or _this_shell()
    if install:
        note(f"installed {app.install_completion(shell=chosen)}; it works in the next shell")
    else:
        print(app.generate_completion(shell=chosen))


def _this_shell() -> Literal["bash", "zsh", "fish"]:
    from cyclopts.completion import detect_shell

    try:
        found = detect_shell()
    except Exception:  # noqa: BLE001  whatever it is that can't be found out
        found = None
    if found not in ("bash", "zsh", "fish"):
        raise ConfigurationError("which shell this is can't be seen: name it, as in `camber completion bash`")
    return found
