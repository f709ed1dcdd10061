"""The data of a deployment, opened in this process with the application on it: a folder that no server has, or a PostgreSQL database."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from camber.backend import Backend
from camber.cli.targets import Answer, Rows
from camber.functions import load_application
from camber.identity import OPERATOR, Caller, Identity
from camber.server import name_of_database
from camber.settings import Settings

Progress = Callable[[str, int, int], None]


class LocalTarget:
    """A data folder that this process holds, or the database of the settings; see `Target`."""

    def __init__(self, data: Path, application: Path, *, on_progress: Progress) -> None:
        """Load the application and open the data with it. The schema of a folder is compared as a server does.

        A database must be served with this schema already: others may be at work on it, and a command is gone in a moment. Raises
        LoadError, SchemaMismatchError, ConfigurationError, DataFolderError, DataFolderInUseError.
        """
        settings = Settings.from_env(os.environ, dev=True)
        self._name = name_of_database(settings.database_url) or str(data)
        self._backend = Backend.open(
            load_application(application), data, settings=settings, create=False, on_progress=on_progress, as_guest=True
        )

    @property
    def name(self) -> str:
        return self._name

    def call(self, path: str, args: str = "{}", *, identity: Mapping[str, object] | None = None) -> Answer:
        caller = OPERATOR if identity is None else Caller(identity=Identity(identity), is_admin=True)
        outcome = self._backend.run_sync(path, args.encode("utf-8", "surrogatepass"), caller)
        value = None if outcome.value is None else json.loads(outcome.value)
        return Answer(value, outcome.error, outcome.log_lines or [])

    def sql(self, statement: str, *, limit: int) -> Rows:
        result = self._backend.sql_sync(statement, limit=limit)
        return Rows(list(result.columns), [[_as_json(value) for value in row] for row in result.rows], result.more)

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_json(value: object) -> object:
    """An SQL value as it would travel."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
