"""The rules of a claim on plain values: what opens, what is refused, what is granted."""

from __future__ import annotations

from typing import Any

import pytest

from apps.crowdfunding.claims import CLAIM_LASTS, access_granted, backer_with_code, claim_refusal
from apps.crowdfunding.codes import generated_code
from camber import days, minutes

NOW = 1_767_225_600_000.0


def backer(**fields: Any) -> Any:
    return {"_id": "b1", "_creationTime": NOW, "username": "Ada", "accessCode": "ABC123", "tier": "Gold", **fields}


def pending(**fields: Any) -> Any:
    return backer(pendingClaimToken="t0ken", pendingClaimExpiresAt=NOW + CLAIM_LASTS, **fields)


def test_a_claim_lasts_ten_minutes() -> None:
    assert minutes(10) == CLAIM_LASTS
    assert claim_refusal(pending(), "t0ken", NOW + CLAIM_LASTS - 1) is None
    assert claim_refusal(pending(), "t0ken", NOW + CLAIM_LASTS) == "Backer verification expired. Please verify again."


@pytest.mark.parametrize(
    ("found", "token", "refusal"),
    [
        (None, "t0ken", "Invalid backer ID"),
        (pending(revokedAt=NOW), "t0ken", "Invalid backer ID"),
        (pending(revokedAt=NOW, usedByUserId="u1"), "t0ken", "Invalid backer ID"),
        (pending(usedByUserId="u1", usedAt=NOW), "t0ken", "This backer code has already been used"),
        (backer(), "t0ken", "Backer verification expired. Please verify again."),
        (backer(pendingClaimToken="t0ken"), "t0ken", "Backer verification expired. Please verify again."),
        (pending(), "T0ken", "Backer verification does not match. Please verify again."),
        (pending(), "t0kèn", "Backer verification does not match. Please verify again."),
        (pending(), "t0ken", None),
    ],
)
def test_each_claim_that_cannot_be_carried_out_has_its_sentence(found: Any, token: str, refusal: str | None) -> None:
    assert claim_refusal(found, token, NOW) == refusal


def test_a_code_opens_the_row_that_has_it() -> None:
    silver = backer(_id="b2", accessCode="XYZ", tier="Silver")

    assert backer_with_code([backer(), silver], "XYZ") == silver
    assert backer_with_code([backer(), silver], "xyz") is None
    assert backer_with_code([], "XYZ") is None


def test_a_generated_code_opens_its_row_however_it_is_typed() -> None:
    code = generated_code(2**54 - 12345)
    generated = backer(_id="b2", accessCode=code)

    assert backer_with_code([backer(), generated], code.replace("-", "").lower()) == generated


def test_a_tier_grants_access_for_its_days_and_one_without_days_for_ever() -> None:
    a_year: Any = {"name": "Gold", "percentOff": 25.0, "accessDays": 365.0}
    for_ever: Any = {"name": "Founder", "percentOff": 50.0}

    assert access_granted(a_year, NOW) == {"backerAccessGrantedAt": NOW, "backerAccessUntil": NOW + days(365)}
    assert access_granted(for_ever, NOW) == {"backerAccessGrantedAt": NOW}
    assert access_granted(None, NOW) == {"backerAccessGrantedAt": NOW}
