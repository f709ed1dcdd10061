"""Int64, and the marks for what is missing or to be removed."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from camber.errors import InvalidValueError
from camber.values import MISSING, UNSET, Int64, Missing, Unset


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**63 - 1])
def test_an_int64_holds_64_bits(number: int) -> None:
    assert Int64(number) == number
    assert repr(Int64(number)) == f"Int64({number})"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**4_000])
def test_an_int64_beyond_64_bits_is_refused(number: int) -> None:
    with pytest.raises(InvalidValueError, match="does not fit into a 64-bit signed integer"):
        Int64(number)


@pytest.mark.parametrize("thing", [1.0, "1", True, None])
def test_an_int64_is_made_of_an_int_only(thing: Any) -> None:
    with pytest.raises(InvalidValueError, match="Int64 takes an int"):
        Int64(thing)


def test_arithmetic_on_int64_gives_plain_ints() -> None:
    assert type(Int64(1) + Int64(2)) is int


@pytest.mark.parametrize("thing", [Int64(5), MISSING, UNSET])
def test_copies_are_of_the_same_kind(thing: object) -> None:
    assert type(pickle.loads(pickle.dumps(thing))) is type(thing)
    assert copy.deepcopy(thing) == thing


@pytest.mark.parametrize("mark", [MISSING, UNSET])
def test_the_marks_are_neither_true_nor_false(mark: object) -> None:
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(mark)


def test_there_is_one_of_each_mark() -> None:
    assert Missing() is MISSING
    assert Unset() is UNSET
    assert (repr(MISSING), repr(UNSET)) == ("MISSING", "UNSET")
