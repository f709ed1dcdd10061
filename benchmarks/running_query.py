"""How fast is a query that must run: one of 100,000 backers by index, each asked for in turn, so that no cache can help?"""

from __future__ import annotations

from itertools import cycle

import contenders
from backers import fill_camber, fill_fastapi, shuffled_usernames
from engines import SQLITE, chosen_engine
from load import request, use_generator_core
from rounds import load_in_turn, print_loads, print_rate_ratio

ROWS, CONNECTIONS = 100_000, 16
ANSWER = b'"tier":"Gold"'


def main() -> None:
    use_generator_core()
    names = shuffled_usernames(ROWS)
    with (
        chosen_engine() as engine,
        contenders.camber(contenders.BENCH_APPLICATION, engine=engine) as camber,
        contenders.fastapi(engine) as fastapi,
    ):
        fill_camber(camber, ROWS)
        fill_fastapi(fastapi, ROWS)
        requests = {
            camber: cycle(
                [camber.function_request("backers:byUsername", {"username": n}, kind="query") for n in names]
            ),
            fastapi: cycle([request("GET", f"/backers/{name}") for name in names]),
        }
        measured = load_in_turn(requests, CONNECTIONS, success=ANSWER)

    print_loads(f"random backers by index, {engine.name}, {ROWS:,} rows, {CONNECTIONS} connections", measured)
    print_rate_ratio("FastAPI", measured[camber], measured[fastapi], at_least=5 if engine is SQLITE else 2)


if __name__ == "__main__":
    main()
