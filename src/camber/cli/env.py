"""`camber env`: the deployment's environment variables, which functions read with `ctx.env`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from camber.cli.printing import complain, note, say
from camber.cli.targets import ask
from camber.cli.where import NOWHERE, Where, open_target

app = App(
    name="env",
    help="""Show and change the environment variables that functions read.

Functions read them with ctx.env. A change takes effect at once: queries that
read the variable run again.

For example:

    camber env list
    camber env set SITE_URL https://shop.example.com
    camber env set STRIPE_KEY - < key.txt
    camber env remove SITE_URL
""",
    help_format="plaintext",
)

Name = Annotated[str, Parameter(help="The variable's name.")]


@app.command(name="list")
def list_variables(*, where: Where = NOWHERE) -> None:
    """Print all variables as NAME=value, in order of their names."""
    with open_target(where) as target:
        for variable in _variables(ask(target, "_system/cli/queryEnvironmentVariables")):
            say(f"{variable['name']}={variable['value']}")


@app.command
def get(name: Name, /, *, where: Where = NOWHERE) -> int:
    """Print the value of a variable; exit code 1 if it is not set."""
    with open_target(where) as target:
        found: dict[str, str] | None = ask(target, "_system/cli/queryEnvironmentVariables:get", {"name": name})
    if found is None:
        complain(f'Environment variable "{name}" not found')
        return 1
    say(found["value"])
    return 0


@app.command(name="set")
def set_variable(
    name: Name,
    value: Annotated[
        str, Parameter(help="Its value; - reads it from stdin, where no one else sees it.", allow_leading_hyphen=True)
    ],
    /,
    *,
    where: Where = NOWHERE,
) -> None:
    """Set a variable."""
    text = sys.stdin.read().removesuffix("\n") if value == "-" else value
    with open_target(where) as target:
        ask(target, "_system/camber/environment:update", {"changes": [{"name": name, "value": text}]})
    note(f"{name} is set")


@app.command
def remove(name: Name, /, *, where: Where = NOWHERE) -> None:
    """Remove a variable."""
    with open_target(where) as target:
        found: object = ask(target, "_system/cli/queryEnvironmentVariables:get", {"name": name})
        ask(target, "_system/camber/environment:update", {"changes": [{"name": name}]})
    note(f"{name} was not set" if found is None else f"{name} is removed")


def _variables(found: Any) -> list[dict[str, str]]:
    return sorted(found, key=lambda variable: variable["name"])
