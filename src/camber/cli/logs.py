"""`camber logs`: how runs of functions ended, and what they logged."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from camber.cli.printing import DIM, GREEN, RED, YELLOW, json_text, note, styled, visible
from camber.cli.remote import EndedRuns, LostConnectionError
from camber.cli.where import NOWHERE, Where, open_server
from camber.errors import ConfigurationError, RequestError

Level = Literal["debug", "log", "info", "warn", "error"]

_RANKS: Final[Mapping[str, int]] = {"DEBUG": 0, "LOG": 1, "INFO": 1, "WARN": 2, "ERROR": 3}
_STYLES: Final[Mapping[str, str]] = {"WARN": YELLOW, "ERROR": RED}
_NO_LOG: Final = "there is no log to read, because it is kept in the server's memory"
_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Which runs to print, and what of them."""

    function: str
    errors: bool
    success: bool
    least: int

    def takes(self, run: Mapping[str, Any]) -> bool:
        """Whether there is something of this run to print."""
        if not str(run["identifier"]).startswith(self.function):
            return False
        return bool(run["error"]) or (not self.errors and (self.success or any(self.lines(run))))

    def lines(self, run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The level and text of each line that is wanted."""
        for line in run["logLines"]:
            level = str(line["level"])
            if _RANKS.get(level, 1) >= self.least:
                text = " ".join(line["messages"])
                yield level, f"{text} (truncated)" if line.get("isTruncated") else text


def logs(
    *,
    history: Annotated[int, Parameter(help="How many of the runs that have ended to begin with.")] = 20,
    follow: Annotated[bool, Parameter(help="Go on with each run that ends, until Ctrl-C.", negative="")] = False,
    function: Annotated[str, Parameter(help="Only functions whose path begins so: messages, messages:list.")] = "",
    errors: Annotated[bool, Parameter(help="Only runs that failed.", negative="")] = False,
    level: Annotated[
        Level, Parameter(help="The least level of the lines to print; failures are printed in any case.")
    ] = "debug",
    success: Annotated[bool, Parameter(help="Also runs that neither logged anything nor failed.", negative="")] = False,
    jsonl: Annotated[bool, Parameter(help="Each run as a JSON object on a line, whole.", negative="")] = False,
    where: Where = NOWHERE,
) -> None:
    """Print what functions logged and how they failed.

    The log is kept in the server's memory: about the last thousand runs of
    queries, mutations and actions, until the server stops. In production it has
    the lines and errors that clients are not told. Arguments and results are
    not in it. Times are local.

    For example:

        camber logs
        camber logs --follow
        camber logs --follow --function payments --errors
        camber logs --history 1000 --success --jsonl > runs.jsonl
    """
    if history < 0:
        raise ConfigurationError(f"--history is how many runs to begin with, 0 for none, not {history}")
    if errors and success:
        raise ConfigurationError("--errors is only what failed and --success also what did not: give one of them")
    choice = _Choice(function=function, errors=errors, success=success, least=_RANKS[level.upper()])
    with open_server(where, _NO_LOG) as server:
        recent = server.ended_runs(0.0)
    wanted = [run for run in recent.entries if choice.takes(run)]
    _print(wanted[max(0, len(wanted) - history) :], choice, jsonl=jsonl)
    if follow:
        for ended in _what_comes(where, recent.cursor):
            if ended.missed:
                note("some runs are left out: more have ended than the server remembers", YELLOW)
            _print([run for run in ended.entries if choice.takes(run)], choice, jsonl=jsonl)


def _what_comes(where: Where, cursor: float) -> Iterator[EndedRuns]:
    """What ends from now on, without end. A server that goes away is looked for again: it may be starting anew, at another address."""
    pause = _PAUSE_SECONDS
    while True:
        try:
            with open_server(where, _NO_LOG) as server:
                while True:
                    ended = server.ended_runs(cursor)
                    cursor, pause = ended.cursor, _PAUSE_SECONDS
                    yield ended
        except (LostConnectionError, RequestError) as error:
            if isinstance(error, RequestError) and error.status < 500:
                raise
            if pause == _PAUSE_SECONDS:
                note(f"the server does not answer any more: {error}. Waiting for it to come back.", YELLOW)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _print(runs: list[dict[str, Any]], choice: _Choice, *, jsonl: bool) -> None:
    for run in runs:
        if jsonl:
            print(json_text(run))
        else:
            _print_for_people(run, choice)
    sys.stdout.flush()


def _print_for_people(run: Mapping[str, Any], choice: _Choice) -> None:
    when = datetime.fromtimestamp(run["timestamp"])  # noqa: DTZ006  local, as the person's clock
    head = styled(
        f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1_000:03} {str(run['udfType']).lower()} {visible(str(run['identifier']))}",
        DIM,
        sys.stdout,
    )
    for level, text in choice.lines(run):
        print(head, styled(visible(f"[{level}] {text}"), _STYLES.get(level, ""), sys.stdout))
    took = f"{run['executionTime'] * 1_000:,.1f} ms"
    if run["error"]:
        failure = f"failed after {took} (request {run['requestId']}): {run['error']}"
        print(head, styled(visible(failure), RED, sys.stdout))
    elif choice.success:
        print(head, styled(f"ok, {took}", GREEN, sys.stdout))
