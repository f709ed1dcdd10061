"""How much memory does an idle subscriber take, beyond what its connection takes under bare uvicorn? And how much CPU time?

New servers each round: memory that was in use once is not given back. After a while of rest Camber's keep-alive messages are on
their way too, and what they leave behind counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import contenders
from contenders import Server
from flip import FIRST, Contender, broadcast_of, camber_state
from load import cpu_seconds, use_generator_core
from rounds import ROUNDS, console, print_table, span
from subscribers import SUBSCRIBERS, Audience, allow_sockets, camber_settings

SECONDS_OF_REST = 25.0
MESSAGE = b'{"crowdfundingActive":true}'
GOAL_KIB = 8.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What the subscribers of one server take while nothing happens."""

    kib_each: float
    cpu_percent: float


def main() -> None:
    use_generator_core()
    allow_sockets()
    camber: list[Idle] = []
    bare: list[Idle] = []
    for _ in range(ROUNDS):
        with contenders.camber(settings=camber_settings()) as server:
            camber.append(idle(camber_state(server)))
        with contenders.bare_broadcast() as server:
            bare.append(idle(broadcast_of(server, MESSAGE)))

    rows = {
        name: [span([each.kib_each for each in measured]), span([each.cpu_percent for each in measured])]
        for name, measured in (("Camber", camber), ("bare uvicorn", bare))
    }
    print_table(f"{SUBSCRIBERS:,} idle subscribers", ["resident KiB each", "server CPU, percent of a core"], rows)
    beyond = [ours.kib_each - theirs.kib_each for ours, theirs in zip(camber, bare, strict=True)]
    met = "met" if max(beyond) <= GOAL_KIB else "MISSED"
    console.print(f"KiB beyond bare uvicorn: [bold]{span(beyond)}[/bold]   goal <= {GOAL_KIB:g}: {met}")


def idle(contender: Contender) -> Idle:
    """All come, get their first value, and then nothing happens."""
    server: Server = contender.server
    with Audience(
        server, contender.path, contender.opening, FIRST, count=8
    ) as audience:  # whatever it loads at first use
        audience.rest(1.0)
    memory_before = server.memory()
    with Audience(server, contender.path, contender.opening, FIRST) as audience:
        audience.rest(2.0)
        cpu_before = cpu_seconds(server.pid)
        audience.rest(SECONDS_OF_REST)
        spent = cpu_seconds(server.pid) - cpu_before
        kib_each = (server.memory() - memory_before) * 1024 / SUBSCRIBERS
    return Idle(kib_each, spent / SECONDS_OF_REST * 100)


if __name__ == "__main__":
    main()
