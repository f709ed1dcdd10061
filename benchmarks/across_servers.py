"""A write on one server until a subscriber of another has it: how much longer does it take than on one server?"""

from __future__ import annotations

from statistics import median, quantiles
from time import perf_counter

import contenders
from contenders import Server
from engines import postgres
from flip import Contender, camber_state, state
from load import use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span
from subscribers import Audience, Writer

WRITES, FIRST_WRITES = 100, 10


def main() -> None:
    use_generator_core()
    with (
        postgres() as engine,
        contenders.cambers(1, contenders.CROWDFUNDING, "one server", engine=engine) as one,
        contenders.cambers(2, contenders.CROWDFUNDING, "another server", engine=engine) as two,
    ):
        times: dict[Server, list[list[float]]] = {one: [], two: []}
        # The first round warms up and is left out.
        for _ in range(ROUNDS + 1):
            for server, rounds in times.items():
                watched = server.others[0] if server.others else server
                rounds.append(milliseconds_until_there(server, watched))

    p50s = {server: [median(each) for each in rounds[1:]] for server, rounds in times.items()}
    p99s = {server: [quantiles(each, n=100)[98] for each in rounds[1:]] for server, rounds in times.items()}
    rows = {f"subscriber of {server.name}": [span(p50s[server]), span(p99s[server])] for server in times}
    print_table("a write until its subscriber has it, PostgreSQL", ["p50 ms", "p99 ms"], rows)
    print_ratio("p50 against one server", p50s[two], p50s[one], at_most=3.0)


def milliseconds_until_there(written: Server, watched: Server) -> list[float]:
    """One write after another, each as soon as the subscriber has the one before and the writer its answer."""
    contender: Contender = camber_state(written)
    turn_on, turn_off = contender.changes
    times: list[float] = []
    with Writer(written) as writer:
        writer.write(turn_off)
        with Audience(watched, contender.path, contender.opening, state(False), count=1) as audience:
            for number in range(FIRST_WRITES + WRITES):
                is_on = number % 2 == 0
                begun = perf_counter()
                writer.send(turn_on if is_on else turn_off)
                audience.wait_until_all_have(state(is_on))
                times.append((perf_counter() - begun) * 1000)
                writer.answer()
    return times[FIRST_WRITES:]


if __name__ == "__main__":
    main()
