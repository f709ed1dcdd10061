"""How much memory does an idle server with the crowdfunding application hold?"""

from __future__ import annotations

import time

import contenders
from rounds import ROUNDS, print_table, span

SECONDS_OF_REST = 5.0
GOAL_MIB = 100


def main() -> None:
    resident: list[float] = []
    for _ in range(ROUNDS):
        with contenders.camber() as server:
            server.run("appState:get", {})
            time.sleep(SECONDS_OF_REST)
            resident.append(server.memory())
    met = "met" if max(resident) <= GOAL_MIB else "MISSED"
    print_table("an idle server", ["resident MiB", f"goal <= {GOAL_MIB}"], {"Camber": [span(resident), met]})


if __name__ == "__main__":
    main()
