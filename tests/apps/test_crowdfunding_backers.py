"""Backers: put on the list, verified, listed, counted, revoked and given new codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apps.crowdfunding.codes import is_generated
from apps.crowdfunding.crowdfunding_backers import (
    MAX_CANDIDATES,
    add_backer,
    list_backers,
    reissue,
    revoke,
    stats,
    verify_backer,
)
from apps.crowdfunding.users import ensure_app_user
from camber import ConvexError, days, minutes, seconds

if TYPE_CHECKING:
    from .conftest import Campaign

INVALID = {"valid": False, "reason": "invalid_credentials"}


def test_a_new_backer_is_on_the_list_ready_to_be_verified(campaign: Campaign) -> None:
    answer = campaign.backend.run(
        "crowdfundingBackers:addBacker", {"username": " User123 ", "accessCode": " ABC123 ", "tier": "Gold"}
    )

    row = campaign.row(answer["id"])
    assert answer == {"success": True, "id": row["_id"]}
    assert (row["username"], row["usernameLower"], row["accessCode"], row["tier"]) == (
        "User123",
        "user123",
        "ABC123",
        "Gold",
    )


def test_the_same_username_and_code_are_added_once(campaign: Campaign) -> None:
    first = campaign.has_backer("Ada", "ABC123")

    again = campaign.backend.run(add_backer, username="aDA", access_code="ABC123", tier="Silver")

    assert again == {"success": False, "reason": "already_exists", "id": first}
    assert campaign.row(first)["tier"] == "Gold"


def test_one_username_may_have_several_codes(campaign: Campaign) -> None:
    campaign.has_backer("ada", "FIRST1")
    second = campaign.has_backer("ada", "SECOND2")

    assert campaign.verifies("ada", "SECOND2")["backerId"] == second


def test_more_codes_than_are_compared_still_verify_as_they_are_written(campaign: Campaign) -> None:
    for number in range(MAX_CANDIDATES + 1):
        campaign.has_backer("ada", f"CODE{number:04}")

    assert campaign.verifies("ada", f"CODE{MAX_CANDIDATES:04}")["valid"]


def test_a_tier_that_does_not_exist_is_accepted_with_a_warning(campaign: Campaign) -> None:
    campaign.has_tier("Gold", 25)

    known = campaign.logs_of("crowdfundingBackers:addBacker", username="ada", accessCode="ABC123", tier="Gold")
    (warning,) = campaign.logs_of("crowdfundingBackers:addBacker", username="bob", accessCode="ABC123", tier="Glod")

    assert known == []
    assert warning.startswith("[WARN]")
    assert "Glod" in warning
    assert len(campaign.rows("crowdfunding_backers")) == 2


@pytest.mark.parametrize("entry", [{"username": "  "}, {"accessCode": ""}, {"tier": " "}, {"username": "x" * 201}])
def test_a_backer_that_could_never_verify_is_refused(campaign: Campaign, entry: dict[str, str]) -> None:
    with pytest.raises(ConvexError, match="must have 1 to 200 characters"):
        campaign.backend.run(
            "crowdfundingBackers:addBacker", {"username": "ada", "accessCode": "X1", "tier": "Gold", **entry}
        )


def test_no_client_can_add_a_backer(campaign: Campaign) -> None:
    for client in (campaign.backend.anonymous, campaign.person()):
        with pytest.raises(Exception, match="Could not find"):
            client.run("crowdfundingBackers:addBacker", {"username": "ada", "accessCode": "X1", "tier": "Gold"})


# Verifying.


def test_a_good_code_gives_a_claim_token_for_ten_minutes(campaign: Campaign) -> None:
    backer_id = campaign.has_backer("Ada", "ABC123", "Gold")

    answer = campaign.verifies(" ada ", " ABC123 ")

    row = campaign.row(backer_id)
    assert answer == {
        "valid": True,
        "backerId": backer_id,
        "tier": "Gold",
        "claimToken": row["pendingClaimToken"],
        "claimExpiresAt": campaign.now + minutes(10),
    }
    assert len(answer["claimToken"]) >= 22
    assert row["pendingClaimExpiresAt"] == answer["claimExpiresAt"]


def test_verifying_again_replaces_the_earlier_token(campaign: Campaign) -> None:
    campaign.has_backer()
    earlier = campaign.claim()
    campaign.claim()

    with pytest.raises(ConvexError, match="does not match"):
        campaign.person().run(ensure_app_user, **earlier)


@pytest.mark.parametrize(
    ("username", "code"),
    [("ada", "WRONG1"), ("eve", "ABC123"), ("ada", "abc123"), ("", "ABC123"), ("ada", "  "), ("x" * 5000, "ABC123")],
)
def test_a_wrong_entry_is_told_nothing_more(campaign: Campaign, username: str, code: str) -> None:
    campaign.has_backer("ada", "ABC123")

    assert campaign.verifies(username, code) == INVALID


def test_a_wrong_username_and_a_wrong_code_take_the_same_look_ups(campaign: Campaign) -> None:
    campaign.has_backer("ada", "ABC123")

    with campaign.backend.counting_reads() as for_a_wrong_code:
        campaign.verifies("ada", "WRONG1")
    with campaign.backend.counting_reads() as for_a_wrong_username:
        campaign.verifies("eve", "ABC123")

    assert for_a_wrong_code.ranges == for_a_wrong_username.ranges > 0


def test_a_used_code_is_refused(campaign: Campaign) -> None:
    campaign.has_backer()
    campaign.person().run(ensure_app_user, **campaign.claim())

    assert campaign.verifies() == {"valid": False, "reason": "already_used"}


def test_a_row_with_only_the_first_fields_verifies_and_is_completed(campaign: Campaign) -> None:
    imported = campaign.insert("crowdfunding_backers", username="Ada", accessCode="ABC123", tier="Gold")

    assert campaign.verifies("ada", "ABC123") == INVALID
    assert campaign.verifies("Ada", "ABC123")["backerId"] == imported

    assert campaign.row(imported)["usernameLower"] == "ada"
    assert campaign.verifies("aDa", "ABC123")["backerId"] == imported


def test_the_sixth_attempt_in_a_minute_has_to_wait(campaign: Campaign) -> None:
    campaign.has_backer("ada", "ABC123")
    for username in ("ada", "Ada", "ADA", "aDa", "adA"):
        assert campaign.verifies(username, "WRONG1") == INVALID

    refused = campaign.verifies("ada", "ABC123")

    assert (refused["valid"], refused["reason"]) == (False, "rate_limited")
    assert refused["retryAfter"] == int(refused["retryAfter"])
    assert 1 <= refused["retryAfter"] <= 60
    campaign.advances(seconds(refused["retryAfter"]))
    assert campaign.verifies("ada", "ABC123")["valid"]


def test_another_username_has_attempts_of_its_own(campaign: Campaign) -> None:
    campaign.has_backer("bob", "ABC123")
    for _ in range(6):
        campaign.verifies("ada", "WRONG1")

    assert campaign.verifies("bob", "ABC123")["valid"]


def test_guessing_across_usernames_is_limited_by_address(campaign: Campaign) -> None:
    for number in range(60):
        assert campaign.verifies(f"name{number}", "X", address="192.0.2.7") == INVALID

    assert campaign.verifies("name60", "X", address="192.0.2.7")["reason"] == "rate_limited"
    assert campaign.verifies("name60", "X", address="192.0.2.8") == INVALID


def test_the_operator_has_no_address_to_be_limited_by(campaign: Campaign) -> None:
    for number in range(61):
        assert campaign.backend.run(verify_backer, username=f"name{number}", access_code="X") == INVALID


# Listing.


def listed(campaign: Campaign, **filters: Any) -> list[str]:
    """The usernames of every page, in order; pages of two, so that cursors are used."""
    found: list[str] = []
    cursor = None
    while True:
        page = campaign.backend.run(list_backers, pagination_opts={"numItems": 2, "cursor": cursor}, **filters)
        found += [backer["username"] for backer in page["page"]]
        cursor = page["continueCursor"]
        if page["isDone"]:
            return found


@pytest.fixture
def five_backers(campaign: Campaign) -> None:
    """ada and bert (Gold) and carl (Silver) wait; anna (Gold) and dora (Silver) signed up."""
    for username, tier in (("Ada", "Gold"), ("bert", "Gold"), ("carl", "Silver"), ("Anna", "Gold"), ("dora", "Silver")):
        campaign.has_backer(username, "ABC123", tier)
    for username in ("Anna", "dora"):
        campaign.person(f"{username}@example.com").run(ensure_app_user, **campaign.claim(username))


@pytest.mark.usefixtures("five_backers")
@pytest.mark.parametrize(
    ("filters", "usernames"),
    [
        ({}, {"Ada", "bert", "carl", "Anna", "dora"}),
        ({"tier": "Gold"}, {"Ada", "bert", "Anna"}),
        ({"tier": "gold"}, set()),
        ({"claimed": True}, {"Anna", "dora"}),
        ({"claimed": False}, {"Ada", "bert", "carl"}),
        ({"tier": "Gold", "claimed": True}, {"Anna"}),
        ({"tier": "Gold", "claimed": False}, {"Ada", "bert"}),
        ({"search": "A"}, {"Ada", "Anna"}),
        ({"search": " an "}, {"Anna"}),
        ({"search": "anna2"}, set()),
        ({"search": "  "}, {"Ada", "bert", "carl", "Anna", "dora"}),
        ({"search": "a", "claimed": False}, {"Ada"}),
        ({"search": "d", "tier": "Silver", "claimed": True}, {"dora"}),
        ({"search": "d", "tier": "Gold"}, set()),
    ],
)
def test_admins_find_backers_by_tier_claim_and_name(
    campaign: Campaign, filters: dict[str, Any], usernames: set[str]
) -> None:
    found = listed(campaign, **filters)

    assert set(found) == usernames
    assert len(found) == len(usernames)


def test_the_list_shows_no_code_and_no_claim_token(campaign: Campaign) -> None:
    campaign.has_backer("ada", "SECRET-1234")
    token = campaign.claim("ada", "SECRET-1234")["crowdfunding_backer_token"]

    page = campaign.backend.run(list_backers, pagination_opts={"numItems": 10, "cursor": None})

    assert page["page"][0]["accessCode"] == "*******1234"
    assert "SECRET" not in str(page)
    assert token not in str(page)


@pytest.mark.parametrize("filters", [{"tier": None}, {"claimed": "yes"}, {"search": 3}, {"colour": "red"}])
def test_filters_of_a_wrong_kind_are_refused(campaign: Campaign, filters: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="ArgumentValidationError"):
        campaign.backend.run("crowdfundingBackers:list", {"paginationOpts": {"numItems": 2, "cursor": None}, **filters})


# Counting.


@pytest.mark.usefixtures("five_backers")
def test_the_numbers_of_a_campaign(campaign: Campaign) -> None:
    campaign.has_tier("Bronze", 5)

    numbers = campaign.backend.run(stats)

    assert (numbers["total"], numbers["claimed"]) == (5, 2)
    assert numbers["byTier"] == [
        {"tier": "Bronze", "total": 0, "claimed": 0},
        {"tier": "Gold", "total": 3, "claimed": 1},
        {"tier": "Silver", "total": 2, "claimed": 1},
    ]


def test_sign_ups_are_counted_by_utc_day_for_thirty_days(campaign: Campaign) -> None:
    def sign_up(username: str) -> None:
        campaign.has_backer(username, "ABC123")
        campaign.person(f"{username}@example.com").run(ensure_app_user, **campaign.claim(username))

    sign_up("ada")
    campaign.advances(days(1))
    sign_up("bob")
    sign_up("carl")
    campaign.advances(days(28))

    by_day = campaign.backend.run(stats)["byDay"]
    assert len(by_day) == 30
    assert [entry["claimed"] for entry in by_day] == [1, 2, *[0] * 28]
    assert (by_day[0]["day"], by_day[-1]["day"]) == ("2026-01-01", "2026-01-30")

    campaign.advances(days(1))
    assert [entry["claimed"] for entry in campaign.backend.run(stats)["byDay"]][:2] == [2, 0]


def test_the_numbers_of_an_empty_campaign(campaign: Campaign) -> None:
    numbers = campaign.backend.run(stats)

    assert (numbers["total"], numbers["claimed"], numbers["byTier"]) == (0, 0, [])
    assert not any(entry["claimed"] for entry in numbers["byDay"])


# Revoking and reissuing.


def test_a_revoked_code_verifies_as_if_it_did_not_exist(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    claim = campaign.claim()

    (line,) = campaign.logs_of("crowdfundingBackers:revoke", backerId=backer_id, reason="refunded")

    assert "refunded" in line
    assert campaign.verifies() == INVALID
    with pytest.raises(ConvexError, match=r"^Invalid backer ID$"):
        campaign.person().run(ensure_app_user, **claim)


def test_revoking_twice_keeps_the_first_time(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    campaign.backend.run(revoke, backer_id=backer_id, reason="refunded")
    revoked_at = campaign.row(backer_id)["revokedAt"]
    campaign.advances(days(1))

    campaign.backend.run(revoke, backer_id=backer_id, reason="refunded, again")

    assert campaign.row(backer_id)["revokedAt"] == revoked_at


def test_a_reissued_code_is_generated_and_takes_the_place_of_the_old_one(campaign: Campaign) -> None:
    backer_id = campaign.has_backer("Ada", "ABC123")
    campaign.backend.run(revoke, backer_id=backer_id, reason="lost the card")

    code = campaign.backend.run(reissue, backer_id=backer_id, reason="lost the card")["accessCode"]

    assert is_generated(code)
    assert campaign.verifies("ada", "ABC123") == INVALID
    assert campaign.verifies("ada", code.replace("-", "").lower())["backerId"] == backer_id


def test_codes_do_not_reach_the_log(campaign: Campaign) -> None:
    backer_id = campaign.has_backer("ada", "ABC123")

    (line,) = campaign.logs_of("crowdfundingBackers:reissue", backerId=backer_id, reason="leaked", accessCode="NEW-1")

    assert "leaked" in line
    assert "ABC123" not in line
    assert "NEW-1" not in line


def test_a_reissue_can_name_the_new_code_and_ends_a_claim_under_way(campaign: Campaign) -> None:
    backer_id = campaign.has_backer("ada", "ABC123")
    claim = campaign.claim()

    answer = campaign.backend.run(reissue, backer_id=backer_id, reason="leaked", access_code=" NEW-1 ")

    assert answer == {"accessCode": "NEW-1"}
    assert campaign.verifies("ada", "new-1") == INVALID
    with pytest.raises(ConvexError, match="expired"):
        campaign.person().run(ensure_app_user, **claim)
    assert campaign.verifies("ada", "NEW-1")["valid"]


def test_a_reissue_completes_a_row_with_only_the_first_fields(campaign: Campaign) -> None:
    backer_id = campaign.insert("crowdfunding_backers", username="Ada", accessCode="ABC123", tier="Gold")

    campaign.backend.run(reissue, backer_id=backer_id, reason="leaked", access_code="NEW-1")

    assert campaign.verifies("ada", "NEW-1")["backerId"] == backer_id


def test_two_rows_of_one_username_cannot_get_the_same_code(campaign: Campaign) -> None:
    first, second = campaign.has_backer("ada", "FIRST1"), campaign.has_backer("ada", "SECOND2")

    with pytest.raises(ConvexError, match="already has this access code"):
        campaign.backend.run(reissue, backer_id=second, reason="mistake", access_code="FIRST1")
    assert (
        campaign.backend.run(reissue, backer_id=first, reason="same again", access_code="FIRST1")["accessCode"]
        == "FIRST1"
    )


def test_a_claimed_slot_gets_no_new_code(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    campaign.person().run(ensure_app_user, **campaign.claim())

    with pytest.raises(ConvexError, match=r"^This backer code has already been used$"):
        campaign.backend.run(reissue, backer_id=backer_id, reason="lost the card")


@pytest.mark.parametrize("path", ["crowdfundingBackers:revoke", "crowdfundingBackers:reissue"])
def test_a_backer_that_is_gone_cannot_be_revoked_or_reissued(campaign: Campaign, path: str) -> None:
    backer_id = campaign.has_backer()
    campaign.delete(backer_id)

    with pytest.raises(ConvexError, match=r"^Invalid backer ID$"):
        campaign.backend.run(path, {"backerId": backer_id, "reason": "gone"})


def test_only_admins_see_and_change_backers(campaign: Campaign) -> None:
    backer_id = campaign.has_backer()
    options = {"paginationOpts": {"numItems": 10, "cursor": None}}
    withdrawal = {"backerId": backer_id, "reason": "envy"}
    calls = {"list": options, "stats": {}, "revoke": withdrawal, "reissue": withdrawal}

    for client in (
        campaign.backend.anonymous,
        campaign.person("eve@example.com"),
        campaign.has_user("uma@example.com"),
    ):
        for name, arguments in calls.items():
            with pytest.raises(ConvexError, match=r"^Not authorized$"):
                client.run(f"crowdfundingBackers:{name}", arguments)
    assert "revokedAt" not in campaign.row(backer_id)
