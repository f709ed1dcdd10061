"""Transfers between random accounts: how much slower are they where four of five touch one hot account?

On one server, where one writer runs all mutations, and on three, whose transactions are in each other's way.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import contenders
from accounts import Bank
from engines import postgres
from load import use_generator_core
from rounds import load_in_turn, print_loads, print_times_slower

CONNECTIONS = 64
SHARE_OF_HOT = 0.8


def main() -> None:
    use_generator_core()
    for servers in (1, 3):
        measure(servers)


def measure(servers: int) -> None:
    with postgres() as engine, ExitStack() as stack:
        deployments = [
            stack.enter_context(contenders.cambers(servers, contenders.BENCH_APPLICATION, "Camber", engine=engine)),
            stack.enter_context(contenders.fastapis(servers, "FastAPI", engine=engine)),
        ]
        banks = [Bank(server) for server in deployments]
        spread = {bank.server: bank.transfers(0.0) for bank in banks}
        hot = {replace(bank.server, name=f"{bank.server.name}, hot"): bank.transfers(SHARE_OF_HOT) for bank in banks}
        measured = load_in_turn(spread | hot, CONNECTIONS, success=b"true")
        for bank in banks:
            bank.check()

    print_loads(f"transfers, PostgreSQL, servers: {servers}, {CONNECTIONS} connections", measured)
    for (calm, contended), goal in zip(zip(spread, hot, strict=True), (3.0, None), strict=True):
        label = f"{calm.name}: without a hot account so many times the rate"
        print_times_slower(label, measured[calm], measured[contended], at_most=goal)


if __name__ == "__main__":
    main()
