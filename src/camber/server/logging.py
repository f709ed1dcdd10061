"""How the server logs: events with fields, for people on a terminal and as JSON lines elsewhere; secrets never."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from camber.settings import Settings

REMOVED: Final = "[removed]"

_SECRET_FIELDS: Final = frozenset(
    {"authorization", "admin_key", "adminkey", "password", "secret", "token", "cookie", "set-cookie"}
)
_SECRET_TEXTS: Final = (
    # The first takes an impersonated identity along with the key; a key may also stand alone.
    re.compile(r"(?<=Convex )\S+\|\S+", re.IGNORECASE),
    re.compile(r"(?<=Bearer )[\w.~+/=-]+", re.IGNORECASE),
    re.compile(r"\|01[0-9a-f]{64}"),
)


def configure_logging(settings: Settings, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send every log event of this process, also those of the standard library's loggers, to `stream` (stderr).

    Where it is one of several, each event has the worker's number.
    """
    out = sys.stderr if stream is None else stream
    for_people = settings.log_format == "human" or (settings.log_format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        *([] if worker is None else [_numbered(worker)]),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_endings(for_people, out)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # These tell of each malformed request, of connections that come and go, and of keys that are fetched; what matters is an error.
    for name in ("uvicorn", "uvicorn.error", "asyncio", "httpx", "camber.server.websocket"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _numbered(worker: int) -> Processor:
    def number(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001  structlog's shape
        event.setdefault("worker", worker)
        return event

    return number


def without_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001  structlog's shape
    """A structlog processor: fields that hold secrets by their name, and keys and tokens inside of texts, are removed."""
    return {name: REMOVED if name.lower() in _SECRET_FIELDS else _cleaned(value) for name, value in event.items()}


def _endings(for_people: bool, stream: TextIO) -> list[Processor]:
    if for_people:
        # plain_traceback: the prettier one shows local variables, which hold people's data and keys.
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
        return [without_secrets, console]
    return [
        structlog.processors.format_exc_info,
        without_secrets,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        for pattern in _SECRET_TEXTS:
            value = pattern.sub(REMOVED, value)
        return value
    if isinstance(value, Mapping):
        fields = cast("Mapping[Any, Any]", value)
        return {
            name: REMOVED if str(name).lower() in _SECRET_FIELDS else _cleaned(part) for name, part in fields.items()
        }
    if isinstance(value, list | tuple):
        return [_cleaned(part) for part in cast("list[Any]", value)]
    return value
