"""The single active session: a person is signed in at one place at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from apps.crowdfunding.admins import add_admin, list_admins
from apps.crowdfunding.billing import quote
from apps.crowdfunding.users import ensure_app_user, get_current_app_user, validate_session
from camber import ConvexError

if TYPE_CHECKING:
    from .conftest import Campaign


def invalid(reason: str) -> dict[str, object]:
    return {"valid": False, "reason": reason}


def test_a_session_is_valid_until_the_person_signs_in_elsewhere(campaign: Campaign) -> None:
    ada = campaign.person("ada@example.com")
    at_home = ada.run(ensure_app_user)["sessionId"]
    assert ada.run(validate_session, session_id=at_home) == {"valid": True}

    on_the_phone = ada.run(ensure_app_user)["sessionId"]

    assert ada.run(validate_session, session_id=at_home) == invalid("session_invalidated")
    assert ada.run(validate_session, session_id=on_the_phone) == {"valid": True}


def test_every_sign_in_gets_a_random_uuid(campaign: Campaign) -> None:
    ada = campaign.person("ada@example.com")

    sessions = [ada.run(ensure_app_user)["sessionId"] for _ in range(3)]

    assert len(set(sessions)) == 3
    assert {UUID(session).version for session in sessions} == {4}


@pytest.mark.parametrize(
    "session_id",
    [
        "",
        "nonsense",
        "dcfb2c92-e693-11f1-b16d-02fc00000001",  # a UUID, but of version 1
        "6aec17ef0c0a480d9ab2f07a1858b356",
        "f324ef15-60d2-4798-8dbb-555d1efeec02\n",
    ],
)
def test_what_is_no_random_uuid_is_no_session_id(campaign: Campaign, session_id: str) -> None:
    ada = campaign.has_user("ada@example.com")

    for client in (ada, campaign.backend.anonymous):
        assert client.run(validate_session, session_id=session_id) == invalid("invalid_session_id")


def test_each_caller_is_told_why_a_session_is_not_valid(campaign: Campaign) -> None:
    somewhere = str(uuid4())

    assert campaign.backend.anonymous.run(validate_session, session_id=somewhere) == invalid("not_authenticated")
    assert campaign.person().run(validate_session, session_id=somewhere) == invalid("no_app_user")
    assert campaign.has_user("bob@example.com").run(validate_session, session_id=somewhere) == invalid(
        "session_invalidated"
    )


def test_the_session_of_somebody_else_is_not_valid(campaign: Campaign) -> None:
    adas = campaign.person("ada@example.com").run(ensure_app_user)["sessionId"]
    bob = campaign.has_user("bob@example.com")

    assert bob.run(validate_session, session_id=adas) == invalid("session_invalidated")


def test_a_displaced_session_opens_nothing_any_more(campaign: Campaign) -> None:
    at_home = campaign.person("ada@example.com", sessionId="auth-1")
    on_the_phone = campaign.person("ada@example.com", sessionId="auth-2")
    at_home.run(ensure_app_user)
    assert at_home.run(quote, amount_cents=100)["discountedCents"] == 100

    on_the_phone.run(ensure_app_user)

    with pytest.raises(ConvexError, match=r"^session_invalidated$"):
        at_home.run(quote, amount_cents=100)
    assert on_the_phone.run(quote, amount_cents=100)["discountedCents"] == 100


def test_a_displaced_admin_is_an_admin_no_more(campaign: Campaign) -> None:
    campaign.backend.run(add_admin, email="boss@example.com")
    at_home = campaign.person("boss@example.com", sessionId="auth-1")
    at_home.run(ensure_app_user)
    campaign.person("boss@example.com", sessionId="auth-2").run(ensure_app_user)

    with pytest.raises(ConvexError, match=r"^session_invalidated$"):
        at_home.run(list_admins)


def test_a_displaced_session_may_still_ask_who_it_is_and_sign_in_again(campaign: Campaign) -> None:
    at_home = campaign.person("ada@example.com", sessionId="auth-1")
    on_the_phone = campaign.person("ada@example.com", sessionId="auth-2")
    session = at_home.run(ensure_app_user)["sessionId"]
    newest = on_the_phone.run(ensure_app_user)["sessionId"]

    assert at_home.run(validate_session, session_id=session) == invalid("session_invalidated")
    assert at_home.run("users:getCurrentAppUser")["activeSessionId"] == newest

    at_home.run(ensure_app_user)
    assert at_home.run(quote, amount_cents=100)["amountCents"] == 100


def test_without_the_auth_service_s_session_nothing_is_compared(campaign: Campaign) -> None:
    impersonated = campaign.person("ada@example.com")
    campaign.person("ada@example.com", sessionId="auth-1").run(ensure_app_user)
    impersonated.run(ensure_app_user)

    for caller in (impersonated, campaign.person("ada@example.com", sessionId="auth-1")):
        assert caller.run(quote, amount_cents=100)["amountCents"] == 100


def test_who_is_signed_in(campaign: Campaign) -> None:
    assert campaign.backend.anonymous.run(get_current_app_user) is None
    ada = campaign.person("ada@example.com", name="Ada")
    assert ada.run(get_current_app_user) is None

    session = ada.run(ensure_app_user)

    assert ada.run(get_current_app_user) == {
        "userId": session["userId"],
        "email": "ada@example.com",
        "name": "Ada",
        "isAdmin": False,
        "activeSessionId": session["sessionId"],
    }


def test_a_name_that_nobody_gave_is_left_out(campaign: Campaign) -> None:
    ada = campaign.person("ada@example.com")

    assert ada.run(ensure_app_user).keys() == {"userId", "email", "isAdmin", "sessionId"}
    assert "name" not in ada.run("users:getCurrentAppUser")
