"""Loads servers in turn, round after round, and prints what came of it: medians, spans, and the ratio of each round.

The rounds alternate (A B C, A B C, ...), so that whatever else the machine does falls on all of them; a ratio is taken
within a round, and then its median over the rounds. BENCH_ROUNDS and BENCH_SECONDS change how many and how long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from statistics import median

from contenders import Server
from load import Load
from rich.console import Console
from rich.table import Table

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
WARM_UP_SECONDS = 1.0

Measured = dict[Server, list[Load]]
console = Console(width=120, highlight=False)


def load_in_turn(requests: Mapping[Server, bytes | Iterator[bytes]], connections: int, *, success: bytes) -> Measured:
    """Load each server once a round with its own requests. A failed answer ends it: then it measured something else."""
    for server, sent in requests.items():
        with server.connections(connections) as open_connections:
            open_connections.for_seconds(WARM_UP_SECONDS, sent)
    measured: Measured = {server: [] for server in requests}
    for _ in range(ROUNDS):
        for server, sent in requests.items():
            # New connections each time: servers close those that rest while it is the others' turn.
            with server.connections(connections) as open_connections:
                load = open_connections.for_seconds(SECONDS, sent, success=success)
            if load.failures:
                raise RuntimeError(f"{load.failures} requests to {server.name} failed: {load.last_failure!r}")
            measured[server].append(load)
    return measured


def p50s(loads: list[Load]) -> list[float]:
    """The median latency in each round, in milliseconds."""
    return [load.percentile(50) for load in loads]


def print_loads(title: str, measured: Measured) -> None:
    """Rates, latencies and CPU time of each server: median (least - most)."""
    readings: dict[str, Callable[[Load], float]] = {
        "requests/s": lambda load: load.rate,
        "p50 ms": lambda load: load.percentile(50),
        "p99 ms": lambda load: load.percentile(99),
        "server CPU ms/request": lambda load: load.cpu_ms,
    }
    if any(server.engine.cluster for server in measured):
        readings["PostgreSQL CPU ms/request"] = lambda load: load.database_cpu_ms
    rows = {
        server.name: [span([reading(load) for load in loads]) for reading in readings.values()]
        for server, loads in measured.items()
    }
    print_table(title, list(readings), rows)


def print_table(title: str, columns: list[str], rows: Mapping[str, list[str]]) -> None:
    """A table with a server in each row."""
    table = Table("", *columns, title=title, title_justify="left", title_style="bold")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)


def print_ratio(
    label: str, ours: list[float], theirs: list[float], *, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Ours as so many times theirs: the median over the rounds, each round, and whether that meets the goal."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    goal = ""
    if at_least is not None:
        goal = f"   goal >= {at_least}: {'met' if median(ratios) >= at_least else 'MISSED'}"
    if at_most is not None:
        goal = f"   goal <= {at_most}: {'met' if median(ratios) <= at_most else 'MISSED'}"
    each = " ".join(f"{ratio:.3g}" for ratio in ratios)
    console.print(f"{label}: [bold]{median(ratios):.3g}[/bold]   (by round: {each}){goal}")


def print_rate_ratio(against: str, ours: list[Load], theirs: list[Load], *, at_least: float | None = None) -> None:
    """Our rate as so many times theirs. Beside it the rate that CPU time alone would allow: where the two differ much, the
    load generator or the disk was the limit, or the machine was busy with something else."""
    rates = ([load.rate for load in loads] for loads in (ours, theirs))
    print_ratio(f"rate against {against}", *rates, at_least=at_least)
    per_cpu_second = ([1000 / load.cpu_ms for load in loads] for loads in (ours, theirs))
    print_ratio(f"    per second of CPU, against {against}", *per_cpu_second)


def print_times_slower(label: str, calm: list[Load], contended: list[Load], *, at_most: float | None) -> None:
    """How many times the rate is lower where requests are in each other's way."""
    print_ratio(label, [load.rate for load in calm], [load.rate for load in contended], at_most=at_most)


def span(values: list[float]) -> str:
    """`median (least - most)`."""
    return f"{_short(median(values))} ({_short(min(values))} - {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
