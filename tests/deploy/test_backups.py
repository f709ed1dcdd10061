"""A dump of PostgreSQL as the page makes it, put back as the page does it: what was there then is there again, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg

from camber import define_schema, define_table, v
from camber.backend import Backend
from camber.functions import Application, load_application
from camber.server import shared_admin_key
from camber.settings import Settings
from tests.docs.blocks import REPOSITORY, blocks_of
from tests.postgres.cluster import Cluster

PAGE = REPOSITORY / "docs/how-to/deploy-on-postgresql.md"
LATER = Application(
    "later", None, define_schema(define_table("notes", {"text": v.string()}).index("by_text", ["text"])), {}
)


def opened(application: Application, folder: Path, url: str) -> Backend:
    return Backend.open(application, folder, settings=Settings(database_url=url), create=True)


def run(block: str, folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-e", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_dump_comes_back_over_what_came_after_it(tmp_path: Path, postgres: Cluster, postgres_url: str) -> None:
    dump, restore = [
        block.text
        for block in blocks_of(PAGE)
        if block.language == "sh" and ("pg_dump" in block.text or "pg_restore" in block.text)
    ]
    path = f"{postgres.programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CAMBER_DATABASE_URL": postgres_url}
    with closing(
        opened(load_application(REPOSITORY / "apps/crowdfunding"), tmp_path / "data", postgres_url)
    ) as backend:
        backend.database.keep_value("told", "before the dump")
        newest = backend.marked
    key = shared_admin_key(postgres_url, tmp_path / "data")

    run(dump, tmp_path, environment)
    with closing(opened(LATER, tmp_path / "data", postgres_url)) as backend:
        backend.database.keep_value("also told", "after the dump")
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        sql.execute("CREATE VIEW public.report AS SELECT count(*) FROM camber.notes")
    run(restore, tmp_path, environment)

    assert shared_admin_key(postgres_url, tmp_path / "data") == key
    with closing(
        opened(load_application(REPOSITORY / "apps/crowdfunding"), tmp_path / "data", postgres_url)
    ) as backend:
        assert backend.database.value("told") == "before the dump"
        assert backend.database.value("also told") is None
        assert backend.marked > newest
    with psycopg.connect(postgres_url) as sql:
        views = {
            name for (name,) in sql.execute("SELECT viewname FROM pg_views WHERE schemaname IN ('camber', 'public')")
        }
    assert "users" in views
    assert not views & {"notes", "report"}
