"""A loaded application: its schema and its functions by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camber.functions.identity_providers import IdentityProvider
from camber.functions.registration import RegisteredFunction
from camber.schema import Schema


@dataclass(frozen=True)
class Application:
    """What the engine serves. `functions` are keyed by `module:name` or `folder/module:name`."""

    name: str
    root: Path | None
    schema: Schema
    functions: Mapping[str, RegisteredFunction[..., Any]]
    warnings: tuple[str, ...] = ()
    """What `camber dev` and `camber check` tell the developer; nothing that keeps the application from running."""
    files: tuple[Path, ...] = field(default=(), compare=False)
    """The files it was loaded from."""
    identities: tuple[IdentityProvider, ...] = ()
    """Whose tokens sign a caller in; the first that fits a token counts."""

    def find(self, path: str) -> RegisteredFunction[..., Any] | None:
        """The function at a path in any of its spellings, or None."""
        return self.functions.get(path) or self.functions.get(canonical_path(path))

    def specs(self) -> list[dict[str, Any]]:
        """A description of every function, as `function-spec` shows it (protocol 6.6)."""
        return [_spec(path, function) for path, function in sorted(self.functions.items())]


def canonical_path(path: str) -> str:
    """`module:name` without `.js`; a path without a name means `default` (protocol 4.1)."""
    module, _, name = path.partition(":")
    return f"{module.removesuffix('.js')}:{name or 'default'}"


def _spec(path: str, function: RegisteredFunction[..., Any]) -> dict[str, Any]:
    module, _, name = path.partition(":")
    return {
        "identifier": f"{module}.js:{name}",
        "functionType": function.kind.capitalize(),
        "visibility": {"kind": "internal" if function.internal else "public"},
        "args": function.args.json,
        "returns": {"type": "any"} if function.returns is None else function.returns.json,
    }
