"""Drives PyPI's ConvexHttpClient for the tests: python python_http_client.py URL

Every line on stdin is one operation, {"call", "path", "args"} with the arguments as Convex-encoded JSON; every line on
stdout its outcome: {"value"} or {"error": {"message", "data"}}, and {"logs"} with what the client printed meanwhile.
Values are encoded by the package itself, so what a test sees is what the client handed to its user.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

from convex import ConvexError
from convex.http_client import ConvexHttpClient
from convex.values import convex_to_json, json_to_convex


def perform(client: ConvexHttpClient, operation: dict[str, Any]) -> Any:
    match operation["call"]:
        case "query" | "mutation" | "action" as call:
            return getattr(client, call)(operation["path"], json_to_convex(operation.get("args", {})))
        case "setAuth":
            return client.set_auth(operation["token"])
        case "setAdminAuth":
            return client.set_admin_auth(operation["token"])
        case "clearAuth":
            return client.clear_auth()
        case call:
            raise ValueError(f"this driver does not know the call {call}")


def outcome(client: ConvexHttpClient, operation: dict[str, Any]) -> dict[str, Any]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            value = perform(client, operation)
        return {"value": convex_to_json(value), "logs": printed.getvalue().splitlines()}
    except ConvexError as error:
        # Unlike results, this client hands out an error's data still encoded.
        described = {"message": str(error), "data": error.data}
    except Exception as error:  # noqa: BLE001 - whatever the client raises is its answer
        described = {"message": str(error)}
    return {"error": described, "logs": printed.getvalue().splitlines()}


def main() -> None:
    client = ConvexHttpClient(sys.argv[1])
    client.set_debug(True)
    for line in sys.stdin:
        # The package's decoder takes no int: in this encoding every bare number is a float.
        operation = json.loads(line, parse_int=float)
        sys.stdout.write(json.dumps(outcome(client, operation)) + "\n")
        sys.stdout.flush()


main()
