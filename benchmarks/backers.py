"""The backers that benchmarks fill tables with, in requests of a thousand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from contenders import Server
from load import request

ROWS_A_REQUEST = 1_000
Row = dict[str, str]


def username(number: int) -> str:
    return f"user{number:010d}"


def shuffled_usernames(count: int) -> list[str]:
    """The names of that many backers, in the same disorder each time."""
    names = [username(number) for number in range(count)]
    random.Random(1).shuffle(names)
    return names


def batches(count: int) -> Iterator[list[Row]]:
    for start in range(0, count, ROWS_A_REQUEST):
        numbers = range(start, min(start + ROWS_A_REQUEST, count))
        yield [{"username": username(number), "accessCode": "ABC123", "tier": "Gold"} for number in numbers]


def camber_inserts(server: Server, count: int) -> list[bytes]:
    """The requests that add so many backers to a Camber server of benchmarks/app."""
    return [server.function_request("backers:insertMany", {"rows": rows}, kind="mutation") for rows in batches(count)]


def fastapi_inserts(count: int) -> list[bytes]:
    """The requests that add so many backers to the FastAPI server."""
    return [request("POST", "/backers/bulk", json.dumps(rows).encode()) for rows in batches(count)]


def fill_camber(server: Server, count: int) -> None:
    for rows in batches(count):
        server.run("backers:insertMany", {"rows": rows})


def fill_fastapi(server: Server, count: int) -> None:
    for rows in batches(count):
        server.call("POST", "/backers/bulk", rows)
