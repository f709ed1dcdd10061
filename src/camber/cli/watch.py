"""`camber run --watch`: each new value of a query."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any, cast

from camber.cli.printing import complain, json_text, note, say
from camber.cli.remote import RemoteTarget
from camber.cli.targets import without_heading
from camber.errors import ConfigurationError, ConvexError, FunctionError
from camber.values import decode_value, parse_json, to_json


def watch(server: RemoteTarget, path: str, args: str, *, identity: Mapping[str, object] | None) -> FunctionError | None:
    """Print the query's values, from the present one on, until interrupted.

    A failure is printed like a value. Only if the query fails from the beginning this ends, and returns why. Raises
    ConfigurationError if the arguments are no object, ClientError if the server won't go on.
    """
    arguments = decode_value(parse_json(args))
    if not isinstance(arguments, dict):
        raise ConfigurationError("the arguments are one object, such as '{title: \"Dune\"}'")
    return asyncio.run(_watch(server, path, arguments, identity))


async def _watch(
    server: RemoteTarget, path: str, arguments: Mapping[str, object], identity: Mapping[str, object] | None
) -> FunctionError | None:
    from camber.client import Client

    _show_what_the_client_says()
    has_had_one = False
    async with Client(server.name) as client:
        client.set_admin_auth(server.admin_key, identity)
        values = client.subscribe(path, arguments)
        while True:
            try:
                async for value in values:
                    say(json_text(to_json(value), indent=2))
                    sys.stdout.flush()
                    has_had_one = True
            except (FunctionError, ConvexError) as error:
                failure = error if isinstance(error, FunctionError) else FunctionError(_in_words(error))
                if not has_had_one:
                    return failure
                complain(f"{path} failed:\n{without_heading(str(failure))}")


def _in_words(error: ConvexError) -> str:
    data = error.data if isinstance(error.data, str) else json_text(to_json(cast("Any", error.data)))
    return f"Uncaught ConvexError: {data}"


def _show_what_the_client_says() -> None:
    """What functions log, and how the connection is doing."""
    logger = logging.getLogger("camber.client")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Notes())


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())
