"""How fast is `appState:get` while nothing changes? Against FastAPI, and against bare uvicorn, which answers a constant."""

from __future__ import annotations

import contenders
from engines import SQLITE, chosen_engine
from load import request, use_generator_core
from rounds import load_in_turn, print_loads, print_rate_ratio

ANSWER = b'"crowdfundingActive":true'


def main() -> None:
    use_generator_core()
    with (
        chosen_engine() as engine,
        contenders.camber(engine=engine) as camber,
        contenders.fastapi(engine) as fastapi,
        contenders.bare() as bare,
    ):
        camber.run("appState:set", {"crowdfundingActive": True})
        fastapi.call("PUT", "/app-state", {"crowdfundingActive": True})
        get_state = camber.function_request("appState:get", {}, kind="query")
        requests = {camber: get_state, fastapi: request("GET", "/app-state"), bare: get_state}

        for connections in (16, 64):
            measured = load_in_turn(requests, connections, success=ANSWER)
            print_loads(f"appState:get, unchanged, {engine.name}, {connections} connections", measured)
            fast, bare_part = (10, 0.45) if engine is SQLITE else (5, None)
            print_rate_ratio("FastAPI", measured[camber], measured[fastapi], at_least=fast)
            print_rate_ratio("bare uvicorn", measured[camber], measured[bare], at_least=bare_part)


if __name__ == "__main__":
    main()
