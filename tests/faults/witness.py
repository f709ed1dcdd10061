"""Live clients that write, watch and come back to any server, and the comparison of all that they were shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.crashes.servers import Server
from tests.faults.fleet import Fleet
from tests.faults.ledger import ACCOUNTS, Ledger, State, Write
from tests.sync.chatter import Chatter, Seen, World, come_back
from tests.sync.model import Question
from tests.wire.raw_client import number

PATIENCE = 90.0
"""Seconds for which a live client goes on trying to reach any server."""


class Witness(Chatter):
    """A live client: each connection may lead to another server. It watches all accounts, and what some writers wrote."""

    def __init__(self, fleet: Fleet, ledger: Ledger, name: str, writers: Sequence[str], random: Random) -> None:
        super().__init__(World("", fleet.admin_key), name, random)
        self.ledger, self._fleet, self._writers = ledger, fleet, writers
        self._writes: dict[int, Write] = {}
        self.done = 0
        self.only: Server | None = None
        """The one server that it comes to, if it shall come to no other."""

    async def live(self, stop: asyncio.Event) -> None:
        """Write, and come back after every loss, until told to stop."""
        if not self.questions:
            for question in _questions(self._writers):
                await self.watch(question)
        while not stop.is_set():
            await self.be_there()
            if len(self.unanswered) < 3:
                write = self.ledger.new_write(self.name, self.random)
                self._writes[write.number] = write
                await self.ask("ledger:write", write.args)
            if self.random.random() < 0.02:
                await self.go(rudely=self.random.random() < 0.5)
            await asyncio.sleep(self.random.choice([0.005, 0.02, 0.1]))

    async def be_there(self) -> None:
        """Connect, unless it is."""
        await come_back(self, asyncio.get_running_loop().time() + PATIENCE)

    async def come(self) -> None:
        server = self.only or self._fleet.any(self.random)
        self.world.url = f"http://127.0.0.1:{server.port}"
        await super().come()

    def _note(self, message: dict[str, Any]) -> None:
        request = self.unanswered.pop(message["requestId"], None)
        if request is None:
            self._fault(f"was answered twice: {message}")
            return
        write = self._writes.pop(request.args["number"])
        write.end = "done" if message["success"] else "refused"
        if not message["success"]:
            taken_back = write.refuse and message.get("errorData") == "refused"
            expected = taken_back or self.ledger.may_be_for_silence(message["result"])
            self._expect(expected, f"refused: {message}")
            self._expect(message["ts"] is None, "a refusal has a timestamp")
            return
        self._expect(not write.refuse, f"was not refused: {message}")
        at = number(message["ts"])
        if request.sent == 1:
            # The answer to a repeated request has the timestamp of the state in which it was found to be done.
            write.at = at
            self._expect(number(self._version["ts"]) < at, f"{write.key} of {at} was shown before it was answered")
        self.done += 1
        self.newest = max(self.newest, at)
        self.answered_at = max(self.answered_at, at)
        self.is_up_to_date = False

    def is_behind(self, state: State) -> str | None:
        """What it does not hold as it is in this state, which is the newest."""
        if self.unanswered:
            return f"{self.name} waits for answers to {list(self.unanswered)}"
        if not self.is_up_to_date:
            return f"{self.name} is not told of all it asked for"
        for query, question in self.questions.items():
            if query not in self.held or self.held[query].value != _answer(question, state):
                return f"{self.name} holds {self.held.get(query)} for {question.path} {question.args}"
        return None


class Sightings:
    """Everything that live clients were shown, in the order of its timestamps."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._numbers: dict[str, tuple[int, set[float]]] = {}

    def forget(self) -> None:
        """What was seen so far has been undone."""
        self._numbers.clear()

    def check(self, witnesses: Sequence[Witness]) -> int:
        """Compare what was seen since the last time with itself and the ledger; returns how many transitions that were."""
        for witness in witnesses:
            self._ledger.faults += witness.world.faults
            witness.world.faults.clear()
        all_seen = sorted((seen for witness in witnesses for seen in witness.world.seen), key=lambda seen: seen.at)
        for witness in witnesses:
            witness.world.seen.clear()
        at, values = -1, dict[str, Any]()
        for seen in all_seen:
            if seen.at != at:
                at, values = seen.at, {}
            self._check_one(seen, values)
        return len(all_seen)

    def _check_one(self, seen: Seen, values: dict[str, Any]) -> None:
        """`values` are what others were shown at the same timestamp."""
        expect, where = self._ledger.expect, f"{seen.client} at {seen.at}"
        numbers: dict[str, list[float]] = {}
        tallies: dict[str, float] = {}
        balances: dict[str, float] = {}
        together: dict[str, float] | None = None
        for question, _, told in seen.held:
            name = f"{question.path} {question.args}"
            if told.failed:
                self._ledger.faults.append(f"{where}: {name} failed with {told.value}")
                continue
            expect(values.setdefault(name, told.value) == told.value, f"{where}: {name} had two values at once")
            match question.path:
                case "ledger:numbers":
                    numbers[question.args["writer"]] = told.value
                case "ledger:tally":
                    tallies[question.args["writer"]] = told.value
                case "ledger:balance":
                    balances[question.args["name"]] = told.value
                case "ledger:taken":
                    self._ledger.check_seats(told.value, where)
                case _:
                    together = told.value
        for writer, found in numbers.items():
            self._check_numbers(writer, found, seen, where)
            expect(tallies.get(writer, len(found)) == len(found), f"{where}: {writer} has {tallies}, {found}")
        if together is not None:
            expect(sum(together.values()) == 0, f"{where}: the accounts come to {together}")
        if together is not None and len(balances) == len(ACCOUNTS):
            expect(balances == dict.fromkeys(ACCOUNTS, 0) | together, f"{where}: {balances} and {together}")

    def _check_numbers(self, writer: str, found: list[float], seen: Seen, where: str) -> None:
        """All that was acknowledged up to that timestamp, nothing that was later, and never less than at an earlier one."""
        acknowledged = [write for write in self._ledger.writes.get(writer, []) if write.end == "done" and write.at]
        must = [write.number for write in acknowledged if write.at is not None and write.at <= seen.at]
        self._ledger.check_numbers(writer, found, must, where)
        early = [write.number for write in acknowledged if write.number in found and (write.at or 0) > seen.at]
        self._ledger.expect(not early, f"{where}: {early} of {writer} were shown before their time")
        before_at, before = self._numbers.get(writer, (0, set[float]()))
        if seen.at >= before_at:
            gone = before - set(found)
            self._ledger.expect(not gone, f"{where}: {gone} of {writer} were shown at {before_at} and are gone")
            self._numbers[writer] = seen.at, set(found)


def _questions(writers: Sequence[str]) -> list[Question]:
    questions = [Question("ledger:balances", {}), Question("ledger:taken", {})]
    questions += [Question("ledger:balance", {"name": name}) for name in ACCOUNTS]
    for writer in writers:
        questions += [Question("ledger:numbers", {"writer": writer}), Question("ledger:tally", {"writer": writer})]
    return questions


def _answer(question: Question, state: State) -> Any:
    match question.path:
        case "ledger:numbers":
            return [entry[1] for entry in state.entries if entry[0] == question.args["writer"]]
        case "ledger:tally":
            return state.tallies.get(question.args["writer"], 0)
        case "ledger:balance":
            return state.balances.get(question.args["name"], 0)
        case "ledger:taken":
            return state.taken
        case _:
            return dict(state.balances)
