"""Quotes: what remains of a price after a backer's discount."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.crowdfunding.billing import discounted, quote
from apps.crowdfunding.crowdfunding_backers import revoke
from apps.crowdfunding.users import ensure_app_user
from camber import ConvexError, days, seconds

if TYPE_CHECKING:
    from camber.testing import Person

    from .conftest import Campaign


@pytest.mark.parametrize(
    ("cents", "percent_off", "remaining"),
    [
        (1000, 25, 750),
        (999, 25, 749),  # 749.25
        (1005, 10, 905),  # 904.5
        (5, 50, 3),  # 2.5
        (1, 50, 1),  # 0.5
        (1, 51, 0),  # 0.49
        (1000, 12.1, 879),
        (10_000, 33.33, 6667),
        (0, 25, 0),
        (12_345, 0, 12_345),
        (12_345, 100, 0),
        (2**53, 50, 2**52),
    ],
)
def test_what_remains_is_whole_cents_with_halves_rounded_up(cents: int, percent_off: float, remaining: int) -> None:
    assert discounted(cents, percent_off) == remaining


@given(st.integers(0, 2**53), st.integers(0, 100))
def test_with_whole_percentages_it_is_the_nearest_cent(cents: int, percent_off: int) -> None:
    hundredths = cents * (100 - percent_off)

    assert -50 < discounted(cents, percent_off) * 100 - hundredths <= 50


@given(st.integers(0, 2**53), st.floats(0, 100))
def test_a_discount_never_leaves_less_than_nothing_or_more_than_the_price(cents: int, percent_off: float) -> None:
    assert 0 <= discounted(cents, percent_off) <= cents


@pytest.fixture
def gold(campaign: Campaign) -> Person:
    """A Gold backer who signed up: 25 percent off for 365 days."""
    campaign.has_tier("Gold", 25, access_days=365)
    campaign.has_backer(tier="Gold")
    ada = campaign.person()
    ada.run(ensure_app_user, **campaign.claim())
    return ada


def test_a_backer_pays_less(campaign: Campaign, gold: Person) -> None:
    assert gold.run("billing:quote", {"amountCents": 999}) == {
        "tier": "Gold",
        "percentOff": 25.0,
        "amountCents": 999,
        "discountedCents": 749,
        "accessUntil": campaign.now + days(365),
    }


def test_without_a_backer_s_code_the_price_stays(campaign: Campaign) -> None:
    assert campaign.has_user("bob@example.com").run(quote, amount_cents=999) == {
        "tier": None,
        "percentOff": 0.0,
        "amountCents": 999,
        "discountedCents": 999,
    }


def test_the_discount_ends_with_the_access(campaign: Campaign, gold: Person) -> None:
    campaign.advances(days(365) - seconds(6))
    assert gold.run(quote, amount_cents=999)["discountedCents"] == 749

    campaign.advances(seconds(6))

    after = gold.run(quote, amount_cents=999)
    assert (after["tier"], after["percentOff"], after["discountedCents"]) == ("Gold", 0.0, 999)


def test_a_new_discount_of_the_tier_holds_for_everyone_at_once(campaign: Campaign, gold: Person) -> None:
    campaign.has_tier("Gold", 50)

    assert gold.run(quote, amount_cents=999)["discountedCents"] == 500


def test_a_backer_of_a_tier_that_does_not_exist_has_no_discount_yet(campaign: Campaign) -> None:
    campaign.has_backer(tier="Mystery")
    ada = campaign.person()
    ada.run(ensure_app_user, **campaign.claim())

    price = ada.run(quote, amount_cents=999)
    assert (price["tier"], price["percentOff"], price["discountedCents"]) == ("Mystery", 0.0, 999)
    assert "accessUntil" not in price

    campaign.has_tier("Mystery", 10)
    assert ada.run(quote, amount_cents=999)["discountedCents"] == 899


def test_a_revoked_backer_has_no_discount(campaign: Campaign, gold: Person) -> None:
    (backer,) = campaign.rows("crowdfunding_backers")
    campaign.backend.run(revoke, backer_id=backer["_id"], reason="refunded")

    assert gold.run(quote, amount_cents=999) == {
        "tier": None,
        "percentOff": 0.0,
        "amountCents": 999,
        "discountedCents": 999,
    }


def test_an_amount_below_zero_is_refused(gold: Person) -> None:
    with pytest.raises(ConvexError, match="amountCents must not be negative"):
        gold.run(quote, amount_cents=-1)


@pytest.mark.parametrize("amount", [0.5, 99.999, float("nan"), float("inf"), 2.0**54, "999", None])
def test_an_amount_that_is_no_whole_number_of_cents_is_refused(gold: Person, amount: Any) -> None:
    with pytest.raises(Exception, match="ArgumentValidationError"):
        gold.run("billing:quote", {"amountCents": amount})


def test_a_quote_needs_an_app_user(campaign: Campaign) -> None:
    with pytest.raises(ConvexError, match=r"^Not authenticated$"):
        campaign.backend.anonymous.run(quote, amount_cents=999)
    with pytest.raises(ConvexError, match=r"^no_app_user$"):
        campaign.person("eve@example.com").run(quote, amount_cents=999)
