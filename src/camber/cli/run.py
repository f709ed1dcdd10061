"""`camber run`: call a function."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, cast

from cyclopts import Parameter

from camber.cli.json5_values import json_of
from camber.cli.printing import complain, json_text, note, say
from camber.cli.targets import Target, ask, without_heading
from camber.cli.where import NOWHERE, Where, open_server, open_target
from camber.errors import ConfigurationError, FunctionError

_EXTENSION: Final = re.compile(r"\.(?:py|[mc]?[jt]sx?)$")
_ISSUER: Final = "https://convex.test"


def run(
    path: Annotated[str, Parameter(help="The function: module:name, also as api.module.name or folder/module:name.")],
    args: Annotated[str, Parameter(help="Its arguments, one object in JSON5.")] = "{}",
    /,
    *,
    identity: Annotated[
        str | None,
        Parameter(help="Call it as this person: their claims, one object in JSON5."),
    ] = None,
    watch: Annotated[bool, Parameter(help="Go on with each new value of a query, until Ctrl-C.", negative="")] = False,
    where: Where = NOWHERE,
) -> int:
    """Call a function of the application and print its result.

    Queries, mutations and actions can be called, internal ones too. The result
    is printed as JSON, null not at all; what the function logs goes to stderr.
    The exit code is 1 if the function fails.

    For example:

        camber run appState:get
        camber run appState:get --watch
        camber run appState:set '{crowdfundingActive: true}'
        camber run users:getCurrentAppUser --identity '{email: "ada@x.com"}'
    """
    function = function_path(path)
    arguments = json_of(args, "the arguments")
    person = None if identity is None else _identity(identity)
    if watch:
        return _watch(path, function, arguments, person, where)
    with open_target(where) as target:
        answer = target.call(function, arguments, identity=person)
        for line in answer.log_lines:
            note(line)
        if answer.error is None:
            if answer.value is not None:
                say(json_text(answer.value, indent=2))
            return 0
        complain(f"{path} failed:\n{without_heading(answer.error)}{_hint(target, function, answer.error)}")
    return 1


def _watch(path: str, function: str, arguments: str, person: Mapping[str, object] | None, where: Where) -> int:
    from camber.cli.watch import watch

    with open_server(where, "values can be watched only where one runs, and `camber dev` starts one") as server:
        kinds = _kinds(server) or {}
        kind = kinds.get(function, "query")
        if kind != "query":
            raise ConfigurationError(
                f"{function} is {'an' if kind[0] == 'a' else 'a'} {kind}: only queries can be watched"
            )
        if kinds and function not in kinds and not function.startswith("_system/"):
            complain(_no_such_function(function, kinds))
            return 1
        failure = watch(server, function, arguments, identity=person)
        if failure is None:
            return 0
        error = str(failure)
        complain(f"{path} failed:\n{without_heading(error)}{_hint(server, function, error)}")
    return 1


def function_path(text: str) -> str:
    """A function's path in any of the forms that Convex's command line takes (protocol 6.2), as `module:name`."""
    if text.startswith(("api.", "internal.")):
        _, *modules, name = text.split(".")
        if not modules:
            raise ConfigurationError(f'"{text}" names no function: write {text}.module.name, or module:name')
        return f"{'/'.join(modules)}:{name}"
    module, _, name = text.partition(":")
    module = _EXTENSION.sub("", module.removeprefix("./").removeprefix("convex/"))
    return f"{module}:{name or 'default'}"


def _identity(text: str) -> Mapping[str, object]:
    """The claims, filled in as Convex's command line does."""
    claims: object = json.loads(json_of(text, "the identity"))
    if not isinstance(claims, dict):
        raise ConfigurationError("the identity is one object of claims, such as '{email: \"ada@example.com\"}'")
    given = cast("dict[str, object]", claims)
    subject = given.get("subject", str(_hash(json_text(given))))
    issuer = given.get("issuer", _ISSUER)
    filled = {"subject": subject, "issuer": issuer, "tokenIdentifier": f"{issuer}|{subject}"}
    return {**given, **filled, **{name: given[name] for name in filled if name in given}}


def _hash(text: str) -> int:
    """A text's 32 bits as JavaScript programs make them, so that the same claims are the same person under either command line."""
    hashed = 0
    units = text.encode("utf-16-le", "surrogatepass")
    for unit in (int.from_bytes(units[place : place + 2], "little") for place in range(0, len(units), 2)):
        hashed = (hashed * 31 + unit) & 0xFFFF_FFFF
    return hashed - 0x1_0000_0000 if hashed >= 0x8000_0000 else hashed


def _hint(target: Target, function: str, error: str) -> str:
    """Where the server does not say what went wrong: whether there is such a function at all, and where to read on."""
    if "\n" in error or not error.startswith("[Request ID: "):
        return ""
    kinds = _kinds(target)
    if kinds is None or function in kinds:
        return "\nThe server keeps the reason to itself; its log has it."
    return f"\n{_no_such_function(function, kinds)}"


def _no_such_function(function: str, functions: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(function, functions, n=1, cutoff=0.5)
    return f"There is no function {function}." + (
        f" Did you mean {near[0]}?" if near else " `camber function-spec` lists them."
    )


def _kinds(target: Target) -> dict[str, str] | None:
    """The kind of every function, by its path; None if the deployment does not say."""
    try:
        specs: list[dict[str, Any]] = ask(target, "_system/cli/modules:apiSpec")
    except FunctionError:
        return None
    return {
        str(spec["identifier"]).replace(".js:", ":"): str(spec.get("functionType", "query")).lower()
        for spec in specs
        if "identifier" in spec
    }
