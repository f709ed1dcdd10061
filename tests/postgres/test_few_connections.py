"""What a server does that may have only a few connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path

from camber import MutationCtx, QueryCtx, define_schema, define_table, mutation, query, v
from camber.backend import Backend as Engine
from camber.errors import RequestError
from camber.functions import Application
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.storage import Timestamp

COUNTERS = define_table("counters", v.any())


@query
def count(ctx: QueryCtx) -> int:
    return ctx.db.query("counters").count()


@mutation
def add(ctx: MutationCtx) -> None:
    ctx.db.insert("counters", {})


def test_of_few_connections_to_postgresql_half_stay_for_everybody_else(postgres_url: str, tmp_path: Path) -> None:
    few = {"CAMBER_DATABASE_URL": postgres_url, "CAMBER_DATABASE_CONNECTIONS": "8"}
    settings = Settings.from_env(few, mutation_seconds=30.0, query_seconds=30.0)
    application = Application("counters", None, define_schema(COUNTERS), {"c:count": count, "c:add": add})

    async def hold_and_count(engine: Engine) -> list[object]:
        engine.attach(asyncio.get_running_loop())
        moments: list[Timestamp] = []
        for number in range(6):
            moments.append(await engine.hold_snapshot())
            await engine.run("c:add", b"{}", OPERATOR, kind="mutation", request_id=f"a{number}")
        counted: list[object] = []
        for at in moments:
            try:
                seen = await engine.run("c:count", b"{}", OPERATOR, kind="query", request_id="r", at=at)
                counted.append(json.loads(seen.value or b"null"))
            except RequestError as error:
                counted.append(error.short_code)
        return counted

    with closing(Engine.open(application, tmp_path, settings=settings, create=True)) as engine:
        assert asyncio.run(hold_and_count(engine)) == ["SnapshotExpired"] * 2 + [2, 3, 4, 5]
