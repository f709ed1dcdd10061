"""Do a million rows make a look-up or a start slower than a thousand do?"""

from __future__ import annotations

import shutil
import tempfile
from itertools import cycle
from pathlib import Path

import contenders
from backers import fill_camber, shuffled_usernames
from load import use_generator_core
from rounds import ROUNDS, load_in_turn, p50s, print_loads, print_ratio, print_table, span

SMALL, LARGE = 1_000, 1_000_000
ASKED_FOR = 50_000
ANSWER = b'"tier":"Gold"'


def main() -> None:
    use_generator_core()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        measure(folder / "small", folder / "large")
    finally:
        shutil.rmtree(folder)


def measure(small_data: Path, large_data: Path) -> None:
    application = contenders.BENCH_APPLICATION
    # Results of a thousand rows would all be kept, those of a million not: this is about the look-up itself.
    settings = {"CAMBER_CACHE_ENTRIES": "0"}
    with (
        contenders.camber(application, small_data, settings, f"{SMALL:,} rows") as small,
        contenders.camber(application, large_data, settings, f"{LARGE:,} rows") as large,
    ):
        fill_camber(small, SMALL)
        fill_camber(large, LARGE)
        requests = {
            server: cycle(
                [
                    server.function_request("backers:byUsername", {"username": name}, kind="query")
                    for name in shuffled_usernames(rows)[:ASKED_FOR]
                ]
            )
            for server, rows in ((small, SMALL), (large, LARGE))
        }
        measured = load_in_turn(requests, 1, success=ANSWER)
    print_loads("one backer by index, one connection", measured)
    print_ratio("p50 against a thousand rows", p50s(measured[large]), p50s(measured[small]), at_most=1.2)

    starts: dict[Path, list[float]] = {small_data: [], large_data: []}
    for _ in range(ROUNDS):
        for data, seconds in starts.items():
            with contenders.camber(application, data) as server:
                seconds.append(server.seconds_to_start)
    rows = {f"{SMALL:,} rows": [span(starts[small_data])], f"{LARGE:,} rows": [span(starts[large_data])]}
    print_table("start", ["seconds until it answers"], rows)
    print_ratio("start against a thousand rows", starts[large_data], starts[small_data], at_most=1.2)


if __name__ == "__main__":
    main()
