"""The React example as visitors have it: built, served as files, shown by Chromium, and talking to a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.example import EXAMPLE, SECONDS, Example, Visit, serving_files
from tests.wire.loose_wire import LooseWire, loose_wire
from tests.wire.running_server import RunningServer, clean_environment, running_server

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
# Nothing here leaves this machine, and containers run tests as root.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def wire() -> Iterator[LooseWire]:
    """The one address that the built page knows; each test has a server of its own behind it."""
    with loose_wire(leads_to=0) as wire:
        yield wire


@pytest.fixture(scope="session")
def address(wire: LooseWire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is, built as its README says."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        ["npm", "run", "build", "--", "--outDir", folder, "--emptyOutDir"],
        cwd=EXAMPLE,
        env=clean_environment() | {"VITE_CONVEX_URL": wire.url},
        check=True,
        capture_output=True,
        timeout=120,
    )
    with serving_files(folder) as address:
        yield address


@pytest.fixture(scope="module")  # no longer: Playwright keeps an event loop running in this thread
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    assert CHROMIUM, "there is no Chromium: scripts/setup browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, headless=True, timeout=2 * SECONDS * 1000
        )
        yield browser
        browser.close()


@pytest.fixture
def start_server(wire: LooseWire, tmp_path: Path) -> Iterator[Callable[[], RunningServer]]:
    """Starts a server of the example behind the wire, each time on the same data."""
    with ExitStack() as servers:

        def start() -> RunningServer:
            server = servers.enter_context(running_server(EXAMPLE / "backend", tmp_path / "data"))
            wire.leads_to = server.port
            return server

        yield start
        wire.cut()


@pytest.fixture
def example(start_server: Callable[[], RunningServer]) -> Example:
    """A server of the example with nothing in it, and its operator."""
    return Example(start_server())


@pytest.fixture
def visit(browser: Browser, address: str, example: Example) -> Iterator[Callable[..., Visit]]:
    """Opens the page, for a visitor of its own each time. At the end no page may have complained."""
    visits: list[Visit] = []

    def open_page(**options: object) -> Visit:
        visits.append(Visit.to(address, browser, **options))
        return visits[-1]

    yield open_page
    for each in visits:
        each.page.context.close()
    assert [complaint for each in visits for complaint in each.complaints] == []
