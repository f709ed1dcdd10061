"""Endpoints that Convex's clients know and this server does not have yet, and what to use instead.

They are answered 400: the `npx convex` commands try a 404 again for half a minute (protocol 6.1).
"""

from __future__ import annotations

import re
from typing import Final

from camber.errors import RequestError

_SYNC: Final = re.compile(r"/api/(?:[^/]+/)?sync")

_HTTP: Final = "Over HTTP there are /api/query, /api/mutation and /api/action."
_STORAGE: Final = "File storage is not offered yet. Keep files elsewhere and store their addresses."
_EXPORT: Final = (
    "Export is not offered yet. Use `camber data TABLE --format jsonl`, or copy the data folder of a stopped server."
)
_IMPORT: Final = "Import is not offered yet. Use `camber run` with a mutation that inserts."
_DEPLOY: Final = (
    "This server runs Python functions and takes no pushed code, so `npx convex dev`, `deploy`, `codegen` and `run --push` can't work"
    " with it. Change the application's folder: `camber dev` reloads it at once, `camber serve` reads it when it starts."
    " Clients need no generated code: use `anyApi` or `makeFunctionReference`."
)
_INLINE: Final = (
    "This server runs Python functions and takes no code with a request, so `npx convex run --inline-query` can't work with it."
    " Use `camber sql`, `camber data`, or a query in the application's folder."
)
_METRICS: Final = (
    "Metrics of functions are not offered. How runs ended is in `camber logs` and under /api/stream_function_logs."
)
_SEARCH: Final = "Search is not offered yet. Use an index."

_PREFIXES: Final = (
    ("/api/storage", _STORAGE),
    ("/api/export", _EXPORT),
    ("/api/import", _IMPORT),
    ("/api/perform_import", _IMPORT),
    ("/api/cancel_import", _IMPORT),
    ("/api/deploy2", _DEPLOY),
    ("/api/v1", _DEPLOY),
    ("/api/get_config", _DEPLOY),
    ("/api/push_config", _DEPLOY),
    ("/api/prepare_schema", _DEPLOY),
    ("/api/schema_state", _DEPLOY),
    ("/api/run_test_function", _INLINE),
    ("/api/stream_udf_execution", _METRICS),
    ("/api/app_metrics", _METRICS),
    ("/api/vector_search", _SEARCH),
    ("/api/search", _SEARCH),
)


def is_sync(path: str) -> bool:
    """Whether this is where clients open their WebSocket: `/api/sync` or `/api/<version>/sync`."""
    return _SYNC.fullmatch(path) is not None


def refusal(path: str) -> RequestError | None:
    """What to answer to a path of something that is not there yet, or not over HTTP; None for any other path."""
    if is_sync(path):
        return RequestError(400, "WebSocketExpected", f"{path} is for WebSockets. {_HTTP}")
    for prefix, text in _PREFIXES:
        if path.startswith(prefix):
            return RequestError(400, "NotOfferedYet", text)
    return None
