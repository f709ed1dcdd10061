"""After a restart everybody is back at once: how long until 5,000 clients have connected and have a first value?

The value has changed since it was last asked for, so it must be read anew: Camber must do that once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import contenders
from contenders import Server
from flip import FIRST, Contender, broadcast_of, camber_state, fastapi_state
from load import cpu_seconds, use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span
from subscribers import SUBSCRIBERS, Audience, Writer, allow_sockets, camber_settings

MESSAGE = b'{"crowdfundingActive":true}'


@dataclass(frozen=True, slots=True)
class Storm:
    """What one storm measured."""

    seconds: float
    cpu_ms: float


def main() -> None:
    use_generator_core()
    allow_sockets()
    runs: list[int] = []
    with (
        contenders.camber(contenders.BENCH_APPLICATION, settings=camber_settings()) as camber,
        contenders.fastapi_topics() as fastapi,
        contenders.bare_broadcast() as bare,
        contenders.raw_broadcast() as raw,
    ):
        rivals = [fastapi_state(fastapi), broadcast_of(bare, MESSAGE), broadcast_of(raw, MESSAGE)]
        contestants = [camber_state(camber), *rivals]
        storms: dict[Server, list[Storm]] = {each.server: [] for each in contestants}
        for number in range(ROUNDS + 1):
            for contender in contestants:
                runs_before = runs_of(camber)
                storms[contender.server].append(storm(contender, number))
                if contender.server is camber:
                    runs.append(runs_of(camber) - runs_before)

    measured = {server: each[1:] for server, each in storms.items()}  # the first round warms up
    rows = {
        server.name: [span([each.seconds for each in storms]), span([each.cpu_ms for each in storms])]
        for server, storms in measured.items()
    }
    columns = ["seconds until all have a value", "server CPU ms/client"]
    print_table(f"{SUBSCRIBERS:,} clients at once", columns, rows)
    times = {server: [each.seconds for each in storms] for server, storms in measured.items()}
    print_ratio("FastAPI with topics takes longer", times[fastapi], times[camber], at_least=2.5)
    print_ratio("bare uvicorn takes longer", times[bare], times[camber])
    print(f"runs of Camber's query in each storm: {', '.join(map(str, runs))}")
    if set(runs) != {1}:
        raise RuntimeError("the query should have run once in each storm")


def storm(contender: Contender, number: int) -> Storm:
    """The state changes, and then all come."""
    server = contender.server
    with Writer(server) as writer:
        writer.write(contender.changes[number % 2])
    cpu_before = cpu_seconds(server.pid)
    with Audience(server, contender.path, contender.opening, FIRST) as audience:
        spent = cpu_seconds(server.pid) - cpu_before
        return Storm(audience.seconds_to_first_values, spent / SUBSCRIBERS * 1000)


def runs_of(camber: Server) -> int:
    """How often the query has run since the server started."""
    return int(camber.run("appState:runs", {}))


if __name__ == "__main__":
    main()
