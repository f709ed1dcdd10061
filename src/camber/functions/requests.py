"""From what a client sends to a function and its arguments, or to the error that says what is wrong (protocol 4.1, 4.6)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, cast

from camber.errors import FunctionError, FunctionNotFoundError, InvalidValueError, RequestError, WrongKindError
from camber.functions.application import canonical_path
from camber.functions.registration import RegisteredFunction
from camber.identity import Caller
from camber.values import decode_value, parse_json

CallKind = Literal["query", "mutation", "action"]

MAX_PATH = 1000
MIB = 1 << 20
SYSTEM = "_system/"

_PATH_PART = re.compile(r"[A-Za-z0-9_]{1,64}")


@lru_cache(maxsize=4096)
def checked_path(path: str) -> str:
    """The path in its canonical form. Raises RequestError (400) for text that is no path."""
    module, _, name = path.partition(":")
    parts = [*module.removesuffix(".js").split("/"), name or "default"]
    bad = next((part for part in parts if not _PATH_PART.fullmatch(part)), None)
    if len(path) > MAX_PATH or bad is not None:
        detail = "it is too long" if bad is None else f"`{bad[:80]}` is no name of a module or function"
        raise RequestError(
            400,
            "BadConvexFunctionIdentifier",
            f"{path[:200]} is not a valid path to a Convex function. Write module:function; {detail}.",
        )
    return canonical_path(path)


def read_arguments(text: bytes) -> dict[str, Any]:
    """The arguments as values: from an object, or an array of one object. Raises RequestError (400)."""
    try:
        json: Any = parse_json(text)
        if isinstance(json, list):
            json = _only_one(cast("list[Any]", json))
        # No value is more than nine times as large as its text, so most need not be measured.
        value = decode_value(json, measure=len(text) > MIB)
    except InvalidValueError as error:
        at = f" (at args{error.path})" if error.path else ""
        raise RequestError(400, "InvalidArguments", f"The arguments can't be read: {error}{at}") from None
    if not isinstance(value, dict):
        raise RequestError(400, "InvalidArguments", "The arguments of a function are one object with their names.")
    return value


def refusal(
    functions: Mapping[str, RegisteredFunction[..., Any]], path: str, kind: CallKind | None, caller: Caller
) -> FunctionError | None:
    """Why this caller can't call this path as this kind (None: any kind); None if they can."""
    function = functions.get(path)
    if function is None or (function.internal and not caller.is_admin):
        return _not_found(functions, path, tell_near=kind is None and caller.is_admin)
    if kind is None or kind == function.kind:
        return None
    module, _, name = path.partition(":")
    defined = function.kind.capitalize()
    return WrongKindError(
        f"Trying to execute {module}.js:{name} as {kind.capitalize()}, but it is defined as {defined}."
    )


def _only_one(items: list[Any]) -> Any:
    if len(items) > 1:
        raise RequestError(
            400, "InvalidArguments", f"A function takes one object of named arguments, not an array of {len(items)}."
        )
    return items[0] if items else {}


def _not_found(
    functions: Mapping[str, RegisteredFunction[..., Any]], path: str, *, tell_near: bool
) -> FunctionNotFoundError:
    # Clients are not told the names of functions that they can't call, and the operator's own clients call with a kind.
    if not tell_near:
        return FunctionNotFoundError(f"Could not find public function for '{path}'.")
    near = difflib.get_close_matches(path, [name for name in functions if not name.startswith(SYSTEM)], n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else "Is the application that has it loaded?"
    return FunctionNotFoundError(f"Could not find function for '{path}'. {hint}")
