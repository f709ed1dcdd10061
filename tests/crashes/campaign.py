"""A crowdfunding campaign under load: callers who add backers, claim them and change settings, and remember every answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.crashes.consistency import Contents, Document
from tests.crashes.ledger import Answer, Deployment, Register

WRONG_TOKEN = "not the token"
REFUSED_CODE = " "
LOST = {"unreachable", "503 ShuttingDown"}


@dataclass(eq=False)
class Slot:
    """A backer, and what may be known of the row: whether it is there, its claim token, who claimed it, and their session."""

    username: str
    code: str
    tier: str
    id: str | None = None
    token: str = ""
    is_there: Register = field(default_factory=lambda: Register(False))
    pending: Register = field(default_factory=lambda: Register(None))
    claimed_by: Register = field(default_factory=lambda: Register(None))
    session: Register = field(default_factory=lambda: Register(None))

    def person(self, number: int = 0) -> dict[str, object]:
        """The claims of somebody who may sign up with this slot."""
        subject = f"{self.username}#{number}"
        return {"issuer": "https://auth.test", "subject": subject, "email": f"{subject}@x.test", "emailVerified": True}


class Worker:
    """One caller. Nobody else touches the rows it writes, so it knows what must stand in them.

    It goes on until an answer fails to come. `surprises` are refusals it had no reason to expect.
    """

    def __init__(self, name: str, random: Random, *, sets_state: bool) -> None:
        self.name, self._random = name, random
        self.slots: list[Slot] = []
        self.added: list[Slot] = []
        self.surprises: list[str] = []
        self.done = 0
        self.percent_off = Register(None)
        self.is_active: Register | None = Register(None) if sets_state else None
        self.is_lost = False
        self.last = Answer("refused")
        self._numbers = 0

    def work(self, deployment: Deployment, stop: threading.Event, most: int | None = None) -> None:
        """Call without a pause until told to stop, or until an answer does not come, or so often."""
        self._deployment, self.is_lost = deployment, False
        calls = 0
        while not (stop.is_set() or self.is_lost or calls == most):
            calls += 1
            self._act()

    def _act(self) -> None:
        often = (self._add, self._claim)
        seldom = (
            self._add_in_vain,
            self._claim_in_vain,
            self._sign_in,
            self._set_tier,
            self._set_state,
            self._look,
        )
        self._random.choice((*often, *often, *seldom))()

    # What callers do

    def _add(self) -> None:
        earlier = [slot for slot in self.slots[-60:] if slot.code != REFUSED_CODE]
        if earlier and self._random.random() < 0.2:
            slot = self._random.choice(earlier)  # then the answer is that the backer is there already
        else:
            slot = Slot(self._new_name(), f"code {self._random.random()}", self._random.choice(["Gold", "Silver"]))
            self.slots.append(slot)
        args = {"username": slot.username, "accessCode": slot.code, "tier": slot.tier}
        answer = self._call("crowdfundingBackers:addBacker", args)
        slot.is_there.wrote(True, answer)
        if answer.end == "done":
            self._expect(slot.id in {None, answer.value["id"]}, "a backer has another id than before")
            slot.id = answer.value["id"]
            if answer.value["success"]:
                self.added.append(slot)

    def _add_in_vain(self) -> None:
        slot = Slot(self._new_name(), REFUSED_CODE, "Gold")
        args = {"username": slot.username, "accessCode": slot.code, "tier": slot.tier}
        slot.is_there.wrote(True, self._call("crowdfundingBackers:addBacker", args, expected="refused"))
        self.slots.append(slot)

    def _claim(self) -> None:
        if (slot := self._some_slot(claimed=False)) is None:
            return
        verified = self._verify(slot)
        if verified.end != "done":
            return
        person = slot.person()
        args = {"crowdfundingBackerId": slot.id, "crowdfundingBackerToken": slot.token}
        answer = self._call("users:ensureAppUser", args, claims=person)
        slot.claimed_by.wrote(person["subject"], answer)
        slot.pending.wrote(None, answer)
        self._note_session(slot, answer)

    def _claim_in_vain(self) -> None:
        slot = self._some_slot(claimed=self._random.random() < 0.5)
        if slot is None:
            return
        is_claimed = not slot.claimed_by.is_surely(None)
        args = {
            "crowdfundingBackerId": slot.id,
            "crowdfundingBackerToken": slot.token if is_claimed else WRONG_TOKEN,
        }
        person = slot.person(self._random.randrange(1, 1000))
        self._call("users:ensureAppUser", args, claims=person, expected="refused")

    def _sign_in(self) -> None:
        if (slot := self._some_slot(claimed=True)) is not None:
            # Ten sign-ins a minute are allowed, which one who signs in without a pause soon has used up.
            answer = self._call("users:ensureAppUser", {}, claims=slot.person(), expected=None)
            self._note_session(slot, answer)

    def _set_tier(self) -> None:
        percent_off = round(self._random.uniform(1, 99), 6)
        answer = self._call("tiers:set", {"name": self.name, "percentOff": percent_off})
        self.percent_off.wrote(percent_off, answer)

    def _set_state(self) -> None:
        if self.is_active is None:
            return
        active = self._random.random() < 0.5
        self.is_active.wrote(active, self._call("appState:set", {"crowdfundingActive": active}))

    def _look(self) -> None:
        """What was acknowledged is seen by the next query, whatever is cached."""
        if self.is_active is not None:
            answer = self._call("appState:get", {}, query=True)
            if answer.end == "done" and not self.is_active.is_surely(None):
                self._expect(self.is_active.is_surely(answer.value["crowdfundingActive"]), "an old state was shown")
        elif (slot := self._some_slot(claimed=True)) is not None:
            args = {"authUserId": slot.person()["subject"]}
            answer = self._call("users:getByAuthUserId", args, query=True)
            if answer.end == "done":
                self._expect(slot.session.is_surely(answer.value["activeSessionId"]), "an old session was shown")

    # The steps of the above

    def _new_name(self) -> str:
        self._numbers += 1
        return f"{self.name}-{self._numbers}"

    def _some_slot(self, *, claimed: bool) -> Slot | None:
        def fits(slot: Slot) -> bool:
            who = slot.person()["subject"] if claimed else None
            return slot.is_there.is_surely(True) and slot.claimed_by.is_surely(who)

        slots = [slot for slot in self.slots[-60:] if fits(slot)]
        return self._random.choice(slots) if slots else None

    def _verify(self, slot: Slot) -> Answer:
        args = {"username": slot.username, "accessCode": slot.code}
        address = f"192.0.2.{self._random.randrange(256)}"
        answer = self._noted(self._deployment.visit("crowdfundingBackers:verifyBacker", args, address), "verify")
        if answer.end == "done" and not answer.value["valid"]:
            self._expect(answer.value["reason"] == "rate_limited", f"verifyBacker answered {answer.value}")
            return Answer("refused", reason=answer.value["reason"])
        if answer.end == "done":
            slot.id = slot.id or answer.value["backerId"]
            slot.token = answer.value["claimToken"]
            slot.pending.wrote(slot.token, answer)
        slot.pending.wrote_something(answer)
        return answer

    def _note_session(self, slot: Slot, answer: Answer) -> None:
        if answer.end == "done":
            slot.session.wrote(answer.value["sessionId"], answer)
        slot.session.wrote_something(answer)

    def _call(self, path: str, args: dict[str, Any], *, expected: str | None = "done", **how: Any) -> Answer:
        return self._noted(self._deployment.call(path, args, **how), path, expected)

    def _noted(self, answer: Answer, what: str, expected: str | None = "done") -> Answer:
        self.last = answer
        self.is_lost = answer.end == "unknown" or answer.reason in LOST
        self.done += answer.end == "done"
        if not self.is_lost and expected is not None:
            self._expect(answer.end == expected, f"{what} {answer.end}: {answer.reason}")
        return answer

    def _expect(self, holds: bool, surprise: str) -> None:
        if not holds:
            self.surprises.append(surprise)


class Campaign:
    """Several workers, and the comparison of what they were told with what is there."""

    def __init__(self, workers: int, random: Random) -> None:
        self.workers = [
            Worker(f"caller {number}", Random(random.random()), sets_state=number == 0) for number in range(workers)
        ]
        self._last: Contents | None = None

    @property
    def done(self) -> int:
        """How many calls were answered with a result."""
        return sum(worker.done for worker in self.workers)

    @property
    def surprises(self) -> list[str]:
        """Refusals and answers that no worker had reason to expect."""
        return [surprise for worker in self.workers for surprise in worker.surprises]

    def start(
        self, deployments: Sequence[Deployment], stop: threading.Event, most: int | None = None
    ) -> list[threading.Thread]:
        """Let every worker work on its deployment, in a thread each."""
        threads = [
            threading.Thread(target=worker.work, args=(deployment, stop, most))
            for worker, deployment in zip(self.workers, deployments, strict=True)
        ]
        for thread in threads:
            thread.start()
        return threads

    def check(self, contents: Contents) -> None:
        """Everything acknowledged is there, nothing refused is, what is unknown is there wholly or not at all; times went on."""
        backers = {document["username"]: document for document in contents["crowdfunding_backers"]}
        created = {username: document["_creationTime"] for username, document in backers.items()}
        users = {document["_id"]: document for document in contents["users"]}
        tiers = {document["name"]: document["percentOff"] for document in contents["tiers"]}
        states = contents["app_state"]
        assert len(backers) == len(contents["crowdfunding_backers"])
        for worker in self.workers:
            for slot in worker.slots:
                _check_slot(slot, backers.pop(slot.username, None), users)
            times = [created[slot.username] for slot in worker.added]
            assert times == sorted(times)
            worker.percent_off.found(tiers.pop(worker.name, None), worker.name)
            if worker.is_active is not None:
                worker.is_active.found(states[0]["crowdfundingActive"] if states else None, "app_state")
        assert (backers, users, tiers) == ({}, {}, {}), "rows that nobody wrote"
        assert len(states) <= 1
        self._check_times(contents)

    def _check_times(self, contents: Contents) -> None:
        """What is new was created after all that was there at the last check."""
        if self._last is not None:
            assert contents.timestamp >= self._last.timestamp
            for table, documents in contents.tables.items():
                known = self._last.tables[table]
                new = [document["_creationTime"] for id, document in documents.items() if id not in known]
                assert all(time > self._last.creation_time for time in new)
                if new:
                    assert contents.timestamp > self._last.timestamp
        self._last = contents


def _check_slot(slot: Slot, backer: Document | None, users: dict[str, Document]) -> None:
    """The row of a slot, and the user who claimed it, who is taken out of `users`: both show the claim, or neither."""
    slot.is_there.found(backer is not None, slot.username)
    if backer is None:
        return
    written = {"username": slot.username, "usernameLower": slot.username, "accessCode": slot.code, "tier": slot.tier}
    assert {name: backer[name] for name in written} == written
    assert slot.id in {None, backer["_id"]}
    slot.id = backer["_id"]
    user = users.pop(backer["usedByUserId"]) if "usedByUserId" in backer else None
    slot.claimed_by.found(None if user is None else user["authUserId"], f"who claimed {slot.username}")
    slot.pending.found(backer.get("pendingClaimToken"), f"the claim token of {slot.username}")
    slot.session.found(None if user is None else user["activeSessionId"], f"the session of {slot.username}")
    if user is not None:
        assert user["crowdfundingBackerId"] == backer["_id"]
        assert user["email"] == f"{user['authUserId']}@x.test"
        assert not {"pendingClaimToken", "pendingClaimExpiresAt"} & backer.keys()
        assert "usedAt" in backer
