"""Writing and reading documents of every table."""

from __future__ import annotations

from typing import Any

from camber import MutationCtx, QueryCtx, mutation, query


@mutation
def insert(ctx: MutationCtx, *, table: str, document: Any) -> str:
    """Store a document."""
    return ctx.db.insert(table, document)


@mutation
def put(ctx: MutationCtx, *, table: str, id: str, document: Any) -> None:
    """Put this in a document's place."""
    ctx.db.replace(table, id, document)


@query
def every(ctx: QueryCtx, *, table: str) -> Any:
    """All documents of a table."""
    return ctx.db.query(table).collect()


@query
def one(ctx: QueryCtx, *, table: str, id: str) -> Any:
    """One document."""
    return ctx.db.get(table, id)


@query
def same(ctx: QueryCtx, *, value: Any) -> Any:
    """What it was given."""
    return value
