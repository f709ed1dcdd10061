"""Many clients of a real server who want the same row at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.crashes.consistency import contents_of
from tests.crashes.engines import opened
from tests.crashes.ledger import Answer
from tests.crashes.servers import CROWDFUNDING, HttpClient, Server, serving
from tests.crashes.test_abandoned import APP


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Server]:
    """A server of the crowdfunding application while a campaign runs."""
    with serving(CROWDFUNDING, tmp_path / "data") as server:
        with server.client() as client:
            assert client.call("appState:set", {"crowdfundingActive": True}).end == "done"
        yield server


def person(number: int) -> dict[str, object]:
    return {
        "issuer": "https://auth.test",
        "subject": f"person {number}",
        "email": f"person{number}@x.test",
        "emailVerified": True,
    }


def at_once(server: Server, count: int, act: Callable[[HttpClient, int], Any]) -> list[Any]:
    """Have so many clients, each with a connection of its own, do this at the same time."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        with server.client() as client:
            client.connect()
            barrier.wait()
            return act(client, number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def test_of_200_claims_of_one_backer_one_wins(campaign: Server) -> None:
    backer = {"username": "Ada", "accessCode": "A1"}
    with campaign.client() as client:
        id = client.call("crowdfundingBackers:addBacker", {**backer, "tier": "Gold"}).value["id"]
        token = client.visit("crowdfundingBackers:verifyBacker", backer, "192.0.2.1").value["claimToken"]
    claim = {"crowdfundingBackerId": id, "crowdfundingBackerToken": token}

    answers: list[Answer] = at_once(
        campaign, 200, lambda client, number: client.call("users:ensureAppUser", claim, claims=person(number))
    )

    reasons = Counter((answer.end, answer.reason) for answer in answers)
    assert reasons == {("done", ""): 1, ("refused", "This backer code has already been used"): 199}
    assert campaign.end() == 0
    contents = contents_of(campaign.data)
    ((user,), (row,)) = contents["users"], contents["crowdfunding_backers"]
    winner = next(number for number, answer in enumerate(answers) if answer.end == "done")
    assert user["authUserId"] == f"person {winner}"
    assert (row["usedByUserId"], user["crowdfundingBackerId"]) == (user["_id"], id)


def test_of_200_who_verify_and_sign_up_at_once_one_gets_each_backer(campaign: Server) -> None:
    """Ten backers, whose codes many know: each has its own claim token taken over by the next, and one of them wins."""
    with campaign.client() as client:
        for number in range(10):
            args = {"username": f"backer {number}", "accessCode": "A1", "tier": "Gold"}
            assert client.call("crowdfundingBackers:addBacker", args).end == "done"

    def sign_up(client: HttpClient, number: int) -> Answer:
        args = {"username": f"backer {number % 10}", "accessCode": "A1"}
        verified = client.visit("crowdfundingBackers:verifyBacker", args, f"192.0.2.{number}").value
        if not verified["valid"]:
            return Answer("refused", reason=verified["reason"])
        claim = {"crowdfundingBackerId": verified["backerId"], "crowdfundingBackerToken": verified["claimToken"]}
        return client.call("users:ensureAppUser", claim, claims=person(number))

    answers: list[Answer] = at_once(campaign, 200, sign_up)

    winners = [number for number, answer in enumerate(answers) if answer.end == "done"]
    assert sorted(number % 10 for number in winners) == list(range(10))
    assert campaign.end() == 0
    contents = contents_of(campaign.data)
    assert sorted(user["authUserId"] for user in contents["users"]) == sorted(f"person {n}" for n in winners)
    claimed = {row["usedByUserId"] for row in contents["crowdfunding_backers"]}
    assert claimed == contents.tables["users"].keys()


def test_twenty_who_read_and_write_one_number_lose_nothing(tmp_path: Path) -> None:
    def count(client: HttpClient, number: int) -> list[int]:
        answers = [client.call("counters:increment", {"name": "shared"}) for _ in range(25)]
        return [answer.value for answer in answers]

    with serving(APP, tmp_path / "data") as server:
        counted: list[list[int]] = at_once(server, 20, count)

        assert sorted(value for values in counted for value in values) == list(range(1, 501))
        assert all(values == sorted(values) for values in counted)
        with server.client() as client:
            assert client.call("counters:value", {"name": "shared"}, query=True).value == 500
        assert server.end() == 0
    assert [counter["value"] for counter in contents_of(server.data)["counters"]] == [500.0]


def test_a_row_with_only_the_first_fields_can_be_verified_and_claimed(tmp_path: Path) -> None:
    """As an import or a dashboard would write it: username, accessCode and tier."""
    with closing(opened(tmp_path / "data")) as backend:
        fields = {"username": "Ada Lovelace", "accessCode": "ABC-123", "tier": "Gold"}
        id = backend.transact(lambda ctx: ctx.db.insert("crowdfunding_backers", fields), [])

    with serving(CROWDFUNDING, tmp_path / "data") as server, server.client() as client:
        entered = {"username": "Ada Lovelace", "accessCode": "ABC-123"}
        verified = client.visit("crowdfundingBackers:verifyBacker", entered, "192.0.2.1").value
        assert (verified["valid"], verified["backerId"], verified["tier"]) == (True, id, "Gold")
        claim = {"crowdfundingBackerId": id, "crowdfundingBackerToken": verified["claimToken"]}
        assert client.call("users:ensureAppUser", claim, claims=person(1)).end == "done"
        assert server.end() == 0

    (row,) = contents_of(tmp_path / "data")["crowdfunding_backers"]
    assert row["usernameLower"] == "ada lovelace"
    assert row["usedByUserId"]
