"""How fast do 100,000 rows go in, a thousand in each mutation, and does memory stay flat meanwhile?"""

from __future__ import annotations

from contextlib import AbstractContextManager

import contenders
from backers import camber_inserts, fastapi_inserts
from contenders import Server
from load import use_generator_core
from rounds import ROUNDS, print_ratio, print_table, span

ROWS = 100_000
PARTS = 4  # memory is looked at after each of them


class Insertions:
    """What inserting all rows took, in each round: rows a second, and the server's memory in MiB after each part."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer = b'"success"' if name == "Camber" else b""
        self.rates: list[float] = []
        self.memories: list[list[float]] = []

    def measure(self, starting: AbstractContextManager[Server]) -> None:
        with starting as server:
            requests = camber_inserts(server, ROWS) if self.name == "Camber" else fastapi_inserts(ROWS)
            seconds, memories = 0.0, [server.memory()]
            with server.connections(1) as connection:
                for part in range(PARTS):
                    load = connection.all_of(requests[part::PARTS], success=self.answer)
                    if load.failures:
                        raise RuntimeError(f"{load.failures} requests to {server.name} failed: {load.last_failure!r}")
                    seconds += load.seconds
                    memories.append(server.memory())
        self.rates.append(ROWS / seconds)
        self.memories.append(memories)


def main() -> None:
    use_generator_core()
    camber, fastapi = Insertions("Camber"), Insertions("FastAPI")
    for _ in range(ROUNDS):
        camber.measure(contenders.camber(contenders.BENCH_APPLICATION))
        fastapi.measure(contenders.fastapi())

    columns = ["rows/s", "MiB at the start", *(f"after {ROWS * (n + 1) // PARTS:,}" for n in range(PARTS))]
    rows = {
        each.name: [span(each.rates), *(f"{max(column):.0f}" for column in zip(*each.memories, strict=True))]
        for each in (camber, fastapi)
    }
    print_table(f"{ROWS:,} rows, 1,000 in each request; memory is the most of any round", columns, rows)
    print_ratio("rows a second against FastAPI", camber.rates, fastapi.rates, at_least=0.4)


if __name__ == "__main__":
    main()
