"""Loading the application's code anew while it is served, and finding out what is different."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from camber.backend import Backend, settle
from camber.errors import CamberError, LoadError, SchemaMismatchError, StorageError
from camber.functions import Application, reload_application
from camber.server.reloaded import ALREADY_RUNNING, Reloaded

if TYPE_CHECKING:
    from camber.schema import Table

_MOST_PROBLEMS: Final = 1_000
_PROBLEM_LETTERS: Final = 2_000
_NO_FOLDER: Final = Reloaded("NotReloadable", "This application was not loaded from a folder.")

_log = logging.getLogger("camber.server")


class Reloader:
    """Loads the application of one process anew, one time after the other."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._served = _Version.of(backend.application)
        self._turn = asyncio.Lock()
        self._thread: threading.Thread | None = None
        self._is_abandoned = False

    async def reload(self) -> Reloaded:
        """Serve the code that is in the application's folder now. Where that can't be, the code before goes on, and this says why."""
        if self._turn.locked():
            return ALREADY_RUNNING
        if self._backend.application.root is None:
            return _NO_FOLDER
        before = self._served
        try:
            application = await self.load()
        except LoadError as error:
            total = len(error.problems)
            return Reloaded("LoadError", "The new code does not load.", _shortened(error.problems), total)
        except SchemaMismatchError as error:
            message = "The stored data does not fit the new schema."
            return Reloaded("SchemaMismatch", message, _shortened(error.misfits), error.total)
        except CamberError as error:
            return Reloaded(error.code, f"The new code could not be put to work: {error}")
        except Exception as error:  # noqa: BLE001  whatever it is, who asked gets an answer and the log the reason
            _log.exception("the code could not be loaded anew")
            return Reloaded("InternalServerError", f"The new code could not be put to work: {error!r}")
        changes = tuple(self._served.changes_since(before))
        return Reloaded(changes=changes, warnings=application.warnings, workers=1)

    async def load(self) -> Application:
        """The same for a caller that takes errors: LoadError, SchemaMismatchError, StorageError."""
        # What has begun is carried through, also where nobody waits for it any more.
        return await asyncio.shield(asyncio.create_task(self._load()))

    async def _load(self) -> Application:
        async with self._turn:
            root = self._backend.application.root
            assert root is not None
            loop = asyncio.get_running_loop()
            loaded: asyncio.Future[Application] = loop.create_future()

            def tell(outcome: Application | Exception) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(settle, loaded, outcome)

            # A thread of its own: one of the loop's would be waited for when the process is to end, and this may wait for another
            # server that makes an index, or in a module that does not come to an end.
            self._thread = threading.Thread(target=self._work, args=(root, tell), name="camber-reload", daemon=True)
            self._thread.start()
            return await loaded

    def abandon(self) -> bool:
        """Serve nothing any more that is loaded from now on; returns whether a reload is still at work, which is left to itself."""
        self._is_abandoned = True
        return self._thread is not None and self._thread.is_alive()

    def _work(self, root: Path, tell: Callable[[Application | Exception], None]) -> None:
        try:
            tell(self._changed_over(root))
        except BaseException as error:  # noqa: BLE001  it is raised where this is waited for
            tell(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _changed_over(self, root: Path) -> Application:
        application = reload_application(root)
        version = _Version.of(application)
        if self._is_abandoned:
            raise StorageError("The server is shutting down.")
        self._backend.reload_sync(application)
        self._served = version
        return application


def _shortened(problems: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        problem if len(problem) <= _PROBLEM_LETTERS else problem[:_PROBLEM_LETTERS] + "…"
        for problem in problems[:_MOST_PROBLEMS]
    )


@dataclass(frozen=True)
class _Version:
    """What is remembered of an application to tell how the next one differs."""

    files: Mapping[str, bytes]
    functions: Mapping[str, object]
    tables: Mapping[str, Table[Any]]

    @classmethod
    def of(cls, application: Application) -> _Version:
        root = application.root or Path()
        files = {str(file.relative_to(root)): _digest(file) for file in application.files}
        specs = dict(zip(sorted(application.functions), application.specs(), strict=True))
        return cls(files, specs, application.schema.tables)

    def changes_since(self, before: _Version) -> Iterator[str]:
        """In words, one line each."""
        yield from _differences("file", before.files, self.files)
        yield from _differences("function", before.functions, self.functions, changed="takes or returns something else")
        shapes = [{name: table.validator.json for name, table in it.tables.items()} for it in (before, self)]
        yield from _differences("table", *shapes, changed="has another shape")
        indexes = [
            {
                f"{name}.{index.name}": (index.fields, index.unique)
                for name, table in it.tables.items()
                for index in table.indexes
            }
            for it in (before, self)
        ]
        yield from _differences("index", *indexes)


def _differences(
    what: str, before: Mapping[str, object], after: Mapping[str, object], *, changed: str = "changed"
) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"{what} {name} is new"
        elif name not in after:
            yield f"{what} {name} is gone"
        elif before[name] != after[name]:
            yield f"{what} {name} {changed}"


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:  # it goes away just now
        return b""
