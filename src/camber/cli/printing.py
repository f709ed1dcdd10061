"""What commands print: results on stdout, everything said about them on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Final, TextIO, cast

from camber.errors import CamberError, LoadError, SchemaMismatchError

RED: Final = "31"
YELLOW: Final = "33"
GREEN: Final = "32"
CYAN: Final = "36"
BOLD: Final = "1"
DIM: Final = "2"

# What would move the cursor, colour the screen or turn the direction of writing: stored text must not steer a terminal.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WHOLE: Final = 1e21  # from here on JavaScript writes numbers with an exponent


def say(text: str = "") -> None:
    """A line of the result."""
    print(visible(text))


def note(text: str = "", style: str = "") -> None:
    """Something said about the result, or meanwhile."""
    print(styled(visible(text), style, sys.stderr), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Why there is no result."""
    print(styled("error:", RED, sys.stderr), visible(text), file=sys.stderr, flush=True)


def complain_of(error: CamberError) -> None:
    """The same, of an error."""
    complain(in_words(error))


def warn(text: str) -> None:
    """Something to look at that stops nothing."""
    print(styled("warning:", YELLOW, sys.stderr), visible(from_here(text)), file=sys.stderr, flush=True)


def in_words(error: CamberError) -> str:
    """An error as a person is told of it: what, where, and all of it."""
    match error:
        case LoadError():
            listed = "".join(f"\n  {_indented(from_here(problem))}" for problem in error.problems)
            return f"the application does not load: {counted(len(error.problems), 'problem')}{listed}"
        case SchemaMismatchError():
            listed = "".join(f"\n  {_indented(misfit)}" for misfit in error.misfits)
            more = f"\n  … and {error.total - len(error.misfits)} more" if error.total > len(error.misfits) else ""
            return (
                f"the stored data does not fit the schema: {counted(error.total, 'misfit')}. Nothing was changed.{listed}{more}\n"
                "Change the documents with the code that they fit, or make the schema accept them (a field that may be missing"
                " is NotRequired)."
            )
        case _:
            return str(error)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 table`, `2 tables`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def visible(text: str) -> str:
    """The text with control characters written out."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def from_here(text: str) -> str:
    """The text with paths below the current folder shortened to what comes after it."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in this style, where the stream shows styles."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and shows_styles(stream) else text


def shows_styles(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which colour is wanted (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def json_text(value: object, *, indent: int | None = None) -> str:
    """A JSON value as JavaScript would write it, so that whole numbers have no point; safe to print."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(_like_javascript(value), ensure_ascii=False, indent=indent, separators=separators)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def number_text(number: float) -> str:
    """A number as JavaScript would write it."""
    return str(int(number)) if number.is_integer() and abs(number) < _WHOLE else repr(number)


def encodable(stream: TextIO) -> None:
    """Have what the stream's encoding lacks written out instead of raising: not every terminal speaks UTF-8."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and (stream.encoding or "").lower() not in {"utf-8", "utf8"}:
        reconfigure(errors="backslashreplace")


def _like_javascript(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _WHOLE else value
    if isinstance(value, list):
        return [_like_javascript(part) for part in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _like_javascript(part) for name, part in cast("dict[str, object]", value).items()}
    return value


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")
