"""Mutations that a client may send twice: the record that makes them run once (protocol 5.7).

The record is looked up first and written last in the mutation's own transaction, so it is there exactly if the mutation is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from camber.database.transaction import Transaction
from camber.errors import RequestError

KEPT_MS = 24 * 3600 * 1000.0
MAX_RESULT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RequestKey:
    """One request of one client session, and what it asks for: a second request under the same name must ask for the same."""

    session: str
    request: int
    digest: bytes

    @classmethod
    def of(cls, session: str, request: int, *asked: bytes) -> RequestKey:
        """With the digest of identity, path and arguments."""
        digest = hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in asked)).digest()
        return cls(session, request, digest)


@dataclass(frozen=True, slots=True)
class RememberedResult:
    """What a finished request answered: the encoded result (None: it was too large to keep), its log lines and commit timestamp."""

    result: bytes | None
    log_lines: list[str]


def remembered(transaction: Transaction, key: RequestKey) -> RememberedResult | None:
    """The result of this request if it has run. Raises RequestError if it asked for something else then."""
    table = transaction.catalog.by_name["_session_requests"]
    found = transaction.find_one(table, table.index("by_session_request"), (key.session, float(key.request)))
    if found is None:
        return None
    if found["digest"] != key.digest:
        raise RequestError(
            400, "RequestIdReused", f"Request {key.request} of this session asked for something else before."
        )
    return RememberedResult(found.get("result"), list(found["logLines"]))


def remember(transaction: Transaction, key: RequestKey, result: bytes, log_lines: list[str]) -> None:
    """Keep the result with the transaction that gave it."""
    table = transaction.catalog.by_name["_session_requests"]
    fields: dict[str, Any] = {
        "session": key.session,
        "request": float(key.request),
        "digest": key.digest,
        "logLines": log_lines,
    }
    if len(result) <= MAX_RESULT_BYTES:
        fields["result"] = result
    transaction.keep(table, None, fields)


def forget_expired(transaction: Transaction, *, at_most: int) -> int:
    """Drop records older than 24 hours, and rate limit counts that have run out; returns how many went."""
    requests, limits = transaction.catalog.by_name["_session_requests"], transaction.catalog.by_name["_rate_limits"]
    gone = 0
    for table, index, end in (
        (requests, requests.by_creation_time, transaction.now_ms - KEPT_MS),
        (limits, limits.index("by_expires"), transaction.now_ms),
    ):
        for document in transaction.first_below(table, index, end, at_most - gone):
            transaction.drop(table, document)
            gone += 1
    return gone
