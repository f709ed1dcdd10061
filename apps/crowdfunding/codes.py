"""Access codes: making them, comparing what was entered with what is stored, and showing them to admins.

A code that was entered by hand means exactly what was entered. A generated one is made to be read off a card: three
groups of four characters, none of which look alike, accepted without dashes and in any case. Its last character checks
the others; by it, a generated code can be told from one that somebody thought up in the same form.
"""

from __future__ import annotations

import hmac
import re

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # no 0 and O, no 1 and I
_GENERATED = re.compile(rf"[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{4}}")
_RANDOM_CHARACTERS = 11  # 55 bits; guessing is rate limited besides
_SHOWN_CHARACTERS = 4


def generated_code(random_bits: int) -> str:
    """A new access code, like `7KQM-2XWD-RT4H`, from the lowest 55 of these bits."""
    characters = ""
    for _ in range(_RANDOM_CHARACTERS):
        random_bits, position = divmod(random_bits, len(_ALPHABET))
        characters += _ALPHABET[position]
    characters += _check_character(characters)
    return "-".join((characters[:4], characters[4:8], characters[8:]))


def is_generated(code: str) -> bool:
    """Whether a stored code has the form of a generated one and its check character is right."""
    if not _GENERATED.fullmatch(code):
        return False
    characters = _bare(code)
    return characters[-1] == _check_character(characters[:-1])


def same_code(stored: str, entered: str) -> bool:
    """Whether the entered code opens the stored one. Takes the same time wherever the two begin to differ."""
    exact = _equal(stored, entered)
    loose = _equal(_bare(stored), _bare(entered))
    return exact or (loose and is_generated(stored))


def masked(code: str) -> str:
    """The code as admins see it: its last four characters. Nothing of a code that has no more than these."""
    shown = _SHOWN_CHARACTERS if len(code) > _SHOWN_CHARACTERS else 0
    hidden = len(code) - shown
    return "*" * hidden + code[hidden:]


def _check_character(characters: str) -> str:
    # Odd weights: any single wrong character changes the sum, and so do most swapped neighbours.
    total = sum((2 * place + 1) * _ALPHABET.index(character) for place, character in enumerate(characters))
    return _ALPHABET[total % len(_ALPHABET)]


def _bare(code: str) -> str:
    return code.replace("-", "").upper()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
