"""50 clients of three servers add to one row: does a call fail, and how much slower is it than if each took any of many rows?"""

from __future__ import annotations

from dataclasses import replace

import contenders
from accounts import Bank, any_account, hot_account
from engines import postgres
from load import use_generator_core
from rounds import load_in_turn, print_loads, print_times_slower

SERVERS, CLIENTS = 3, 50


def main() -> None:
    use_generator_core()
    with (
        postgres() as engine,
        contenders.cambers(SERVERS, contenders.BENCH_APPLICATION, "Camber", engine=engine) as camber,
        contenders.fastapis(SERVERS, "FastAPI", engine=engine) as fastapi,
    ):
        banks = [Bank(camber), Bank(fastapi)]
        spread = {bank.server: bank.deposits(any_account()) for bank in banks}
        hot = {
            replace(bank.server, name=f"{bank.server.name}, one row"): bank.deposits(hot_account()) for bank in banks
        }
        measured = load_in_turn(spread | hot, CLIENTS, success=b"true")
        for bank in banks:
            bank.check()

    print_loads(f"additions to an account, PostgreSQL, {SERVERS} servers, {CLIENTS} connections", measured)
    for (many, one), goal in zip(zip(spread, hot, strict=True), (3.0, None), strict=True):
        print_times_slower(
            f"{many.name}: on many rows so many times the rate", measured[many], measured[one], at_most=goal
        )


if __name__ == "__main__":
    main()
