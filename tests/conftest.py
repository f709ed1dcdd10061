"""What holds for all tests: the caller's environment does not steer Camber or Convex's command line, and which engine a test is on.

Most of what is stored behaves the same on both engines, and is tested on both: what is listed here once on SQLite and once on PostgreSQL,
everything else on SQLite. `pytest --engine postgres` or `--engine sqlite` leaves out the other one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

from camber.settings import TEST_DATABASE_VARIABLE
from camber.testing.databases import give_back_database, take_database
from tests.postgres.cluster import Cluster

ENGINES = ["sqlite", "postgres"]

ON_BOTH_ENGINES = [
    "apps/*",
    "client/test_auth.py",
    "client/test_client.py",
    "client/test_reconnecting.py",
    "database/*",
    "functions/test_backend.py",
    "functions/test_closing.py",
    "functions/test_environment.py",
    "functions/test_failures.py",
    "functions/test_held_snapshots.py",
    "functions/test_limits.py",
    "functions/test_live.py",
    "functions/test_overload.py",
    "functions/test_repeated_requests.py",
    "functions/test_shared_runs.py",
    "functions/test_system_functions.py",
    "server/test_calls.py",
    "server/test_operator.py",
    "storage/contract/*",
    "sync/test_live_truth.py",
    "testing/test_kit.py",
    "testing/test_watching.py",
    "vectors/test_mutations.py",
    "vectors/test_ordering.py",
    "vectors/test_queries.py",
    "wire/test_http_clients.py",
    "wire/test_npx_convex_logs.py",
    "wire/test_npx_convex_run.py",
    "wire/test_npx_convex_socket.py",
    "wire/test_react_hooks.py",
    "wire/test_sign_in_with_tokens.py",
    "wire/test_sync_clients.py",
    "wire/test_sync_protocol.py",
    "wire/test_sync_tokens.py",
]
# Clients notice nothing of the engine, so on PostgreSQL it is the newest of each kind.
ONLY_ON_SQLITE = {"npm 1.31.6", "npm 1.17.4", "pypi 0.7"}

TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINES, help="run what is tested on both engines on this one only")


def pytest_configure(config: pytest.Config) -> None:
    # A busy machine is no failure.
    examples.register_profile("any pace", examples(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    examples.load_profile("any pace")
    config.addinivalue_line("markers", "sqlite_only(why): what this claims is so on SQLite only")
    for name in list(os.environ):
        if name.startswith(("CAMBER_", "CONVEX_")) and not name.startswith("CAMBER_TORTURE"):
            del os.environ[name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on its engines; the names of those that have only one don't tell of it."""
    if is_on_both(metafunc.definition):
        metafunc.parametrize("engine", ENGINES, indirect=True, scope="session")
    else:
        only_sqlite = pytest.param("sqlite", id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("engine", [only_sqlite], indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("engine")
    left_out = {item for item in items if not is_wanted(item, chosen)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def is_on_both(item: pytest.Item) -> bool:
    """Whether this is tested on both engines."""
    if item.get_closest_marker("sqlite_only") is not None:
        return False
    place = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
    return any(place.match(pattern) for pattern in ON_BOTH_ENGINES)


def is_wanted(item: pytest.Item, chosen: str | None) -> bool:
    """Whether this is run where one engine was chosen, or none."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return True
    values = item.callspec.params
    if values.get("engine") == "postgres" and not ONLY_ON_SQLITE.isdisjoint(
        value for value in values.values() if isinstance(value, str)
    ):
        return False
    return chosen is None or not is_on_both(item) or values.get("engine") == chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let captured output travel between the workers of pytest-xdist, whatever a test made the engine log."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine that a test is on, `sqlite` or `postgres`; backends of the test kit are on it by themselves.

    Fixtures that last longer than a test and keep something stored need this one, so that they end with their engine.
    """
    if getattr(request, "param", "sqlite") == "sqlite":
        yield "sqlite"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TEST_DATABASE_VARIABLE, cluster.url())
        yield "postgres"


@pytest.fixture(scope="session")
def new_database(engine: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Gives the URL of another empty database each time, for CAMBER_DATABASE_URL; on SQLite an empty text. All are gone at the end."""
    if engine == "sqlite":
        yield str
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    urls: list[str] = []

    def make() -> str:
        urls.append(cluster.new_database())
        return urls[-1]

    yield make
    for url in urls:
        cluster.drop_database(url)


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database without anything of Camber's for this test; on SQLite an empty text."""
    if engine == "sqlite":
        yield ""
        return
    url = take_database(request.getfixturevalue("postgres").url())
    yield url
    give_back_database(url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL that many tests share, each with databases of its own. A test that stops or kills one starts its own `Cluster`."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """The URL of an empty database, which is gone after the test."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)
