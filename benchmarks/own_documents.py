"""Does it cost more to write a document that one subscriber watches when thousands watch documents of their own?

Two Camber servers with the same backers: on one 5,000 subscribers watch a backer each, on the other a single one does. The same
backer is written again and again, each time after its subscriber has the former tier; nobody else may be sent anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import contenders
from backers import fill_camber, username
from contenders import Server
from load import cpu_seconds, use_generator_core
from rounds import ROUNDS, SECONDS, print_ratio, print_table, span
from subscribers import SUBSCRIBERS, Audience, Writer, allow_sockets, camber_opening, camber_settings

FIRST_WRITES = 100
WRITTEN = 0  # the number of the backer, and of its subscriber


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a server measured."""

    writes: int
    cpu_ms: float
    milliseconds: float


def main() -> None:
    use_generator_core()
    allow_sockets()
    application, settings = contenders.BENCH_APPLICATION, camber_settings()
    with (
        contenders.camber(application, settings=settings, name=f"{SUBSCRIBERS:,} subscribers") as many,
        contenders.camber(application, settings=settings, name="one subscriber") as one,
    ):
        subscribers = {many: SUBSCRIBERS, one: 1}
        tiers = {server: new_tiers() for server in subscribers}
        turns: dict[Server, list[Turn]] = {server: [] for server in subscribers}
        for server in subscribers:
            fill_camber(server, SUBSCRIBERS)
        for _ in range(ROUNDS):
            for server, measured in turns.items():
                measured.append(turn(server, subscribers[server], tiers[server]))

    rows = {
        server.name: [
            span([each.cpu_ms for each in measured]),
            span([each.milliseconds for each in measured]),
            f"{sum(each.writes for each in measured):,}",
        ]
        for server, measured in turns.items()
    }
    print_table(
        "writing one document, each subscriber on its own",
        ["server CPU ms/write", "ms until its subscriber has it", "writes"],
        rows,
    )
    cpu = {server: [each.cpu_ms for each in measured] for server, measured in turns.items()}
    print_ratio("CPU against one subscriber", cpu[many], cpu[one], at_most=1.15)


def turn(server: Server, subscribers: int, tiers: Iterator[str]) -> Turn:
    """New subscribers, and writes for a while. A message to anybody but the one whose document it is raises."""
    opening = camber_opening("backers:byUsername", lambda number: {"username": username(number)})
    with (
        Audience(server, "/api/sync", opening, b'"tier":', count=subscribers) as audience,
        Writer(server) as writer,
    ):
        for _ in range(FIRST_WRITES):
            write(server, audience, writer, next(tiers))
        cpu_before, begun, writes = cpu_seconds(server.pid), perf_counter(), 0
        while perf_counter() - begun < SECONDS:
            write(server, audience, writer, next(tiers))
            writes += 1
        seconds, spent = perf_counter() - begun, cpu_seconds(server.pid) - cpu_before
        audience.rest(0.5)
    return Turn(writes, spent / writes * 1000, seconds / writes * 1000)


def write(server: Server, audience: Audience, writer: Writer, tier: str) -> None:
    change = {"username": username(WRITTEN), "tier": tier}
    writer.send(server.function_request("backers:setTier", change, kind="mutation"))
    audience.wait_until_all_have(f'"tier":"{tier}"'.encode(), [WRITTEN])
    writer.answer()


def new_tiers() -> Iterator[str]:
    return (f"Gold {number}" for number in count())


if __name__ == "__main__":
    main()
