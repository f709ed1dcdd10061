"""Twenty clients at once, each on any server at any time: what they were told could have come about one after another.

Half of them call over HTTP, half over sockets; they give up, come back elsewhere and ask again. Everything that they were told is one
history, which the checker judges. `CAMBER_TORTURE_ROUNDS` says how long they go on, `CAMBER_TORTURE_SEED` where their choices begin.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.crashes.servers import Server, serving
from tests.serializability.checker import check
from tests.serializability.clients import HttpCaller, SocketCaller
from tests.serializability.workload import Workload
from tests.wire.raw_client import adding, raw_client
from tests.wire.running_server import REPOSITORY

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "4"))
SEED = int(os.environ.get("CAMBER_TORTURE_SEED", "1"))
CLIENTS = 20
TRANSACTIONS_OF_A_ROUND = 200
SECONDS_OF_A_ROUND = 60.0
"""So long it may take at most."""
APP = REPOSITORY / "tests/serializability/app"


@pytest.mark.torture
def test_one_server_on_sqlite_gives_serializable_histories(tmp_path: Path) -> None:
    with servers(1, tmp_path, {}) as running:
        judge(running, Random(SEED))


@pytest.mark.torture
def test_three_servers_on_postgresql_give_serializable_histories(tmp_path: Path, postgres_url: str) -> None:
    with servers(3, tmp_path, {"CAMBER_DATABASE_URL": postgres_url}) as running:
        judge(running, Random(SEED))


@contextmanager
def servers(count: int, folder: Path, env: Mapping[str, str]) -> Iterator[list[Server]]:
    """So many servers of the application, ready; the first one alone makes the tables."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving(APP, folder / f"data {number}", env=env)) for number in range(count)]


def judge(running: list[Server], random: Random) -> None:
    """Have clients work on these servers, and judge what they were told."""
    workload = Workload(random)
    try:
        asyncio.run(play(workload, [f"http://127.0.0.1:{server.port}" for server in running], random))
        assert not workload.check_numbers()
        wrong = check(workload.history)
        assert not wrong, "\n\n".join(str(anomaly) for anomaly in wrong[:20])
    except BaseException:
        said = "\n".join(server.printed[-3000:] for server in running)
        print(f"CAMBER_TORTURE_SEED={SEED}; the servers said:\n{said}")  # noqa: T201
        raise
    count = Counter(transaction.outcome.value for transaction in workload.history)
    print(f"{len(workload.history)} transactions in {workload.epochs} epochs: {dict(count)}")  # noqa: T201
    assert count["done"] > TRANSACTIONS_OF_A_ROUND // 2 * ROUNDS
    assert min(count["refused"], count["unknown"]) > 0
    for server in running:
        assert server.end(signal.SIGTERM) == 0
        assert not [line for line in server.printed.splitlines() if is_trouble(line)]


async def play(workload: Workload, urls: list[str], random: Random) -> None:
    """Let clients work for some rounds, and then read all there is, on every server."""
    reader = HttpCaller(workload, urls, "the reader", Random(random.random()))
    await reader.run(workload.opening())
    callers = [
        kind(workload, urls, f"{kind.__name__} {number}", Random(random.random()))
        for kind in (HttpCaller, SocketCaller)
        for number in range(CLIENTS // 2)
    ]
    try:
        async with asyncio.timeout(ROUNDS * SECONDS_OF_A_ROUND), asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.work(ROUNDS * TRANSACTIONS_OF_A_ROUND))
        for epoch in range(workload.epochs):
            await reader.run(workload.everything(epoch))
    finally:
        for caller in (*callers, reader):
            await caller.close()


def is_trouble(line: str) -> bool:
    """Whether this line of the log tells of more than a function that failed."""
    try:
        event = json.loads(line)
    except ValueError:
        return True
    return event["level"] in {"warning", "error", "critical"} and event["event"] != "a function failed"


def test_what_one_server_acknowledged_the_others_show_at_once(tmp_path: Path, postgres_url: str) -> None:
    """Also where they have kept a result of the same query, over HTTP and to new watchers."""
    look: dict[str, Any] = {"steps": [{"do": "list", "key": "one"}]}
    with servers(2, tmp_path, {"CAMBER_DATABASE_URL": postgres_url}) as running, ExitStack() as stack:
        https = [stack.enter_context(server.client()) for server in running]
        for number in range(30):
            step = {"do": "append", "key": "one", "tag": f"v{number}"}
            answer = https[number % 2].call("steps:run", {"steps": [step]})
            assert answer.end == "done", answer
            expected = [[f"v{each}" for each in range(number + 1)]]
            other = running[1 - number % 2]
            assert [https[1 - number % 2].call("steps:look", look, query=True).value for _ in range(2)] == [
                expected
            ] * 2
            with raw_client(f"http://127.0.0.1:{other.port}") as client:
                client.connect()
                client.modify(adding(1, "steps:look", **look))
                client.hear_transition()
                assert client.values == {1: expected}
