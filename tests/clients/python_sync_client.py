"""Drives PyPI's ConvexClient over the WebSocket for the tests: python python_sync_client.py

Operations and outcomes are lines of JSON as in python_http_client.py. Results of subscriptions are written down in one
list in their order, which `events` hands out; a result that is the same as the one before is left out, since this client
brings all of them with each transition. Its blocking calls stop every thread until they are done, so subscriptions are
followed in an event loop, and there is one call at a time, made after its operation is answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from convex import ConvexClient, ConvexError
from convex.values import convex_to_json, json_to_convex


class Driver:
    """One client at a time, its subscriptions, and the last call."""

    def __init__(self) -> None:
        self._client: Any = None
        self._events: list[dict[str, Any]] = []
        self._subscriptions: dict[str, Any] = {}
        self._outcomes: dict[str, Callable[[], Any]] = {}
        self._loop = asyncio.new_event_loop()
        self.next_call: Callable[[], None] | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def perform(self, operation: dict[str, Any]) -> Any:
        match operation:
            case {"call": "open", "url": url}:
                self._client = ConvexClient(url)
                self._events, self._subscriptions = [], {}
            case {"call": "close"}:
                self._client, self._subscriptions = None, {}
            case {"call": "subscribe", "as": name, "path": path}:
                subscription = self._client.subscribe(path, json_to_convex(operation.get("args", {})))
                following = asyncio.run_coroutine_threadsafe(_follow(subscription, name, self._events), self._loop)
                self._subscriptions[name] = subscription, following
            case {"call": "unsubscribe", "as": name}:
                subscription, following = self._subscriptions.pop(name)
                # Not asked for its next result any more: asking would subscribe anew.
                following.cancel()
                subscription.unsubscribe()
            case {"call": "start", "what": what, "as": name, "path": path}:
                self.next_call = lambda: self._call(name, getattr(self._client, what), path, operation.get("args", {}))
            case {"call": "finish", "as": name}:
                return self._outcomes.pop(name)()
            case {"call": "events", "after": after, "seconds": seconds}:
                return self._events_after(int(after), seconds)
            case {"call": "setAuth", "tokens": [token, *_]}:
                self._client.set_auth(token)
            case {"call": "setAdminAuth", "token": token}:
                self._client.set_admin_auth(token)
            case {"call": "clearAuth"}:
                self._client.clear_auth()
            case _:
                raise ValueError(f"this driver does not know the call {operation}")
        return None

    def _call(self, name: str, call: Callable[[str, Any], Any], path: str, args: Any) -> None:
        try:
            value = convex_to_json(call(path, json_to_convex(args)))
            self._outcomes[name] = lambda: value
        except Exception as error:  # noqa: BLE001 - whatever the client raises is its answer
            self._outcomes[name] = lambda error=error: _raise(error)

    def _events_after(self, after: int, seconds: float) -> list[dict[str, Any]]:
        end = time.monotonic() + seconds
        while len(self._events) <= after:
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for something to happen")
            time.sleep(0.005)
        return self._events[after:]


async def _follow(subscription: Any, name: str, events: list[dict[str, Any]]) -> None:
    last: dict[str, Any] = {}
    while not subscription.invalidated:
        try:
            event = {"kind": "value", "as": name, "value": convex_to_json(await anext(subscription))}
        except Exception as error:  # noqa: BLE001 - a failed query; the subscription goes on
            event = {"kind": "error", "as": name, "error": _described(error)}
        if event != last:
            events.append(event)
            last = event


def _raise(error: Exception) -> None:
    raise error


def _described(error: BaseException) -> dict[str, Any]:
    data = {"data": convex_to_json(error.data)} if isinstance(error, ConvexError) else {}
    return {"message": str(error), **data}


class Printed:
    """What the client prints, log lines of functions among it: kept apart from the driver's own lines."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        os.dup2(self._file.fileno(), 1)
        self._read = 0

    def new_lines(self) -> list[str]:
        sys.stdout.flush()
        new = os.pread(self._file.fileno(), 1 << 20, self._read)
        self._read += len(new)
        return new.decode(errors="replace").splitlines()


def main() -> None:
    printed = Printed()
    driver = Driver()
    for line in sys.stdin:
        # The package's decoder takes no int: in this encoding every bare number is a float.
        try:
            outcome = {"value": driver.perform(json.loads(line, parse_int=float))}
        except Exception as error:  # noqa: BLE001 - whatever the client raises is its answer
            outcome = {"error": _described(error)}
        printed.answers.write(json.dumps({**outcome, "logs": printed.new_lines()}) + "\n")
        printed.answers.flush()
        if driver.next_call:
            call, driver.next_call = driver.next_call, None
            call()
    # The client's own threads would go on trying to connect.
    os._exit(0)


main()
