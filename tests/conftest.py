"""What holds for all tests: the caller's environment does not steer Camber or Convex's command line."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        if name.startswith(("CAMBER_", "CONVEX_")) and not name.startswith("CAMBER_TORTURE"):
            del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let captured output travel between the workers of pytest-xdist, whatever a test made the engine log."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
