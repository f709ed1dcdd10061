"""How large, deep and long a value may be, and what names it may use (protocol 1.2, 1.3)."""

from __future__ import annotations

import re
from typing import Final

from camber.errors import InvalidValueError
from camber.values.faults import Invalid

MAX_ARRAY_LENGTH: Final = 8192
MAX_OBJECT_FIELDS: Final = 1024
MAX_FIELD_NAME_LENGTH: Final = 1024
MAX_NESTING: Final = 64
MAX_DOCUMENT_NESTING: Final = 16
MAX_DOCUMENT_SIZE: Final = 1 << 20
MAX_VALUE_SIZE: Final = 32 << 20
MAX_IDENTIFIER_LENGTH: Final = 64

SYSTEM_FIELDS: Final = frozenset({"_id", "_creationTime"})

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ALIEN = re.compile(r"[^A-Za-z0-9_]")

GOOD_NAMES: Final[set[str]] = set()
"""Names that were found good. Applications use few names, and a look-up costs a fifth of the checks; clients could send ever
new ones, so it is emptied when it grows."""

_GOOD_NAMES_KEPT = 4096


def check_field_name(name: object) -> None:
    """Raise Invalid unless this may name a field of an object."""
    if type(name) is not str:
        _refuse_field_name(name)
        return
    if name in GOOD_NAMES:
        return
    if not name.isascii() or not name.isprintable() or name.startswith("$") or len(name) > MAX_FIELD_NAME_LENGTH:
        _refuse_field_name(name)
    if len(GOOD_NAMES) >= _GOOD_NAMES_KEPT:
        GOOD_NAMES.clear()
    GOOD_NAMES.add(name)


def _refuse_field_name(name: object) -> None:
    if not isinstance(name, str):
        raise Invalid(f"Field names are text, not {type(name).__name__}")
    if type(name) is not str:
        # An Enum member, say: its text is not what it prints as, so which of the two is meant can't be known.
        raise Invalid(f"Field names are plain str, not {type(name).__name__}")
    shown = ascii(name[:60])[1:-1] + ("…" if len(name) > 60 else "")
    if len(name) > MAX_FIELD_NAME_LENGTH:
        raise Invalid(f"Field name {shown} is too long ({len(name)} > maximum length {MAX_FIELD_NAME_LENGTH})")
    if name.startswith("$"):
        raise Invalid(f"Field name {shown} starts with a '$', which is reserved.")
    alien = next(character for character in name if not " " <= character <= "~")
    raise Invalid(
        f"Field name {shown} has invalid character {alien!a}: Field names can only contain non-control ASCII characters"
    )


def check_text(text: str) -> None:
    """Raise Invalid for text with a lone surrogate, which is no Unicode text (protocol 1.4)."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"Text holds the lone surrogate {text[error.start]!a} at position {error.start}") from None


def too_many_fields(count: int) -> Invalid:
    """The refusal of an object above 1,024 fields."""
    return Invalid(f"Object has too many fields ({count} > maximum number {MAX_OBJECT_FIELDS})")


def too_long_array(length: int) -> Invalid:
    """The refusal of an array above 8,192 elements."""
    return Invalid(f"Array length is too long ({length} > maximum length {MAX_ARRAY_LENGTH})")


def too_large(size: int, limit: int) -> Invalid:
    """The refusal of a value above `limit` bytes, which is a whole number of MiB."""
    return Invalid(f"Value is too large ({size} bytes > maximum size {limit >> 20} MiB)")


def identifier_problem(text: str) -> str | None:
    """Why this can't be an identifier (a table, index or validator field), in Convex's words; None if it can."""
    if len(text) > MAX_IDENTIFIER_LENGTH:
        return f"Identifier is too long ({len(text)} > maximum {MAX_IDENTIFIER_LENGTH})"
    if not text:
        return "Identifier cannot be empty"
    if _IDENTIFIER.fullmatch(text):
        return None if text.strip("_") else f"Identifier {text} cannot have exclusively underscores"
    if not _IDENTIFIER.match(text):
        return (
            f"Invalid first character {text[0]!r} in {text}: "
            "Identifiers must start with an alphabetic character or underscore"
        )
    alien = _ALIEN.search(text)
    character = alien.group() if alien else text[-1]
    return (
        f"Identifier {text} has invalid character {character!r}: "
        "Identifiers can only contain alphanumeric characters or underscores"
    )


class TooNested(Invalid):
    """Deeper than allowed; the walk stops at the first level too many."""

    def __init__(self) -> None:
        super().__init__("")
        self.within(MAX_NESTING)

    def within(self, limit: int) -> TooNested:
        """The same, where this limit was meant."""
        self.message = f"Value is too nested (nested {limit + 1} levels deep > maximum nesting {limit})"
        return self

    def as_error(self, prefix: str = "") -> InvalidValueError:
        # Of a path this deep only the beginning helps.
        self.steps = self.steps[-4:]
        return super().as_error(prefix)
