"""A deployment that takes tokens, with a clock that is held, and a provider to get them from."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from camber.auth import keys
from camber.functions import load_application, reload_application
from camber.server import create_app
from camber.server.asgi import ASGIApp
from camber.settings import Settings
from camber.testing import Backend
from tests.auth.issuing import Provider, person, rsa, running_provider
from tests.server.asking import Reply, ask, call

HERE = Path(__file__).parent
PATIENCE = 60.0
"""How long to wait for what must come."""
UNHURRIED = Settings(dev=True, query_seconds=PATIENCE, mutation_seconds=PATIENCE)
IMPORTS = "from camber import Auth, CustomJwt, Oidc\n\n"


@dataclass
class Deployment:
    """A deployment, asked over HTTP as clients do."""

    backend: Backend
    app: ASGIApp
    runner: asyncio.Runner
    folder: Path

    def ask(self, token: str, path: str = "/api/query", function: str = "people:whoami") -> Reply:
        return self.ask_all([token], path, function)[0]

    def ask_all(self, tokens: list[str], path: str = "/api/query", function: str = "people:whoami") -> list[Reply]:
        """Ask with each of these tokens at the same time."""

        async def all_at_once() -> list[Reply]:
            return await asyncio.gather(*(self.asking(token, path, function) for token in tokens))

        return self.runner.run(all_at_once())

    def who(self, token: str) -> dict[str, object]:
        """The claims of a caller who must be accepted."""
        reply = self.ask(token)
        assert (reply.status, reply.json.get("status")) == (200, "success"), reply
        return reply.json["value"]

    def settle(self, until: Callable[[], bool]) -> None:
        """Let what was begun in the background go on until this is so."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline
            self.runner.run(asyncio.sleep(0.01))

    @property
    def now(self) -> float:
        """Seconds since the epoch, as the deployment has it."""
        return self.backend.clock.now_ms / 1000

    def declare(self, identities: str) -> None:
        """Change auth.py and load the application anew."""
        (self.folder / "auth.py").write_text(f"{IMPORTS}auth = Auth(identities=[{identities}])\n")
        self.backend.engine.reload_sync(reload_application(self.folder))

    async def asking(self, token: str | None, path: str = "/api/query", function: str = "people:whoami") -> Reply:
        """One request, on the deployment's loop; without a token an anonymous one."""
        headers = {"Origin": "http://localhost:5173"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        return await ask(self.app, "POST", path, headers=headers, parts=[_body(function)])


def _body(function: str) -> bytes:
    return json.dumps(call(function)).encode()


Declaring = Callable[[str], Deployment]


@pytest.fixture(autouse=True)
def _providers_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FETCH_SECONDS", PATIENCE)


@pytest.fixture
def declaring(tmp_path: Path) -> Iterator[Declaring]:
    """Opens a deployment whose auth.py has these identities."""
    with ExitStack() as stack:

        def declare(identities: str) -> Deployment:
            folder = tmp_path / "taking_tokens"
            folder.mkdir()
            for name in ("schema.py", "people.py"):
                shutil.copy(HERE / "app" / name, folder)
            (folder / "auth.py").write_text(f"{IMPORTS}auth = Auth(identities=[{identities}])\n")
            application = load_application(folder)
            runner = stack.enter_context(asyncio.Runner())
            backend = Backend(application, now_ms=time.time() * 1000, settings=UNHURRIED)
            stack.callback(backend.close)
            return Deployment(backend, create_app(backend.engine), runner, folder)

        yield declare


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider with one RSA key."""
    with running_provider(rsa()) as running:
        yield running


@pytest.fixture
def deployment(declaring: Declaring, provider: Provider) -> Deployment:
    """A deployment that takes the provider's tokens."""
    return declaring(f"Oidc({provider.issuer!r}, 'convex')")


@pytest.fixture
def good(deployment: Deployment, provider: Provider) -> dict[str, object]:
    """The claims of a good token."""
    return person(provider.issuer, deployment.now)
