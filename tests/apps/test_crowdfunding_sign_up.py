"""Signing up: who gets in, with what, and who is told what instead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from apps.crowdfunding.admins import add_admin
from apps.crowdfunding.crowdfunding_backers import revoke, stats
from apps.crowdfunding.users import ensure_app_user, get_by_auth_user_id
from camber import ConvexError, days, minutes

if TYPE_CHECKING:
    from camber.testing import Person

    from .conftest import Campaign


def refusal_of(person: Person, **claim: Any) -> str:
    """The sentence with which a sign-up is refused."""
    with pytest.raises(ConvexError) as refused:
        person.run(ensure_app_user, **claim)
    assert isinstance(refused.value.data, str)
    assert refused.value.data in str(refused.value)
    return refused.value.data


def test_a_backer_signs_up(campaign: Campaign) -> None:
    campaign.begins()
    campaign.has_tier("Gold", 25, access_days=365)
    backer_id = campaign.has_backer("ada", "ABC123", "Gold")
    ada = campaign.person("Ada@Example.com", name="Ada", sessionId="auth-session-1")

    session = ada.run(ensure_app_user, **campaign.claim())

    now = campaign.now
    user, backer = campaign.row(session["userId"]), campaign.row(backer_id)
    assert session == {
        "userId": user["_id"],
        "email": "ada@example.com",
        "name": "Ada",
        "isAdmin": False,
        "sessionId": user["activeSessionId"],
    }
    assert (user["crowdfundingBackerId"], user["createdAt"], user["sessionStartedAt"]) == (backer_id, now, now)
    assert (user["backerAccessGrantedAt"], user["backerAccessUntil"]) == (now, now + days(365))
    assert user["activeAuthSessionId"] == "auth-session-1"
    assert (backer["usedByUserId"], backer["usedAt"]) == (user["_id"], now)
    assert not {"pendingClaimToken", "pendingClaimExpiresAt"} & backer.keys()


def test_outside_a_campaign_anyone_with_a_verified_address_gets_in(campaign: Campaign) -> None:
    session = campaign.person("ada@example.com").run(ensure_app_user)

    user = campaign.row(session["userId"])
    assert not {"crowdfundingBackerId", "backerAccessGrantedAt", "backerAccessUntil"} & user.keys()


def test_a_backer_code_counts_outside_a_campaign_too(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()

    session = campaign.person().run(ensure_app_user, **campaign.claim())

    assert campaign.row(session["userId"])["crowdfundingBackerId"] == backer_id


def test_whoever_has_signed_up_always_gets_in(campaign: Campaign) -> None:
    ada = campaign.has_user("ada@example.com")
    backer_id = campaign.has_backer("bob", "ABC123")
    campaign.begins()

    again = ada.run(ensure_app_user, crowdfunding_backer_id=backer_id, crowdfunding_backer_token="nonsense")

    assert again["userId"] == ada.run("users:getCurrentAppUser")["userId"]
    assert "usedByUserId" not in campaign.row(backer_id)


def test_nobody_gets_in_without_signing_in_first(campaign: Campaign) -> None:
    assert refusal_of(campaign.backend.anonymous) == "Not authenticated"
    with pytest.raises(ConvexError, match=r"^Not authenticated$"):
        campaign.backend.run(ensure_app_user)


@pytest.mark.parametrize("email", [None, "", "  "])
def test_an_account_without_an_address_is_refused(campaign: Campaign, email: str | None) -> None:
    person = campaign.backend.as_user(subject="auth-1", email=email)

    assert refusal_of(person) == "An email address is required"


def test_the_whole_list_of_refusals_while_a_campaign_runs(campaign: Campaign) -> None:
    campaign.begins()
    backer_id = campaign.has_backer("ada", "ABC123")
    claim = campaign.claim()
    eve = campaign.person("eve@example.com")

    assert refusal_of(eve) == "Backer verification is required during crowdfunding"
    assert refusal_of(eve, crowdfunding_backer_id=backer_id) == "Backer verification token is required"
    assert (
        refusal_of(eve, crowdfunding_backer_id=backer_id, crowdfunding_backer_token="made-up")
        == "Backer verification does not match. Please verify again."
    )
    campaign.advances(minutes(11))
    assert refusal_of(eve, **claim) == "Backer verification expired. Please verify again."

    campaign.person("ada@example.com").run(ensure_app_user, **campaign.claim())
    assert refusal_of(eve, **claim) == "This backer code has already been used"

    campaign.delete(backer_id)
    assert refusal_of(eve, **claim) == "Invalid backer ID"


def test_a_code_that_was_never_verified_counts_as_expired(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()

    assert (
        refusal_of(campaign.person(), crowdfunding_backer_id=backer_id, crowdfunding_backer_token="made-up")
        == "Backer verification expired. Please verify again."
    )


def test_the_id_of_another_table_is_no_backer_id(campaign: Campaign) -> None:
    admin_id = campaign.backend.run(add_admin, email="boss@example.com")["id"]

    with pytest.raises(Exception, match="ArgumentValidationError"):
        campaign.person().run("users:ensureAppUser", {"crowdfundingBackerId": admin_id, "crowdfundingBackerToken": "t"})


def test_one_address_has_one_user(campaign: Campaign) -> None:
    campaign.has_user("ada@example.com", subject="auth-1")
    twin = campaign.person("ADA@example.com", subject="auth-2")

    assert refusal_of(twin) == "An account with this email already exists"


def test_an_unverified_address_is_refused_and_stays_free_for_its_owner(campaign: Campaign) -> None:
    campaign.has_backer()
    claim = campaign.claim()

    assert (
        refusal_of(campaign.person(subject="auth-1", email_verified=False), **claim) == "Please verify your email first"
    )

    campaign.person(subject="auth-2").run(ensure_app_user, **claim)


def test_a_refused_sign_up_leaves_the_backer_as_it_was(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    claim = campaign.claim()
    before = campaign.row(backer_id)

    refusal_of(campaign.person(email_verified=False), **claim)

    assert campaign.row(backer_id) == before
    assert campaign.backend.run(stats)["claimed"] == 0


def test_the_first_admin_gets_in_while_a_campaign_runs(campaign: Campaign) -> None:
    campaign.begins()
    campaign.backend.run(add_admin, email="Boss@Example.com ")

    assert campaign.person("boss@example.com").run(ensure_app_user)["isAdmin"] is True
    assert "required during" in refusal_of(campaign.person("boss@example.com", subject="eve", email_verified=False))


def test_sign_ins_are_limited_and_refused_ones_count(campaign: Campaign) -> None:
    campaign.begins()
    eve = campaign.person("eve@example.com")
    for _ in range(10):
        assert "required during" in refusal_of(eve)

    refusal = refusal_of(eve)

    assert refusal.startswith("Too many sign-in attempts. Try again in ")
    assert 1 <= int(refusal.split()[-2]) <= 60
    campaign.advances(minutes(1))
    assert "required during" in refusal_of(eve)


def test_an_unknown_tier_grants_access_without_an_end(campaign: Campaign) -> None:
    campaign.has_backer(tier="Mystery")

    session = campaign.person().run(ensure_app_user, **campaign.claim())

    user = campaign.row(session["userId"])
    assert user["backerAccessGrantedAt"] == campaign.now
    assert "backerAccessUntil" not in user


def test_a_revoked_backer_keeps_the_account(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    ada = campaign.person()
    ada.run(ensure_app_user, **campaign.claim())
    campaign.backend.run(revoke, backer_id=backer_id, reason="refunded")

    assert ada.run(ensure_app_user)["email"] == "ada@example.com"


def test_of_two_hundred_claims_at_once_exactly_one_succeeds(campaign: Campaign) -> None:
    campaign.begins()
    backer_id = campaign.has_backer()
    claim = campaign.claim()

    def claims(number: int) -> str:
        person = campaign.person(f"person{number}@example.com")
        try:
            return person.run(ensure_app_user, **claim)["userId"]
        except ConvexError as refused:
            return str(refused.data)

    with ThreadPoolExecutor(max_workers=40) as pool:
        answers = list(pool.map(claims, range(200)))

    winner = campaign.row(backer_id)["usedByUserId"]
    assert answers.count(winner) == 1
    assert answers.count("This backer code has already been used") == 199
    assert campaign.row(winner)["crowdfundingBackerId"] == backer_id
    assert len(campaign.rows("users")) == 1


def test_the_operator_finds_a_user_by_account_and_no_client_can(campaign: Campaign) -> None:
    ada = campaign.has_user("ada@example.com", subject="auth-1")

    assert campaign.backend.run("users:getByAuthUserId", {"authUserId": "auth-1"})["email"] == "ada@example.com"
    assert campaign.backend.run(get_by_auth_user_id, auth_user_id="auth-2") is None
    with pytest.raises(Exception, match="Could not find"):
        ada.run("users:getByAuthUserId", {"authUserId": "auth-1"})
