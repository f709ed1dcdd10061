"""One row that everybody adds to, over several servers: each call is answered with its result, none with a conflict, and nothing is lost.

`CAMBER_TORTURE_ROUNDS` says how much longer it takes.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crashes.ledger import Answer
from tests.faults.fleet import Fleet
from tests.faults.load import PATIENCE, rounds

CLIENTS = 50
ADDS = 10 * rounds(20)
"""How often each client adds one to the row."""

pytestmark = pytest.mark.torture


def test_all_who_add_to_one_row_are_answered_and_it_has_the_sum(fleet: Fleet) -> None:
    """Nobody made the row before: also that must be done by one, and be no conflict for the others."""
    all_are_there = threading.Barrier(CLIENTS)

    def add(number: int) -> list[Answer]:
        with fleet.client(fleet.servers[number % len(fleet.servers)]) as client:
            client.connect()
            all_are_there.wait(PATIENCE)
            return [client.call("ledger:write", one_to_the_row(number, turn)) for turn in range(ADDS)]

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = list(threads.map(add, range(CLIENTS)))

    ends = Counter((answer.end, answer.reason) for of_client in answers for answer in of_client)
    assert ends == {("done", ""): CLIENTS * ADDS}, fleet.printed
    assert [[answer.value for answer in of_client] for of_client in answers] == [list(range(1, ADDS + 1))] * CLIENTS
    for server in fleet.servers:
        with fleet.client(server) as client:
            assert client.call("ledger:balance", {"name": "the row"}, query=True).value == CLIENTS * ADDS


def one_to_the_row(client: int, turn: int) -> dict[str, object]:
    """What else is written with it is the client's own."""
    mine = f"client {client}"
    return {
        "writer": mine,
        "number": turn,
        "source": mine,
        "target": "the row",
        "amount": 1,
        "bench": mine,
        "side": "left",
    }
