"""How fast is `appState:get` while nothing changes? Against FastAPI, and against bare uvicorn, which answers a constant."""

from __future__ import annotations

import contenders
from load import request, use_generator_core
from rounds import load_in_turn, print_loads, print_rate_ratio

ANSWER = b'"crowdfundingActive":true'


def main() -> None:
    use_generator_core()
    with contenders.camber() as camber, contenders.fastapi() as fastapi, contenders.bare() as bare:
        camber.run("appState:set", {"crowdfundingActive": True})
        fastapi.call("PUT", "/app-state", {"crowdfundingActive": True})
        get_state = camber.function_request("appState:get", {}, kind="query")
        requests = {camber: get_state, fastapi: request("GET", "/app-state"), bare: get_state}

        for connections in (16, 64):
            measured = load_in_turn(requests, connections, success=ANSWER)
            print_loads(f"appState:get, unchanged, {connections} connections", measured)
            print_rate_ratio("FastAPI", measured[camber], measured[fastapi], at_least=10)
            print_rate_ratio("bare uvicorn", measured[camber], measured[bare], at_least=0.45)


if __name__ == "__main__":
    main()
