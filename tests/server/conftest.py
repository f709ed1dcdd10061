"""A deployment with the application next to this file, and clients of its API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from camber.backend import Backend
from camber.functions import load_application
from camber.server import admin_key, create_app
from camber.settings import Settings
from tests.server.asking import Client

APPLICATION = Path(__file__).parent / "application"

Opening = Callable[..., Client]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[Opening]:
    """Opens further deployments; called with settings, it gives a client. All are closed at the end."""
    backends: list[Backend] = []
    with asyncio.Runner() as runner:

        def open_with(**settings: object) -> Client:
            data = tmp_path_factory.mktemp("deployment") / "data"
            unhurried = {"mutation_seconds": 60.0, "query_seconds": 60.0}
            chosen = Settings.from_env({}, **{"dev": True, "database_url": new_database(), **unhurried, **settings})
            backend = Backend.open(load_application(APPLICATION), data, settings=chosen, create=True)
            backends.append(backend)
            admin_key(data, create=True)
            return Client(create_app(backend), runner, backend)

        yield open_with
        for backend in backends:
            backend.close()


@pytest.fixture(scope="module")
def client(opened: Opening) -> Client:
    """A client of a deployment in development mode, shared by a file's tests."""
    return opened()


@pytest.fixture(scope="module")
def admin(client: Client) -> dict[str, str]:
    """The headers of the operator of `client`'s deployment."""
    return {"Authorization": f"Convex {client.admin_key}"}
