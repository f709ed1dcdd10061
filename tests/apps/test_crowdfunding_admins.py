"""Admins, and what only they and the operator may change: the switch, the list of admins, the tiers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from apps.crowdfunding.admins import add_admin, list_admins, remove_admin
from apps.crowdfunding.app_state import get_state, set_state
from apps.crowdfunding.tiers import list_tiers, remove_tier, set_tier, tier_refusal
from apps.crowdfunding.users import ensure_app_user
from camber import ConvexError, minutes

if TYPE_CHECKING:
    from camber.testing import Person

    from .conftest import Campaign


@pytest.fixture
def boss(campaign: Campaign) -> Person:
    """An admin who signed up."""
    campaign.backend.run(add_admin, email="boss@example.com")
    return campaign.has_user("boss@example.com")


# The switch.


def test_before_it_is_set_no_campaign_runs(campaign: Campaign) -> None:
    assert campaign.backend.anonymous.run("appState:get") == {"crowdfundingActive": False}


def test_the_seed_s_command_creates_the_one_row_and_updates_it(campaign: Campaign) -> None:
    assert campaign.backend.run("appState:set", {"crowdfundingActive": True}) is None
    first = campaign.backend.anonymous.run("appState:get")
    assert (first["key"], first["crowdfundingActive"]) == ("config", True)

    campaign.backend.run("appState:set", {"crowdfundingActive": False})

    assert campaign.backend.anonymous.run(get_state) == {**first, "crowdfundingActive": False}
    assert len(campaign.rows("app_state")) == 1


def test_first_calls_at_the_same_time_leave_one_row(campaign: Campaign) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda _: campaign.begins(), range(32)))

    assert len(campaign.rows("app_state")) == 1


def test_another_key_than_config_is_refused(campaign: Campaign) -> None:
    with pytest.raises(Exception, match="does not match"):
        campaign.insert("app_state", key="other", crowdfundingActive=True)


def test_an_admin_flips_the_switch_ten_times_a_minute_and_the_operator_as_often_as_needed(
    campaign: Campaign, boss: Person
) -> None:
    for number in range(10):
        boss.run(set_state, crowdfunding_active=bool(number % 2))

    with pytest.raises(ConvexError, match=r"^Too many changes\. Try again in \d+ seconds\.$"):
        boss.run(set_state, crowdfunding_active=True)
    for _ in range(11):
        campaign.begins()
    campaign.advances(minutes(1))
    boss.run(set_state, crowdfunding_active=False)


# Who is an admin.


def test_an_admin_needs_a_verified_address_on_the_list_and_an_app_user(campaign: Campaign, boss: Person) -> None:
    assert campaign.is_admin(boss)
    boss.run(set_state, crowdfunding_active=True)

    unverified = campaign.person("boss@example.com", email_verified=False)
    assert unverified.run(ensure_app_user)["isAdmin"] is False
    campaign.backend.run(add_admin, email="new@example.com")
    never_signed_up = campaign.person("new@example.com")
    for caller in (unverified, never_signed_up, campaign.person("eve@example.com"), campaign.backend.anonymous):
        with pytest.raises(ConvexError, match=r"^Not authorized$"):
            caller.run(set_state, crowdfunding_active=False)
    assert campaign.backend.run(get_state)["crowdfundingActive"] is True


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("appState:set", {"crowdfundingActive": True}),
        ("admins:add", {"email": "eve@example.com"}),
        ("admins:remove", {"email": "boss@example.com"}),
        ("admins:list", {}),
        ("tiers:set", {"name": "Gold", "percentOff": 100}),
        ("tiers:remove", {"name": "Gold"}),
    ],
)
def test_nobody_else_may(campaign: Campaign, path: str, arguments: dict[str, Any]) -> None:
    for caller in (
        campaign.has_user("uma@example.com"),
        campaign.person("eve@example.com"),
        campaign.backend.anonymous,
    ):
        with pytest.raises(ConvexError, match=r"^Not authorized$"):
            caller.run(path, arguments)


# The list of admins.


def test_an_address_is_added_once_in_lower_case(campaign: Campaign, boss: Person) -> None:
    added = boss.run(add_admin, email=" Ann@Example.com ", note="support")
    again = boss.run(add_admin, email="ann@example.com", note="other")

    assert (added["added"], again) == (True, {"added": False, "id": added["id"]})
    ann = boss.run(list_admins)[1]
    assert (ann["email"], ann.get("note"), ann["addedAt"]) == ("ann@example.com", "support", campaign.now)


def test_an_empty_address_is_refused(boss: Person) -> None:
    with pytest.raises(ConvexError, match="An email address is required"):
        boss.run(add_admin, email="  ")


def test_a_removed_admin_is_one_no_more(campaign: Campaign, boss: Person) -> None:
    campaign.backend.run(add_admin, email="ann@example.com")
    ann = campaign.has_user("ann@example.com")
    assert campaign.is_admin(ann)

    assert boss.run(remove_admin, email=" ANN@example.com") == {"removed": True}

    assert not campaign.is_admin(ann)
    assert boss.run(remove_admin, email="ann@example.com") == {"removed": False}


def test_only_the_operator_can_remove_the_last_admin(campaign: Campaign, boss: Person) -> None:
    with pytest.raises(ConvexError, match=r"^The last admin cannot be removed$"):
        boss.run(remove_admin, email="boss@example.com")
    assert boss.run(remove_admin, email="nobody@example.com") == {"removed": False}

    assert campaign.backend.run(remove_admin, email="boss@example.com") == {"removed": True}
    assert campaign.backend.run(list_admins) == []


# Tiers.


def test_everyone_sees_the_tiers_by_name(campaign: Campaign, boss: Person) -> None:
    silver = boss.run(set_tier, name=" Silver ", percent_off=10)
    gold = boss.run(set_tier, name="Gold", percent_off=25, access_days=365)

    shown = campaign.backend.anonymous.run(list_tiers)

    assert [tier["_id"] for tier in shown] == [gold, silver]
    assert [(tier["name"], tier["percentOff"], tier.get("accessDays")) for tier in shown] == [
        ("Gold", 25.0, 365.0),
        ("Silver", 10.0, None),
    ]


def test_setting_a_tier_again_replaces_what_it_gives(campaign: Campaign, boss: Person) -> None:
    first = boss.run(set_tier, name="Gold", percent_off=25, access_days=365)

    assert boss.run(set_tier, name="Gold", percent_off=30) == first

    (gold,) = campaign.backend.run(list_tiers)
    assert gold["percentOff"] == 30
    assert "accessDays" not in gold


def test_a_tier_is_removed_once(boss: Person) -> None:
    boss.run(set_tier, name="Gold", percent_off=25)

    assert boss.run(remove_tier, name="Gold") == {"removed": True}
    assert boss.run(remove_tier, name="Gold") == {"removed": False}


@pytest.mark.parametrize("wrong", [{"name": " "}, {"percentOff": -1}, {"percentOff": 100.5}, {"accessDays": 0}])
def test_a_tier_that_makes_no_sense_is_refused(campaign: Campaign, boss: Person, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConvexError):
        boss.run("tiers:set", {"name": "Gold", "percentOff": 25, "accessDays": 365, **wrong})
    assert campaign.backend.run(list_tiers) == []


def test_numbers_that_are_none_make_no_tier() -> None:
    nan, infinity = float("nan"), float("inf")

    assert tier_refusal("Gold", nan, None) == "percentOff must be between 0 and 100"
    assert tier_refusal("Gold", infinity, None) == "percentOff must be between 0 and 100"
    assert tier_refusal("Gold", 0, nan) == "accessDays must be greater than 0"
    assert tier_refusal("Gold", 100, infinity) == "accessDays must be greater than 0"
    assert tier_refusal("Gold", 12.5, 0.5) is None
