"""A whole backend in this process, on any disk and clock, and a client that says what it knows of each call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from camber.backend import Backend
from camber.clock import Clock
from camber.errors import CommitUnknownError, RequestError, StorageError
from camber.functions import Application, load_application
from camber.identity import OPERATOR, Caller, Identity
from camber.settings import Settings
from camber.storage.sqlite import open_storage
from tests.crashes.ledger import Answer
from tests.crashes.servers import CROWDFUNDING
from tests.storage.sqlite.faulty_disk import FaultyDisk

APPLICATION = load_application(CROWDFUNDING)
SETTINGS = Settings(dev=True, mutation_seconds=30, query_seconds=30)
CHECKPOINT_PAGES = 24  # so small that commits and checkpoints take turns


def opened(
    folder: Path,
    disk: FaultyDisk | None = None,
    *,
    application: Application = APPLICATION,
    clock: Clock | None = None,
    checkpoint_pages: int = CHECKPOINT_PAGES,
) -> Backend:
    """A backend on this folder. Raises what the disk makes of opening it."""
    storage = open_storage(
        folder, create=True, vfs=disk.name if disk else None, checkpoint_pages=checkpoint_pages, patience=30
    )
    try:
        return Backend(application, storage, data=folder, settings=SETTINGS, clock=clock)
    except BaseException:
        storage.close()
        raise


class EngineClient:
    """Calls a backend directly; see `Deployment`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def call(
        self, path: str, args: Mapping[str, object], *, claims: Mapping[str, object] | None = None, query: bool = False
    ) -> Answer:
        return self._run(path, args, OPERATOR if claims is None else _person(claims))

    def visit(self, path: str, args: Mapping[str, object], address: str) -> Answer:
        return self._run(path, args, Caller(address=address))

    def _run(self, path: str, args: Mapping[str, object], caller: Caller) -> Answer:
        try:
            outcome = self._backend.run_sync(path, json.dumps(args).encode(), caller)
        except CommitUnknownError as error:
            return Answer("unknown", reason=str(error))
        except (RequestError, StorageError) as error:
            gone = self._backend.ready() is not None
            return Answer("refused", reason="unreachable" if gone else f"{type(error).__name__}: {error}")
        if outcome.value is None:
            return Answer("refused", reason=str(outcome.error))
        return Answer("done", json.loads(outcome.value))


def _person(claims: Mapping[str, object]) -> Caller:
    token_identifier = f"{claims['issuer']}|{claims['subject']}"
    return Caller(Identity({**claims, "tokenIdentifier": token_identifier}), is_admin=True)
