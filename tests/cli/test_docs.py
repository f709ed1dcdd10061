"""docs/reference/commands.md names every command, argument and flag, and none that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from camber.cli.command_line import COMMANDS, command_line

REFERENCE = (Path(__file__).resolve().parents[2] / "docs/reference/commands.md").read_text()
COMMON = REFERENCE.partition("## Serving")[0] + REFERENCE.partition("## Working on a deployment")[2].partition("###")[0]


def commands(app: App, *path: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """All commands with their words: ("env", "set")."""
    for name in app:
        if not name.startswith("-"):
            yield (*path, name), app[name]
            yield from commands(app[name], *path, name)


ALL = dict(commands(command_line()))


def section(command: str) -> str:
    """What the page says of a command."""
    found = re.search(rf"^### `camber {command}(?= |`)[^\n]*\n(.*?)(?=^##|\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, f"no section of camber {command}"
    return found[0]


def flags(app: App) -> set[str]:
    """The flags that a command takes, in their long form."""
    arguments = app.assemble_argument_collection() if app.default_command else []
    return {name for argument in arguments if argument.parse for name in argument.names if name.startswith("--")}


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_and_flag_is_in_the_reference(words: tuple[str, ...]) -> None:
    text = section(words[0])

    assert f"`camber {' '.join(words)}" in text
    for flag in flags(ALL[words]):
        assert f"`{flag}`" in text + COMMON, f"{flag} of camber {' '.join(words)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_names_no_flag_that_a_command_lacks(command: str) -> None:
    taken = {flag for words, app in ALL.items() if words[0] == command for flag in flags(app)}

    assert set(re.findall(r"`(--[a-z-]+)`", section(command))) <= taken


def test_the_reference_names_every_command_and_no_other() -> None:
    assert set(re.findall(r"^### `camber ([a-z-]+)", REFERENCE, re.MULTILINE)) == {*COMMANDS, "--version"}
