"""Document ids: Convex's form, and one spelling only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camber.errors import InvalidIdError
from camber.values import decode_id, encode_id, new_id
from tests.values.strategies import brief

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

TABLE_NUMBERS = st.sampled_from([1, 127, 128, 540, 10001, 16383, 16384, 2**21, 2**28, 2**32 - 1]) | st.integers(
    1, 2**32 - 1
)


@pytest.mark.parametrize(
    ("table", "internal", "text"),
    [
        (10001, "000102030405060708090a0b0c0d0e0f", "j57000820c20a1g7104gm2rc1m70ynr8"),
        (1, "00" * 16, "0400000000000000000000000000248"),
        (540, "c8a326e65bfdcdcf8fd4c7cb7edb505c", "kg2ch8s6wsdzvkefhzacfjvyvd85r1f1"),
        (540, "7c75fb4a61fb003ca5a2086f49134d1a", "kg27rxfv99gzp01wmph0gvt92d6hnvy6"),
    ],
)
def test_ids_are_written_as_convex_writes_them(table: int, internal: str, text: str) -> None:
    assert encode_id(table, bytes.fromhex(internal)) == text
    assert decode_id(text) == (table, bytes.fromhex(internal))


@given(table=TABLE_NUMBERS, internal=st.binary(min_size=16, max_size=16))
@settings(deadline=None)
def test_every_id_is_read_back(table: int, internal: bytes) -> None:
    text = encode_id(table, internal)

    assert decode_id(text) == (table, internal)
    assert set(text) <= set(ALPHABET)


@given(table=TABLE_NUMBERS, internal=st.binary(min_size=16, max_size=16), data=st.data())
@settings(deadline=None)
def test_an_id_with_another_letter_is_refused_or_is_the_id_of_that_spelling(
    table: int, internal: bytes, data: st.DataObject
) -> None:
    text = encode_id(table, internal)
    position = data.draw(st.integers(0, len(text) - 1))
    other = text[:position] + data.draw(st.sampled_from(ALPHABET + "ilouABZ -é")) + text[position + 1 :]

    try:
        decoded = decode_id(other)
    except InvalidIdError:
        return
    assert encode_id(*decoded) == other


def test_a_new_id_begins_with_its_second_and_ends_with_its_day() -> None:
    table, internal = decode_id(new_id(10001, 3 * 86_400_000.0 + 7_005.25, b"just ten b"))

    assert table == 10001
    assert internal == (3 * 86_400 + 7).to_bytes(4, "big") + b"just ten b" + (3).to_bytes(2, "big")
    assert len(new_id(10001, 0.0, bytes(10))) == 32
    assert len(new_id(10001, -5_000.0, bytes(10))) == len(new_id(10001, 1e14, bytes(10))) == 32


def test_ids_of_later_seconds_come_later() -> None:
    ids = [new_id(10001, 1000.0 * second, bytes([255 - second]) * 10) for second in range(200)]

    assert ids == sorted(ids)


def _with_bad_checksum() -> str:
    text = encode_id(10001, bytes(16))
    return text[:-1] + ("1" if text[-1] == "0" else "0")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid ID length 0"),
        ("abc", "Invalid ID length 3"),
        ("not an id", "ID wasn't valid base32"),
        ("J57000820C20A1G7104GM2RC1M70YNR8", "ID wasn't valid base32"),
        ("k" * 10_000_000, "Invalid ID length 10000000"),
        ("é" * 32, "ID wasn't valid base32"),
        ("\ud800" * 32, "ID wasn't valid base32"),
        (" 57000820c20a1g7104gm2rc1m70ynr8", "ID wasn't valid base32"),
        ("0400000000000000000000000000249", "ID wasn't valid base32"),
        ("0" * 32, "Invalid table number"),
        ("z" * 32, "Invalid table number"),
        (_with_bad_checksum(), "Invalid ID version"),
    ],
    ids=brief,
)
def test_text_that_is_no_id_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidIdError, match=f"Unable to decode ID: {problem}"):
        decode_id(text)


def test_a_table_number_has_one_spelling() -> None:
    # 81 00 would be table 1 in two groups where one is enough.
    body = b"\x81\x00" + bytes(16)
    first = second = 0
    for byte in body:
        first = (first + byte) & 255
        second = (second + first) & 255
    number = int.from_bytes(body + bytes((first, second)), "big")
    text = "".join(ALPHABET[number >> shift & 31] for shift in range(155, -1, -5))

    with pytest.raises(InvalidIdError, match="Invalid table number"):
        decode_id(text)


@pytest.mark.parametrize(("table", "internal"), [(0, bytes(16)), (2**32, bytes(16)), (1, bytes(15)), (1, bytes(17))])
def test_an_id_of_impossible_parts_is_refused(table: int, internal: bytes) -> None:
    with pytest.raises(InvalidIdError):
        encode_id(table, internal)
