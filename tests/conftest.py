"""What holds for all tests: the caller's environment does not steer Camber or Convex's command line."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        if name.startswith(("CAMBER_", "CONVEX_")) and not name.startswith("CAMBER_TORTURE"):
            del os.environ[name]
