"""How many groups of mutations does a database commit in a second, and how large are they: by servers, by connections, and with a standby?

The groups of all servers are committed one after another, so this is what a deployment on PostgreSQL has to share out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import contenders
from accounts import Bank, any_account
from contenders import Server
from engines import Engine, postgres, postgres_with_standby
from load import Load, use_generator_core
from rounds import ROUNDS, SECONDS, WARM_UP_SECONDS, print_ratio, print_table, span

SERVERS = (1, 3)
CONNECTIONS = (1, 64, 256)


@dataclass
class Round:
    """What one round of load committed."""

    load: Load
    groups: int

    @property
    def groups_a_second(self) -> float:
        return self.groups / self.load.seconds

    @property
    def mutations_a_group(self) -> float:
        return self.load.requests / self.groups


class Deployment:
    """Some servers on one database, and the additions to accounts that they are asked for."""

    def __init__(self, engine: Engine, servers: int, stack: ExitStack) -> None:
        assert engine.cluster
        self.name = f"{servers} server{'s' if servers > 1 else ''}, {engine.name}"
        self.cluster, self.database = engine.cluster, engine.new_database()
        self.server: Server = stack.enter_context(
            contenders.cambers(servers, contenders.BENCH_APPLICATION, self.name, engine=engine, database=self.database)
        )
        self.bank = Bank(self.server)
        self.requests: Iterator[bytes] = self.bank.deposits(any_account())

    def load(self, connections: int) -> Round:
        before = self._log("SELECT coalesce(max(timestamp), 0) FROM camber.commits")
        with self.server.connections(connections) as open_connections:
            load = open_connections.for_seconds(SECONDS, self.requests, success=b"true")
        if load.failures:
            raise RuntimeError(f"{load.failures} requests to {self.name} failed: {load.last_failure!r}")
        # The log has one row for each group; those of the last minute are kept.
        return Round(load, self._log("SELECT count(*) FROM camber.commits WHERE timestamp > %s", before))

    def warm_up(self) -> None:
        with self.server.connections(max(CONNECTIONS)) as open_connections:
            open_connections.for_seconds(WARM_UP_SECONDS, self.requests)

    def _log(self, question: str, *values: int) -> int:
        ((value,),) = self.cluster.sql(question, values, url=self.database)
        return value


def main() -> None:
    use_generator_core()
    with ExitStack() as stack:
        engines = [stack.enter_context(postgres()), stack.enter_context(postgres_with_standby())]
        deployments = [Deployment(engine, servers, stack) for engine in engines for servers in SERVERS]
        for deployment in deployments:
            deployment.warm_up()
        measured: dict[tuple[int, str], list[Round]] = {}
        for _ in range(ROUNDS):
            for connections in CONNECTIONS:
                for deployment in deployments:
                    measured.setdefault((connections, deployment.name), []).append(deployment.load(connections))
        for deployment in deployments:
            deployment.bank.check()

    readings: dict[str, Callable[[Round], float]] = {
        "groups/s": lambda round: round.groups_a_second,
        "mutations/group": lambda round: round.mutations_a_group,
        "mutations/s": lambda round: round.load.rate,
        "p50 ms": lambda round: round.load.percentile(50),
        "PostgreSQL CPU ms/mutation": lambda round: round.load.database_cpu_ms,
    }
    for connections in CONNECTIONS:
        rows = {
            deployment.name: [
                span([reading(each) for each in measured[connections, deployment.name]])
                for reading in readings.values()
            ]
            for deployment in deployments
        }
        print_table(f"groups, PostgreSQL, {connections} connections", list(readings), rows)
    first, *others = [deployment.name for deployment in deployments]
    for connections in CONNECTIONS:
        for name in others:
            print_ratio(
                f"{connections} connections: mutations a second, {name} against {first}",
                *([each.load.rate for each in measured[connections, which]] for which in (name, first)),
            )


if __name__ == "__main__":
    main()
