"""Files of environment variables such as `.env.local`: reading them, and adding what is missing without touching the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from camber.errors import ConfigurationError

NAME: Final = ".env.local"

# A line as dotenv libraries read it: perhaps `export`, a name, a value in quotes (which may have line ends in them) or up to a `#`.
_ASSIGNMENT: Final = re.compile(
    r"""^[^\S\n]*(?:export[^\S\n]+)?(?P<name>[A-Za-z_][\w.-]*)[^\S\n]*=[^\S\n]*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<bare>[^\n#]*))""",
    re.MULTILINE | re.VERBOSE,
)


def read(path: Path) -> dict[str, str]:
    """The variables that a file sets; of a name that is there twice the last value. A file that is not there sets none."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error
    return {found["name"]: _value(found) for found in _ASSIGNMENT.finditer(text)}


def add(path: Path, variables: Mapping[str, str], comment: str) -> None:
    """Put these variables behind what the file has, which stays as it is. A new file can be read by its owner only.

    Raises OSError.
    """
    before = path.read_bytes() if path.exists() else b""
    line_end = "\r\n" if b"\r\n" in before else "\n"
    lines = [f"# {comment}", *(f"{name}='{value}'" for name, value in variables.items()), ""]
    added = line_end.join(lines).encode()
    if before:
        # A line of its own, also behind a last line without its end; and an empty one between theirs and ours.
        added = (b"" if before.endswith(b"\n") else line_end.encode()) + line_end.encode() + added
    opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(opened, "ab") as file:
        file.write(added)


def _value(found: re.Match[str]) -> str:
    if found["single"] is not None:
        return found["single"]
    if found["double"] is not None:
        return re.sub(r"\\(.)", lambda escape: {"n": "\n", "r": "\r"}.get(escape[1], escape[1]), found["double"])
    return found["bare"].strip()
