"""A row that everybody watches is changed: how long until the last of 5,000 subscribers has it?

Camber against a bare broadcast under the same server, against FastAPI with topics written by hand, and against raw uvloop. Each
flip begins when everybody has the former one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from time import perf_counter

import contenders
from contenders import Server
from load import cpu_seconds, request, use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span
from subscribers import (
    SUBSCRIBERS,
    Audience,
    Opening,
    Writer,
    allow_sockets,
    camber_opening,
    camber_settings,
    topic_opening,
)

FLIPS, FIRST_FLIPS = 20, 3
FIRST = b'"crowdfundingActive":'


@dataclass(frozen=True, slots=True)
class Contender:
    """A server, how one subscribes to its state, and the two requests that change it."""

    server: Server
    path: str
    opening: Opening
    changes: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a server measured: median of the flips, and its CPU time for each."""

    milliseconds: float
    cpu_ms: float
    message: bytes


def main() -> None:
    use_generator_core()
    allow_sockets()
    with (
        contenders.camber(settings=camber_settings()) as camber,
        contenders.bare_broadcast() as bare,
        contenders.fastapi_topics() as fastapi,
        contenders.raw_broadcast() as raw,
    ):
        ours = camber_state(camber)
        message = turn(ours).message
        others = [broadcast_of(bare, message), fastapi_state(fastapi), broadcast_of(raw, message)]
        for rival in others:
            turn(rival)
        turns: dict[Server, list[Turn]] = {contender.server: [] for contender in (ours, *others)}
        for _ in range(ROUNDS):
            for contender in (ours, *others):
                turns[contender.server].append(turn(contender))

    rows = {
        server.name: [
            span([each.milliseconds for each in measured]),
            span([each.cpu_ms for each in measured]),
            str(len(measured[0].message)),
        ]
        for server, measured in turns.items()
    }
    columns = ["ms until the last has it", "server CPU ms/flip", "bytes of each message"]
    print_table(f"a flip, {SUBSCRIBERS:,} subscribers", columns, rows)
    times = {server: [each.milliseconds for each in measured] for server, measured in turns.items()}
    print_ratio("time against bare uvicorn", times[camber], times[bare], at_most=1.25)
    print_ratio("time against FastAPI with topics", times[camber], times[fastapi], at_most=1.0)
    print_ratio("time against raw uvloop", times[camber], times[raw])


def camber_state(server: Server) -> Contender:
    """The state of the crowdfunding application, which the operator changes."""
    changes = both(lambda on: server.function_request("appState:set", {"crowdfundingActive": on}))
    return Contender(server, "/api/sync", camber_opening("appState:get"), changes)


def fastapi_state(server: Server) -> Contender:
    """The same in the rival's application."""
    changes = both(lambda on: request("POST", "/app-state", json.dumps({"crowdfundingActive": on}).encode()))
    return Contender(server, "/live", topic_opening("app-state"), changes)


def broadcast_of(server: Server, message: bytes) -> Contender:
    """A server that sends whatever it is given: the message that Camber sent, so that all move as many bytes."""
    changes = both(lambda on: request("POST", "/", message.replace(state(not on), state(on))))
    return Contender(server, "/", topic_opening("app-state"), changes)


def both(change: Callable[[bool], bytes]) -> tuple[bytes, bytes]:
    return change(True), change(False)


def state(on: bool) -> bytes:
    return FIRST + json.dumps(on).encode()


def turn(contender: Contender) -> Turn:
    """New subscribers, and so many flips in front of them."""
    server = contender.server
    turn_on, turn_off = contender.changes
    flips = cycle([(turn_on, state(True)), (turn_off, state(False))])
    with Writer(server) as writer:
        writer.write(turn_off)
    with Audience(server, contender.path, contender.opening, state(False)) as audience, Writer(server) as writer:
        for _ in range(FIRST_FLIPS):
            flip(audience, writer, *next(flips))
        cpu_before = cpu_seconds(server.pid)
        seconds = [flip(audience, writer, *next(flips)) for _ in range(FLIPS)]
        spent = cpu_seconds(server.pid) - cpu_before
        audience.rest(0.2)
        return Turn(median(seconds) * 1000, spent / FLIPS * 1000, audience.latest)


def flip(audience: Audience, writer: Writer, change: bytes, expected: bytes) -> float:
    """Seconds from the request until the last subscriber has what it changed."""
    begun = perf_counter()
    writer.send(change)
    audience.wait_until_all_have(expected)
    seconds = perf_counter() - begun
    writer.answer()
    return seconds


if __name__ == "__main__":
    main()
