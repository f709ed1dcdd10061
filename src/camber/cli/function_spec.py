"""`camber function-spec`: which functions the deployment has."""

from __future__ import annotations

from camber.cli.printing import json_text, say
from camber.cli.targets import ask
from camber.cli.where import NOWHERE, Where, open_target


def function_spec(*, where: Where = NOWHERE) -> None:
    """Print a description of all functions as JSON.

    Of each: its kind, whether clients may call it, and what goes in and out.

    For example:

        camber function-spec | jq '.functions[].identifier'
    """
    with open_target(where) as target:
        functions = ask(target, "_system/cli/modules:apiSpec")
        url = ask(target, "_system/cli/convexUrl:cloudUrl")
    say(json_text({"url": url, "functions": functions}, indent=2))
