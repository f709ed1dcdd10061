"""Does whoever writes wait longer for the answer when 5,000 subscribers watch what is written?

Two Camber servers take turns with every write, one with subscribers, one without, each after a short rest. The answer is read
before any subscriber is, so that the load generator's own work does not count.
"""

from __future__ import annotations

import time
from itertools import cycle
from statistics import median
from time import perf_counter

import contenders
from flip import camber_state, state
from load import use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span
from subscribers import SUBSCRIBERS, Audience, Writer, allow_sockets, camber_settings

WRITES, FIRST_WRITES = 60, 4
SECONDS_OF_REST = 0.02


def main() -> None:
    use_generator_core()
    allow_sockets()
    watched_times: list[float] = []
    alone_times: list[float] = []
    with (
        contenders.camber(settings=camber_settings()) as watched,
        contenders.camber(settings=camber_settings(), name="no subscribers") as alone,
    ):
        ours = camber_state(watched)
        changes = {server: camber_state(server).changes for server in (watched, alone)}
        for server, (_, turn_off) in changes.items():
            with Writer(server) as writer:
                writer.write(turn_off)
        turns = cycle([(0, state(True)), (1, state(False))])
        with (
            Audience(watched, ours.path, ours.opening, state(False)) as audience,
            Writer(watched) as watched_writer,
            Writer(alone) as alone_writer,
        ):
            for number in range(ROUNDS + 1):  # the first round warms up and is left out
                answered: list[float] = []
                answered_alone: list[float] = []
                for _ in range(WRITES if number else FIRST_WRITES):
                    which, expected = next(turns)
                    answered.append(seconds_to_answer(watched_writer, changes[watched][which]))
                    audience.wait_until_all_have(expected)
                    answered_alone.append(seconds_to_answer(alone_writer, changes[alone][which]))
                if number:
                    watched_times.append(median(answered) * 1000)
                    alone_times.append(median(answered_alone) * 1000)

    rows = {f"{SUBSCRIBERS:,} subscribers": [span(watched_times)], "none": [span(alone_times)]}
    print_table("the answer to who writes what all watch", ["p50 ms"], rows)
    print_ratio("p50 against nobody watching", watched_times, alone_times, at_most=1.2)


def seconds_to_answer(writer: Writer, change: bytes) -> float:
    time.sleep(SECONDS_OF_REST)
    begun = perf_counter()
    writer.write(change)
    return perf_counter() - begun


if __name__ == "__main__":
    main()
