"""Real servers and real clients for the tests on the wire; where a test fails, the server's log is shown with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.auth.issuing import data_url, ec, key_set
from tests.clients.driver import COMMANDS, Client, running_client
from tests.clients.sync_driver import NAMES, NPM_PACKAGES, SyncClient, running_sync_client
from tests.wire.running_server import REPOSITORY, RunningServer, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[RunningServer]:
    """A server of tests/wire/app that tells clients what went wrong, as in development."""
    env = {"CAMBER_DEV": "1", "CAMBER_DATABASE_URL": new_database()}
    with running_server(REPOSITORY / "tests/wire/app", tmp_path_factory.mktemp("wire") / "data", env=env) as running:
        yield running


@pytest.fixture(scope="session")
def production_server(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[RunningServer]:
    """A server of tests/wire/app as it runs in production."""
    data, env = tmp_path_factory.mktemp("production") / "data", {"CAMBER_DATABASE_URL": new_database()}
    with running_server(REPOSITORY / "tests/wire/app", data, env=env) as running:
        yield running


@pytest.fixture(scope="module")
def crowdfunding_server(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[RunningServer]:
    """A server of the crowdfunding application, with an empty database."""
    data = tmp_path_factory.mktemp("crowdfunding") / "data"
    env = {"CAMBER_DEV": "1", "CAMBER_DATABASE_URL": new_database()}
    with running_server(REPOSITORY / "apps/crowdfunding", data, env=env) as running:
        yield running


@pytest.fixture(scope="session")
def start_client(server: RunningServer) -> Iterator[Callable[[str], Client]]:
    """Gives the client of a name, signed out; its process is started when it is first asked for."""
    clients: dict[str, Client] = {}
    with ExitStack() as processes:

        def start(name: str) -> Client:
            if name not in clients:
                clients[name] = processes.enter_context(running_client(name, server.url))
            clients[name].perform("clearAuth")
            return clients[name]

        yield start


@pytest.fixture(params=list(COMMANDS))
def client(request: pytest.FixtureRequest, start_client: Callable[[str], Client]) -> Client:
    """Each of the real clients in turn."""
    return start_client(request.param)


@pytest.fixture(params=[name for name in COMMANDS if name.startswith("npm")])
def npm_client(request: pytest.FixtureRequest, start_client: Callable[[str], Client]) -> Client:
    """Each of the JavaScript clients in turn, for what the Python ones don't offer."""
    return start_client(request.param)


@pytest.fixture(scope="session")
def sync_server(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[RunningServer]:
    """A server of tests/wire/sync_app, for what goes over the socket. It takes tokens signed with `ec()`."""
    env = {"CAMBER_DEV": "1", "ISSUER_KEYS": data_url(key_set(ec())), "CAMBER_DATABASE_URL": new_database()}
    data = tmp_path_factory.mktemp("sync") / "data"
    with running_server(REPOSITORY / "tests/wire/sync_app", data, env=env) as running:
        yield running


@pytest.fixture(scope="session")
def start_sync_client() -> Iterator[Callable[[str], SyncClient]]:
    """Gives the process of the client of a name, started when it is first asked for; it is connected to nothing."""
    clients: dict[str, SyncClient] = {}
    with ExitStack() as processes:

        def start(name: str) -> SyncClient:
            if name not in clients:
                clients[name] = processes.enter_context(running_sync_client(name))
            return clients[name]

        yield start


@pytest.fixture(params=NAMES)
def sync_client(
    request: pytest.FixtureRequest, start_sync_client: Callable[[str], SyncClient], sync_server: RunningServer
) -> SyncClient:
    """Each of the real WebSocket clients in turn, new and signed out."""
    client = start_sync_client(request.param)
    client.open(sync_server.url)
    return client


@pytest.fixture(params=list(NPM_PACKAGES))
def npm_sync_client(
    request: pytest.FixtureRequest, start_sync_client: Callable[[str], SyncClient], sync_server: RunningServer
) -> SyncClient:
    """Each of the JavaScript ones in turn, for what the Python ones don't offer."""
    client = start_sync_client(request.param)
    client.open(sync_server.url)
    return client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, RunningServer):
                report.sections.append((f"log of {name}", _end_of(value.log)))
    return report


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-8_000:]
