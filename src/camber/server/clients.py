"""What a `Convex-Client` header says: which client library calls, and what it expects (protocol 4.3, 4.4)."""

from __future__ import annotations

import re
from typing import Final

from camber.errors import RequestError
from camber.server.formats import CLEAN, ENCODED, Format

_SEMVER: Final = r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
# The name is as short as it can be: the version is the longest suffix that is one (`npm-cli-1.48.0`, `npm-1.0.0-alpha.1`).
_CLIENT: Final = re.compile(rf"(?P<name>.+?)-(?P<version>{_SEMVER})")
_HEADER_BYTES: Final = 256
_REMEMBERED: Final = 1_024

_Version = tuple[int, int, int]
_OLDEST_NPM: Final[_Version] = (0, 20, 0)
_CLEAN_SINCE: Final[dict[str, _Version]] = {"npm": (1, 4, 1), "python": (0, 5, 0)}


class Clients:
    """Checks `Convex-Client` headers and remembers the good ones."""

    def __init__(self) -> None:
        self._formats: dict[bytes, Format] = {}

    def default_format(self, header: bytes | None) -> Format:
        """How results travel to this client if its request does not say.

        Raises RequestError 400 for a header that names no client and version, and for npm clients up to 0.19.1.
        """
        if header is None:
            return CLEAN
        if (known := self._formats.get(header)) is not None:
            return known
        found = _format_of(header)
        if len(self._formats) >= _REMEMBERED:
            self._formats.clear()
        self._formats[header] = found
        return found


def _format_of(header: bytes) -> Format:
    text = header.decode("latin-1").strip()
    if len(header) > _HEADER_BYTES or "-" not in text:
        raise RequestError(
            400,
            "InvalidClientVersion",
            "The Convex-Client header must be the client's name and version, as in npm-1.48.0.",
        )
    match = _CLIENT.fullmatch(text)
    if match is None:
        return CLEAN
    name, version = match["name"], _version(match["version"])
    if name == "npm" and version < _OLDEST_NPM:
        raise RequestError(
            400,
            "ClientVersionUnsupported",
            f"The npm package convex {match['version']} is no longer supported. Update it with `npm update convex`.",
        )
    since = _CLEAN_SINCE.get(name)
    return ENCODED if since is not None and version < since else CLEAN


def _version(text: str) -> _Version:
    major, minor, patch = re.split(r"[-+]", text, maxsplit=1)[0].split(".")
    return int(major), int(minor), int(patch)
