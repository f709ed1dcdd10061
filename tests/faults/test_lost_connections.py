"""One server's way to PostgreSQL is cut, or swallows everything, at each step of what a server does there.

Nothing acknowledged is lost and nobody is told anything false; the other servers go on after some seconds, and the server itself
once it is heard again. `CAMBER_TORTURE_ROUNDS` says how often, `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.load import IS_LONG, SEED, load_on, only_long, rounds
from tests.postgres.cluster import Cluster
from tests.postgres.proxy import Connection, End, Proxy, Strike

STEPS = {
    "a reader's BEGIN": "READ ONLY;",
    "a writer's BEGIN": "REPEATABLE READ; SELECT",
    "a read": "SELECT id, ct, doc",
    "the lock": "pg_advisory_xact_lock",
    "the lock beforehand": "SELECT pg_advisory_lock",
    "the unlock": "pg_advisory_unlock",
    "the look at the log under the lock": "FROM commits WHERE timestamp > ",
    "the look at the log": "FROM commits WHERE timestamp >= ",
    "an update": "UPDATE t",
    "an insert": "INSERT INTO t",
    "a delete": "DELETE FROM t",
    "the giving up of unique keys": "= NULL WHERE id = ANY(",
    "the log row": "INSERT INTO commits",
    "COMMIT": "COMMIT",
    "the look for a COMMIT that took effect": "SELECT token FROM commits",
    "the look for one that did not": "SELECT token FROM commits",
    "the empty commit behind it": "INSERT INTO commits",
    "the bell": "NOTIFY",
    "the sharing of a snapshot": "pg_export_snapshot",
    "the BEGIN of who shares it": "SET TRANSACTION SNAPSHOT",
}
IN_DOUBT = {
    "the look for a COMMIT that took effect": [("after", "COMMIT")],
    "the look for one that did not": [("before", "COMMIT")],
    "the empty commit behind it": [("after", "COMMIT"), ("after", "SELECT token FROM commits")],
}
"""Steps that are taken where a COMMIT's connection is cut, and by what it is known that they are the next."""
SECONDS_TO_GO_ON = 30.0
"""Within which the others must write again: a lock whose holder is silent is given up after some seconds."""
SECONDS_TO_COME_BACK = 60.0

pytestmark = pytest.mark.torture

Act = Callable[[Connection], object]


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def fleet(database: str, proxy: Proxy, tmp_path: Path) -> Iterator[Fleet]:
    """Servers of which the first reaches PostgreSQL by way of the proxy."""
    with Fleet(tmp_path, [proxy.url(database), database, database]) as fleet:
        yield fleet


def strike(proxy: Proxy, step: str, moment: str, act: Act, *, skip: int) -> bool:
    """Have it happen at that step; False if it was not taken within some seconds."""
    has_happened = threading.Event()
    placed: list[Strike] = []

    def place(at: list[tuple[str, str]], skip: int) -> None:
        (moment, text), *then = at

        def go_on(connection: Connection) -> None:
            if not then:
                act(connection)
                has_happened.set()
                return
            place(then, 0)
            if text == "COMMIT":
                connection.cut()

        placed.append((proxy.before if moment == "before" else proxy.after)(text, go_on, skip=skip))

    place([*IN_DOUBT.get(step, []), (moment, STEPS[step])], skip)
    try:
        return has_happened.wait(30.0)
    finally:
        for each in placed:
            each.cancel()


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        pytest.param("before", (), id="before, for both"),
        pytest.param("after", (), id="after, for both", marks=only_long),
        pytest.param("before", ("client",), id="before, for the server alone", marks=only_long),
        pytest.param("after", ("client",), id="after, for the server alone"),
    ],
)
def test_a_connection_is_cut(proxy: Proxy, fleet: Fleet, moment: str, ends: tuple[End, ...]) -> None:
    """Alone: PostgreSQL does not notice, as where a machine has lost its network; it ends the transaction after a while."""
    random = Random(SEED)
    struck: set[str] = set()
    steps = list(STEPS) if IS_LONG or not ends else ["the lock", "COMMIT", "the look for a COMMIT that took effect"]
    with load_on(fleet) as load:
        load.let_each_writer_stay()
        for _ in range(rounds(20)):
            for step in random.sample(steps, len(steps)):
                if strike(proxy, step, moment, lambda connection: connection.cut(*ends), skip=random.randrange(4)):
                    struck.add(step)
                writes = 3 if IS_LONG else 1
                others = load.wait_for_writes(writes, of=fleet.servers[1:], seconds=SECONDS_TO_GO_ON)
                took = load.wait_for_writes(writes, of=fleet.servers[:1], seconds=SECONDS_TO_COME_BACK)
                print(f"cut {moment} {step}: others after {others:.1f} s, itself after {took:.1f} s")  # noqa: T201
    assert struck == set(steps)


@pytest.mark.parametrize(
    ("moment", "step"),
    [(moment, step) for moment in ("before", "after") for step in STEPS]
    if IS_LONG
    else [("before", "COMMIT"), ("after", "the lock")],
)
def test_the_way_swallows_everything(proxy: Proxy, fleet: Fleet, moment: str, step: str) -> None:
    """From one moment on nothing comes through, of any connection, in any direction; later it all does."""
    random = Random(SEED)
    struck = 0
    with load_on(fleet) as load:
        load.ledger.is_silent = True
        load.let_each_writer_stay()
        for _ in range(rounds(5)):
            struck += strike(proxy, step, moment, lambda _: proxy.stall(), skip=random.randrange(4))
            try:
                began = time.monotonic()
                load.wait_for_writes(10, of=fleet.servers[1:], seconds=SECONDS_TO_GO_ON)
                went_on = time.monotonic() - began
                time.sleep(random.choice([0.0, 3.0, 12.0, 25.0] if IS_LONG else [0.0, 3.0]))
            finally:
                proxy.resume()
            came_back = load.wait_for_writes(3, of=fleet.servers[:1], seconds=SECONDS_TO_COME_BACK)
            print(f"stalled {moment} {step}: others after {went_on:.1f} s, itself after {came_back:.1f} s")  # noqa: T201
    assert struck
