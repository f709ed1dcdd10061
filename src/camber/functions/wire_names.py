"""Python's names on the wire: snake_case becomes camelCase, a trailing underscore falls off."""

from __future__ import annotations


def wire_name(python_name: str) -> str:
    """`crowdfunding_active` is `crowdfundingActive`; `from_` is `from`; a leading underscore stays."""
    stripped = python_name.rstrip("_") or python_name
    leading = len(stripped) - len(stripped.lstrip("_"))
    first, *rest = stripped[leading:].split("_")
    return stripped[:leading] + first + "".join(part[:1].upper() + part[1:] for part in rest if part)
