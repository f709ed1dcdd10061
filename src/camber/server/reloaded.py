"""How it went when the application's code was loaded anew: what the operator, the log and other processes are told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

_LOGGED_PROBLEMS: Final = 20

_log = logging.getLogger("camber.server")


class Reloaded(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a reload went. Without a `code` it went well.

    `problems` are the first of `total`; `workers` is how many processes have the new code.
    """

    code: str = ""
    message: str = ""
    problems: tuple[str, ...] = ()
    total: int = 0
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    workers: int = 0

    @property
    def status(self) -> int:
        """The status of the answer that says so."""
        return _STATUSES.get(self.code, 500)

    @property
    def body(self) -> dict[str, object]:
        """The body of that answer."""
        if not self.code:
            return {"changes": self.changes, "warnings": self.warnings, "workers": self.workers}
        return {"code": self.code, "message": self.message, "problems": self.problems, "total": self.total}


Reload = Callable[[], Awaitable[Reloaded]]

ALREADY_RUNNING: Final = Reloaded(
    "ReloadRunning", "The code is being loaded anew already. Ask again when that is done."
)
_STATUSES: Final = {"": 200, "NotReloadable": 400, "ReloadRunning": 409, "LoadError": 422, "SchemaMismatch": 422}


def log_outcome(outcome: Reloaded) -> None:
    """Tell the operator how it went, also where nobody waits for an answer."""
    for warning in outcome.warnings:
        _log.warning(warning)
    if not outcome.code:
        _log.info("the code was loaded anew", extra={"changes": outcome.changes, "workers": outcome.workers})
        return
    what = "the code was loaded anew in part" if outcome.workers else "the code before goes on"
    about = {"problems": outcome.problems[:_LOGGED_PROBLEMS], "total": outcome.total} if outcome.problems else {}
    _log.error(what, extra={"code": outcome.code, "reason": outcome.message, **about})
