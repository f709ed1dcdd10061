"""The deployment's environment variables: rules for names and values, and the change that sets them (protocol 6.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from camber.database import Transaction
from camber.errors import RequestError

MAX_VARIABLES = 512
MAX_NAME = 256
MAX_VALUE_BYTES = 8192
BUILT_IN = ("CONVEX_CLOUD_URL", "CONVEX_SITE_URL")

_NAME = re.compile(r"[a-zA-Z_]+[a-zA-Z0-9_]*")


def change_variables(transaction: Transaction, changes: Sequence[Mapping[str, str | None]]) -> None:
    """Set, or where `value` is None or absent remove, all of these or none. Raises RequestError (400)."""
    table = transaction.catalog.by_name["_environment_variables"]
    for change in changes:
        name, value = str(change["name"]), change.get("value")
        _check(name, value)
        current = transaction.find_one(table, table.index("by_name"), (name,))
        if value is not None:
            transaction.keep(table, current, {"name": name, "value": value})
        elif current is not None:
            transaction.drop(table, current)
    count = transaction.count(table, table.index("by_name"))
    if count > MAX_VARIABLES:
        raise RequestError(
            400, "TooManyEnvVars", f"There would be {count} environment variables; at most {MAX_VARIABLES} are kept."
        )


def _check(name: str, value: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise RequestError(
            400,
            "InvalidEnvVarName",
            f"{name[:80]!r} is no name for an environment variable: use letters, digits and _, not a digit first.",
        )
    if len(name) > MAX_NAME:
        raise RequestError(400, "InvalidEnvVarName", f"The name {name[:40]}… is longer than {MAX_NAME} characters.")
    if name in BUILT_IN:
        raise RequestError(400, "EnvVarNameReserved", f"{name} is set by the server itself and can't be changed.")
    if value is not None and len(value.encode()) > MAX_VALUE_BYTES:
        raise RequestError(400, "EnvVarTooLarge", f"The value of {name} is larger than {MAX_VALUE_BYTES} bytes.")
