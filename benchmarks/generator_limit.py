"""How many requests a second can the load generator make? A server whose rate comes near this is faster than measured."""

from __future__ import annotations

import contenders
from load import use_generator_core
from rounds import load_in_turn, print_loads


def main() -> None:
    use_generator_core()
    with contenders.constant_server() as server:
        requests = {server: server.function_request("appState:get", {}, kind="query")}
        for connections in (1, 16, 64):
            print_loads(f"{connections} connections", load_in_turn(requests, connections, success=b"success"))


if __name__ == "__main__":
    main()
