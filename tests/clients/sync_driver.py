"""Convex's own WebSocket clients as the tests use them: each in a process of its own, told what to do and asked what it saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tests.clients.driver import HERE, IS_INSTALLED, PYTHON_07, REPOSITORY, Outcome

SECONDS = 60.0
"""How long a client may take for anything: the machine may be slow, a client that hangs must not hang the tests."""

Event = dict[str, Any]


class DrivenProcess:
    """A process that takes operations as lines of JSON and answers each with a line."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.printed: list[str] = []
        """What the client has printed so far."""
        self._process = process

    def perform(self, call: str, **details: object) -> Outcome:
        """Carry out one operation, see sync_client.mjs."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"call": call, **details}) + "\n")
        self._process.stdin.flush()
        with _limited(self._process):
            line = self._process.stdout.readline()
        assert line, f"{self.name} ended during {call}; what it printed is above"
        answer = json.loads(line)
        self.printed += answer["logs"]
        error = answer.get("error", {})
        return Outcome(answer.get("value"), error.get("message"), error.get("data"), "data" in error, answer["logs"])

    def tell(self, call: str, **details: object) -> Any:
        """Carry out an operation that must succeed; returns its value."""
        outcome = self.perform(call, **details)
        assert outcome.error is None, f"{self.name}: {call}: {outcome.error}; printed: {outcome.logs}"
        return outcome.value

    def events(self, after: int = 0) -> list[Event]:
        """All that happened so far, from the one with this number on."""
        return self._events(after, seconds=0) or []

    def until(self, happened: Callable[[list[Event]], object]) -> list[Event]:
        """Wait until what happened, taken together, is as it should be; returns it."""
        events: list[Event] = []
        while not happened(events):
            more = self._events(len(events), seconds=SECONDS)
            assert more, f"{self.name} waited in vain; it saw:\n" + "\n".join(map(repr, events))
            events += more
        return events

    def _events(self, after: int, *, seconds: float) -> list[Event] | None:
        return self.perform("events", after=after, seconds=seconds).value


class SyncClient(DrivenProcess):
    """A ConvexClient of one version."""

    def open(self, url: str, **options: object) -> None:
        """Begin anew: a client that has seen nothing."""
        self.tell("open", url=url, options=options)

    def subscribe(self, path: str, args: Mapping[str, object] | None = None, *, name: str = "") -> None:
        self.tell("subscribe", path=path, args=args or {}, **{"as": name or path})

    def unsubscribe(self, name: str) -> None:
        self.tell("unsubscribe", **{"as": name})

    def seen(self, name: str) -> list[Event]:
        """The results that a subscription has brought so far, failures among them."""
        return of_subscription(self.events(), name)

    def wait_for(self, name: str, value: object) -> list[Event]:
        """Wait until a subscription shows this value; returns all that it brought up to then."""
        return of_subscription(self.until(lambda events: _last(events, name).get("value", ...) == value), name)

    def wait_for_error(self, name: str) -> Event:
        """Wait until a subscription shows a failure; returns it."""
        return _last(self.until(lambda events: "error" in _last(events, name)), name)["error"]

    def query(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.call("query", path, args)

    def mutation(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.call("mutation", path, args)

    def action(self, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        return self.call("action", path, args)

    def call(self, what: str, path: str, args: Mapping[str, object] | None = None) -> Outcome:
        self.start(what, path, args, name="the call")
        return self.finish("the call")

    def start(
        self, what: str, path: str, args: Mapping[str, object] | None = None, *, name: str, shows: object = None
    ) -> None:
        """Begin a call without waiting for its end. `shows`: what a mutation's optimistic update does."""
        optimism = {} if shows is None else {"shows": shows}
        self.tell("start", what=what, path=path, args=args or {}, **{"as": name}, **optimism)

    def finish(self, name: str) -> Outcome:
        """Wait for the end of a call that was begun."""
        return self.perform("finish", seconds=SECONDS, **{"as": name})


def of_subscription(events: list[Event], name: str) -> list[Event]:
    """Those of these events that are results of this subscription."""
    return [event for event in events if event["kind"] in {"value", "error"} and event["as"] == name]


def _last(events: list[Event], name: str) -> Event:
    return next(iter(of_subscription(events[::-1], name)), {})


@contextmanager
def _limited(process: subprocess.Popen[str]) -> Iterator[None]:
    timer = threading.Timer(SECONDS * 2, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


NPM_PACKAGES = {
    # By its path: the newest one stands in another folder than react and its like.
    "npm newest": str(REPOSITORY / "node_modules/convex"),
    "npm 1.31.6": "convex-1.31.6",
    "npm 1.17.4": "convex-1.17.4",
}
NAMES = [*NPM_PACKAGES, "pypi newest", "pypi 0.7"]


@contextmanager
def running_sync_client(name: str) -> Iterator[SyncClient]:
    """The WebSocket client of this name (see NAMES), ended when the block is left."""
    if name in NPM_PACKAGES:
        command = [_node(), str(HERE / "node/sync_client.mjs"), NPM_PACKAGES[name]]
    else:
        command = [sys.executable, str(HERE / "python_sync_client.py")]
    with _running(name, command) as process:
        yield SyncClient(name, process)


@contextmanager
def running_screen(name: str, url: str) -> Iterator[DrivenProcess]:
    """A screen that shows what a server says by the React hooks of this version (see NPM_PACKAGES)."""
    with _running(name, [_node(), str(HERE / "node/react_client.mjs"), NPM_PACKAGES[name], url]) as process:
        yield DrivenProcess(name, process)


@contextmanager
def _running(name: str, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    needed = IS_INSTALLED.get(name)
    assert needed is None or needed.exists(), f"{needed} is not there: run scripts/setup first"
    environment = dict(os.environ) | {"NODE_PATH": str(HERE / "node/node_modules")}
    if name == "pypi 0.7":
        environment["PYTHONPATH"] = str(PYTHON_07)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
            assert process.stdin
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # one that waits for a server that is gone does not notice
                process.wait(5)
        finally:
            process.kill()


def _node() -> str:
    return shutil.which("node") or "node"
