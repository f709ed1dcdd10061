"""How fast is `addBacker`, on disk before it is answered? With 64 connections, and with one, where only latency counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import contenders
from engines import SQLITE, chosen_engine
from load import request, use_generator_core
from rounds import load_in_turn, p50s, print_loads, print_rate_ratio, print_ratio

NUMBER = b"0000000000"
BACKER = {"username": f"user{NUMBER.decode()}", "accessCode": "ABC123", "tier": "Gold"}
ANSWER = b'"success":true'


def main() -> None:
    use_generator_core()
    with (
        chosen_engine() as engine,
        contenders.camber(engine=engine) as camber,
        contenders.fastapi(engine) as fastapi,
        contenders.group_commit() as floor,
    ):
        camber.run("tiers:set", {"name": "Gold", "percentOff": 10.0})  # an unknown tier would be logged each time
        fastapi.call("POST", "/tiers", {"name": "Gold", "percentOff": 10.0})
        function = camber.function_request("crowdfundingBackers:addBacker", BACKER)
        requests = {
            camber: numbered(function),
            fastapi: numbered(request("POST", "/backers", json.dumps(BACKER).encode())),
            floor: numbered(function),
        }
        many = load_in_turn(requests, 64, success=ANSWER)
        one = load_in_turn(requests, 1, success=ANSWER)

    print_loads(f"addBacker, durable, {engine.name}, 64 connections", many)
    print_rate_ratio("FastAPI", many[camber], many[fastapi], at_least=8 if engine is SQLITE else 4)
    print_rate_ratio("bare group commit", many[camber], many[floor])

    print_loads(f"addBacker, durable, {engine.name}, one connection", one)
    print_ratio("p50 against FastAPI", p50s(one[camber]), p50s(one[fastapi]), at_most=0.4 if engine is SQLITE else None)
    print_ratio("p50 against bare group commit", p50s(one[camber]), p50s(one[floor]))


def numbered(template: bytes) -> Iterator[bytes]:
    """The template's request with another number each time, as wide as the one that stands there."""
    before, after = template.split(NUMBER)
    for number in count():
        yield b"%b%010d%b" % (before, number, after)


if __name__ == "__main__":
    main()
