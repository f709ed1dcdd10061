"""Document ids in Convex's form: a table number, 16 bytes and a checksum as 31 to 37 letters (protocol 1.6)."""

from __future__ import annotations

import functools
import struct
from zlib import adler32

from camber.errors import InvalidIdError

NEW_ID_BYTES = 10
"""How many random bytes a fresh id is made from."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS = frozenset(_ALPHABET)
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Ten bits as two letters."""

# int(text, 32) reads five bits a letter in C, under Python's own digits.
_AS_PYTHON_DIGITS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")

_INTERNAL_LENGTH = 16
_FOOTER_LENGTH = 2
_MAX_TABLE_NUMBER = 2**32 - 1
_MS_PER_DAY = 86_400_000
_LENGTHS = frozenset({31, 32, 34, 36, 37})
_LONGEST = max(_LENGTHS)
_MOST_KNOWN = 16_384

_QUARTERS = struct.Struct(">BIBIBIBI")
"""The 20 bytes of a usual id as four times 40 bits."""


def new_id(table_number: int, now_ms: float, random_bytes: bytes) -> str:
    """A fresh id of a table's document."""
    return encode_id(table_number, new_internal_id(now_ms, random_bytes))


def new_internal_id(now_ms: float, random_bytes: bytes) -> bytes:
    """The 16 bytes of a fresh id: the second, 10 random bytes, and the day as Convex has it.

    Convex has random bytes in the place of the second. With it, the ids that one commit adds lie together in the index on ids:
    adding to a large table otherwise touches about as many of its pages as rows are added.
    """
    second, day = _second_and_day(now_ms)
    return second + random_bytes + day


@functools.lru_cache(maxsize=16)
def _second_and_day(now_ms: float) -> tuple[bytes, bytes]:
    return int(now_ms // 1000 % 2**32).to_bytes(4, "big"), (int(now_ms // _MS_PER_DAY) & 0xFFFF).to_bytes(2, "big")


def encode_id(table_number: int, internal: bytes) -> str:
    """The id of a table's document, from its 16 internal bytes. Raises InvalidIdError for a number or length that can't be."""
    if len(internal) != _INTERNAL_LENGTH:
        raise InvalidIdError(f"an id has {_INTERNAL_LENGTH} internal bytes, not {len(internal)}")
    body = _prefix(table_number) + internal
    return _letters(body + _checksum(body))


def decode_id(text: str) -> tuple[int, bytes]:
    """Table number and internal bytes of an id. Raises InvalidIdError for any text that is not exactly what encode_id gives."""
    if type(text) is not str:
        text = str.__str__(text)
    known = _known.get(text)
    if known is None:
        known = _decode(text)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[text] = known
    return known


_known: dict[str, tuple[int, bytes]] = {}


@functools.lru_cache(maxsize=1024)
def _prefix(table_number: int) -> bytes:
    """The table number in groups of seven bits, the lowest first."""
    if not 1 <= table_number <= _MAX_TABLE_NUMBER:
        raise InvalidIdError(f"a table number is between 1 and {_MAX_TABLE_NUMBER}, not {table_number}")
    groups = bytearray()
    while table_number > 0x7F:
        groups.append(table_number & 0x7F | 0x80)
        table_number >>= 7
    groups.append(table_number)
    return bytes(groups)


def _checksum(body: bytes) -> bytes:
    """Fletcher-16 modulo 256: the sum, and the sum of the running sums."""
    # Adler-32 from 0 is the same two sums modulo 65521, which those of 21 bytes stay below.
    sums = adler32(body, 0)
    return bytes((sums & 0xFF, sums >> 16 & 0xFF))


def _letters(data: bytes) -> str:
    if len(data) != _QUARTERS.size:
        # Five bytes are eight letters; the last letter may hold bits that are no more data.
        letter_count = (len(data) * 8 + 4) // 5
        return (_letters(data[:20].ljust(20, b"\0")) + _letters(data[20:].ljust(20, b"\0")))[:letter_count]
    # Written out for the length of all usual ids: a loop takes twice the time, and each insert makes an id.
    pairs = _PAIRS
    quarters: tuple[int, ...] = _QUARTERS.unpack(data)
    a, b, c, d, e, f, g, h = quarters
    return "".join(
        (
            pairs[a << 2 | b >> 30],
            pairs[b >> 20 & 1023],
            pairs[b >> 10 & 1023],
            pairs[b & 1023],
            pairs[c << 2 | d >> 30],
            pairs[d >> 20 & 1023],
            pairs[d >> 10 & 1023],
            pairs[d & 1023],
            pairs[e << 2 | f >> 30],
            pairs[f >> 20 & 1023],
            pairs[f >> 10 & 1023],
            pairs[f & 1023],
            pairs[g << 2 | h >> 30],
            pairs[h >> 20 & 1023],
            pairs[h >> 10 & 1023],
            pairs[h & 1023],
        )
    )


def _decode(text: str) -> tuple[int, bytes]:
    if len(text) <= _LONGEST and not _LETTERS.issuperset(text):
        raise InvalidIdError("Unable to decode ID: ID wasn't valid base32")
    if len(text) not in _LENGTHS:
        raise InvalidIdError(f"Unable to decode ID: Invalid ID length {len(text)}")
    data = _bytes_of(text)
    table_number, prefix_length = _read_prefix(data)
    body, footer = data[:-_FOOTER_LENGTH], data[-_FOOTER_LENGTH:]
    if len(body) != prefix_length + _INTERNAL_LENGTH:
        raise InvalidIdError(f"Unable to decode ID: Invalid ID length {len(text)}")
    if footer != (expected := _checksum(body)):
        version = int.from_bytes(footer, "little") ^ int.from_bytes(expected, "little")
        raise InvalidIdError(f"Unable to decode ID: Invalid ID version {version} (expected 0)")
    return table_number, body[prefix_length:]


def _bytes_of(text: str) -> bytes:
    """The bytes that these letters stand for. Bits left over must be 0: an id has one spelling."""
    bits = len(text) * 5
    number, rest = int(text.translate(_AS_PYTHON_DIGITS), 32), bits % 8
    if number & (1 << rest) - 1:
        raise InvalidIdError("Unable to decode ID: ID wasn't valid base32")
    return (number >> rest).to_bytes(bits // 8, "big")


def _read_prefix(data: bytes) -> tuple[int, int]:
    """The table number in the fewest groups it can have, and how many those are."""
    number = 0
    for length, byte in enumerate(data[:5], start=1):
        number |= (byte & 0x7F) << 7 * (length - 1)
        if byte < 0x80:
            if byte and number <= _MAX_TABLE_NUMBER:
                return number, length
            break
    raise InvalidIdError("Unable to decode ID: Invalid table number")
