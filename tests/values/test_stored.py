"""The stored form: exact, and readable by SQL."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings

from camber.values import Int64, decode_document, encode_document
from tests.values.strategies import any_floats, documents, float_of_bits
from tests.vectors.reading import same


@given(document=documents())
@settings(deadline=None, max_examples=150)
def test_every_document_is_read_back_bit_for_bit(document: dict[str, Any]) -> None:
    assert same(decode_document(encode_document(document)), document)


@given(number=any_floats())
@settings(deadline=None, max_examples=500)
def test_a_float_has_a_point_and_no_exponent(number: float) -> None:
    text = encode_document({"a": number, "b": [number], "c": {"d": number}})
    form = re.fullmatch(r'\{"a":(.+),"b":\[(.+)\],"c":\{"d":(.+)\}\}', text)

    assert form is not None
    assert len(set(form.groups())) == 1
    assert re.fullmatch(r'-?\d+\.\d+|\{"\$float":"[A-Za-z0-9+/]{11}="\}', form.group(1))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Int64(5), "5"),
        (Int64(-(2**63)), "-9223372036854775808"),
        (Int64(2**63 - 1), "9223372036854775807"),
        (5.0, "5.0"),
        (1e22, "10000000000000000000000.0"),
        (1.5e-7, "0.00000015"),
        (5e-324, "0." + "0" * 323 + "5"),
        (-0.0, '{"$float":"AAAAAAAAAIA="}'),
        (float("nan"), '{"$float":"AAAAAAAA+H8="}'),
        (float_of_bits(0xFFF8000000000001), '{"$float":"AQAAAAAA+P8="}'),
        (b"\x01\x02", '{"$bytes":"AQI="}'),
        ("é😀\0\n\x1f", '"é😀\\u0000\\n\\u001f"'),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_each_kind_has_its_stored_form(value: Any, stored: str) -> None:
    assert encode_document({"f": value}) == f'{{"f":{stored}}}'


def test_names_are_sorted_at_every_level() -> None:
    assert encode_document({"b": {"z": 1.0, "a": {}}, "a": "x", "B": None}) == '{"B":null,"a":"x","b":{"a":{},"z":1.0}}'


def test_sql_reads_numbers_and_texts_as_what_they_are() -> None:
    text = encode_document({"whole": 5.0, "int64": Int64(2**63 - 1), "big": 1e22, "text": "é"})

    with sqlite3.connect(":memory:") as database:
        row = database.execute(
            "SELECT d ->> '$.whole', typeof(d ->> '$.whole'), d ->> '$.int64', typeof(d ->> '$.int64'), "
            "typeof(d ->> '$.big'), d ->> '$.text' FROM (SELECT ? AS d)",
            [text],
        ).fetchone()
    database.close()

    assert row == (5.0, "real", 2**63 - 1, "integer", "real", "é")


@given(document=documents())
@settings(deadline=None)
def test_the_stored_form_is_json(document: dict[str, Any]) -> None:
    assert json.loads(encode_document(document)).keys() == document.keys()


def test_what_is_not_in_its_normal_form_is_not_stored() -> None:
    for value in (5, {5}, [5], {"a": (1.0,)}):
        with pytest.raises(TypeError, match="normalize it first"):
            encode_document({"f": value})
