"""What all tests of the database share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def unhurried_postgres(engine: str) -> Iterator[None]:
    """Lets connections come about also where this machine stands still for longer than a server would wait."""
    with pytest.MonkeyPatch.context() as patch:
        if engine == "postgres":
            from camber.storage.postgres import connections

            patch.setitem(connections._DEFAULTS, "connect_timeout", 60)
            patch.setattr(connections, "ANSWER_SECONDS", 60)
        yield
