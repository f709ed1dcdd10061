"""Access codes: made, compared and masked, without a database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.crowdfunding.codes import generated_code, is_generated, masked, same_code

GENERATED = generated_code(0x7A3F_19C4_5B2D_60)
bits = st.integers(min_value=0, max_value=2**122)


def test_a_code_entered_by_hand_matches_only_as_it_is_written() -> None:
    assert same_code("ABC-123", "ABC-123")

    assert not same_code("ABC-123", "ABC123")
    assert not same_code("ABC-123", "abc-123")
    assert not same_code("ABC-123", "ABC-124")
    assert not same_code("ABC-123", "")


@given(bits)
def test_a_generated_code_matches_without_dashes_and_in_any_case(random_bits: int) -> None:
    code = generated_code(random_bits)

    for entered in (code, code.lower(), code.replace("-", ""), code.replace("-", "").lower()):
        assert same_code(code, entered)


@given(bits, bits)
def test_generated_codes_do_not_open_each_other(one: int, other: int) -> None:
    first, second = generated_code(one), generated_code(other)

    assert same_code(first, second) == (first == second)


def test_a_generated_code_is_twelve_characters_that_do_not_look_alike() -> None:
    groups = GENERATED.split("-")

    assert [len(group) for group in groups] == [4, 4, 4]
    assert not set(GENERATED) & set("01IOabcdefghijklmnopqrstuvwxyz")


def test_every_bit_that_is_used_makes_another_code() -> None:
    assert len({generated_code(1 << place) for place in range(55)}) == 55


@given(bits, st.integers(0, 11), st.sampled_from("23456789ABCDEFGHJKLMNPQRSTUVWXYZ"))
def test_a_generated_code_with_one_wrong_character_is_none(random_bits: int, place: int, wrong: str) -> None:
    characters = list(generated_code(random_bits).replace("-", ""))
    mistyped = [*characters[:place], wrong, *characters[place + 1 :]]
    code = "-".join("".join(mistyped[start : start + 4]) for start in (0, 4, 8))

    assert is_generated(code) == (mistyped == characters)


@pytest.mark.parametrize(
    "code", ["", "ABC123", "ABCD-EFGH", GENERATED.lower(), GENERATED.replace("-", ""), GENERATED + "\n"]
)
def test_other_codes_are_not_taken_for_generated_ones(code: str) -> None:
    assert is_generated(GENERATED)
    assert not is_generated(code)


def test_codes_of_any_alphabet_can_be_compared() -> None:
    assert same_code("Grüße-✓", "Grüße-✓")
    assert not same_code("Grüße-✓", "Grusse")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("ABC123", "**C123"),
        ("ABCDE", "*BCDE"),
        ("ABCD", "****"),
        ("A", "*"),
        ("", ""),
        ("7KQM-2XWD-RT4H", "**********RT4H"),
    ],
)
def test_admins_see_the_last_four_characters_and_nothing_of_a_shorter_code(code: str, shown: str) -> None:
    assert masked(code) == shown
