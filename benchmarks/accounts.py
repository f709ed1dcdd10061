"""The accounts that benchmarks move money between, the requests that do so, and the check that none of it is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from contenders import Server
from load import request

ACCOUNTS = 10_000
HOT = 0
BALANCE = 1_000_000.0
_A_REQUEST = 1_000

Choose = Callable[[], int]


class Bank:
    """The accounts of one deployment. It counts what it hands out, so that the total is known at the end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._is_camber = bool(server.admin_key)
        self._deposited = 0
        if self._is_camber:
            for first in range(0, ACCOUNTS, _A_REQUEST):
                server.run("accounts:open", {"first": first, "count": _A_REQUEST, "balance": BALANCE})
        else:
            server.call("POST", "/accounts", {"count": ACCOUNTS, "balance": BALANCE})

    def deposits(self, choose: Choose) -> Iterator[bytes]:
        """Requests that put 1 on an account each."""
        while True:
            self._deposited += 1
            yield self._request("deposit", {"number": choose(), "amount": 1})

    def transfers(self, share_of_hot: float) -> Iterator[bytes]:
        """Requests that move 1 between two accounts; the hot one gives or takes in this share of them."""
        dice = random.Random(1)
        while True:
            source, target = dice.sample(range(1, ACCOUNTS), 2)
            if dice.random() < share_of_hot:
                source, target = (HOT, target) if dice.random() < 0.5 else (source, HOT)
            yield self._request("transfer", {"source": source, "target": target, "amount": 1})

    def check(self) -> None:
        """Raises if money has come from nowhere or is gone."""
        server, expected = self.server, ACCOUNTS * BALANCE + self._deposited
        found = server.run("accounts:total", {}) if self._is_camber else server.call("GET", "/accounts/total")
        if found != expected:
            raise RuntimeError(f"{server.name}: {found:,.0f} on all accounts together, where {expected:,.0f} should be")

    def _request(self, name: str, args: dict[str, int]) -> bytes:
        if self._is_camber:
            return self.server.function_request(f"accounts:{name}", args, kind="mutation")
        return request("POST", f"/{name}s", json.dumps(args).encode())


def any_account() -> Choose:
    """Each account as likely as the others."""
    dice = random.Random(2)
    return lambda: dice.randrange(ACCOUNTS)


def hot_account() -> Choose:
    """Always the same one."""
    return lambda: HOT
