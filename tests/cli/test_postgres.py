"""The commands where CAMBER_DATABASE_URL says that the data lies in PostgreSQL, and what they say when it can't be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.commands import Result, camber, make_project, rewrite, server, serving
from tests.postgres.cluster import Cluster
from tests.wire.running_server import free_ports

PASSWORD = "pa55w0rd-never-shown"
TITLES = ("run", "books:titles")
ALL = [
    TITLES,
    ("data", "books"),
    ("sql", "SELECT title FROM books"),
    ("env", "list"),
    ("function-spec",),
    ("check",),
]


def with_password(url: str) -> dict[str, str]:
    """The environment that names this database, with a password in the URL, which the tests' PostgreSQL does not look at."""
    return {"CAMBER_DATABASE_URL": url.replace("postgres@", f"postgres:{PASSWORD}@")}


def name_of(url: str) -> str:
    return url.replace("postgres@", "")


@contextmanager
def new_database(postgres: Cluster) -> Iterator[str]:
    url = postgres.new_database()
    try:
        yield url
    finally:
        postgres.drop_database(url)


def ask(folder: Path, *words: str, url: str, **more: str) -> Result:
    """A command on this database; the password is in nothing that it prints."""
    result = camber(folder, *words, env=with_password(url) | more)
    assert PASSWORD not in result.out + result.err, result
    return result


@pytest.fixture(scope="module")
def library(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A project without a data folder and a database that was served with it and has one book; no server runs for it."""
    project = make_project(tmp_path_factory.mktemp("library") / "library")
    with new_database(postgres) as url:
        with server(project, "--data", "../data", env=with_password(url)):
            added = ask(project, "run", "books:add", '{"title": "Dune"}', "--data", "../data", url=url)
            assert added.code == 0, added
        yield project, url


@pytest.mark.parametrize("words", ALL, ids=lambda words: words[0])
def test_a_command_opens_the_database_and_needs_no_data_folder(
    library: tuple[Path, str], words: tuple[str, ...]
) -> None:
    project, url = library

    result = ask(project, *words, url=url)

    assert result.code == 0, result
    if words[0] in {"run", "data", "sql"}:
        assert "Dune" in result.out
    if words[0] == "check":
        assert f"the data in {name_of(url)} fits\n" in result.out
    assert not (project / ".camber").exists()


def test_what_a_command_writes_is_there_for_the_next_one_and_for_servers(library: tuple[Path, str]) -> None:
    project, url = library
    with server(project, "--data", "../another", env=with_password(url)) as running:
        assert ask(project, "env", "set", "MOTTO", "quiet please", url=url).code == 0
        direct = ask(project, "run", "settings:motto", url=url)
        served = ask(project, "run", "settings:motto", "--data", "../another", url=url)

    assert direct.out == served.out == '"quiet please"\n', (direct, served)
    assert PASSWORD not in running.printed


def test_a_server_of_the_data_folder_is_asked(library: tuple[Path, str]) -> None:
    project, url = library
    with server(project, "--data", "../served", env=with_password(url)):
        address = json.loads((project / "../served/server.json").read_text())
        ask(project, "run", "books:echo", '{"value": "heard by the server"}', "--data", "../served", url=url)
        ask(project, "run", "books:add", '{"title": "Emma"}', "--data", "../elsewhere", url=url)
        log = ask(project, "logs", "--success", "--data", "../served", url=url)

    assert address["database"] == name_of(url)
    assert "books:echo" in log.out, log
    assert "books:add" not in log.out


def test_a_server_of_the_data_folder_that_works_on_something_else_is_not_asked(library: tuple[Path, str]) -> None:
    project, url = library
    with server(project, "--data", "../on-sqlite"):
        on_sqlite = camber(project, *TITLES, "--data", "../on-sqlite")
        on_postgres = ask(project, *TITLES, "--data", "../on-sqlite", url=url)
        log = ask(project, "logs", "--data", "../on-sqlite", url=url)

    assert on_sqlite.out == "[]\n"
    assert "Dune" in on_postgres.out, on_postgres
    assert log.code == 2
    assert f"no server of {name_of(url)} is known here" in log.err


def test_a_named_server_goes_before_the_database(library: tuple[Path, str]) -> None:
    project, url = library
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"

    result = ask(project, *TITLES, url=url, CAMBER_URL=nowhere, CAMBER_ADMIN_KEY="camber|01")

    assert result.code == 2
    assert f"nothing answers at {nowhere}" in result.err


def test_a_command_does_not_change_the_schema(library: tuple[Path, str], postgres: Cluster, tmp_path: Path) -> None:
    _, url = library
    newer = make_project(tmp_path / "newer")
    schema = newer / "backend/schema.py"
    schema.write_text(schema.read_text().replace('.index("by_title"', '.index("by_pages", ["pages"]).index("by_title"'))
    described = "SELECT * FROM camber._indexes ORDER BY _id", "SELECT * FROM camber._schemas ORDER BY _id"
    before = [postgres.sql(statement, url=url) for statement in described]

    result = ask(newer, *TITLES, url=url)
    checked = ask(newer, "check", url=url)

    assert result.code == 2, result
    assert "the database is not served with this schema, and only a server changes that" in result.err
    assert [postgres.sql(statement, url=url) for statement in described] == before
    assert 'the next start will create index "books.by_pages"' in checked.out, checked


def test_documents_that_do_not_fit_are_named_by_check(library: tuple[Path, str], tmp_path: Path) -> None:
    _, url = library
    stricter = make_project(tmp_path / "stricter")
    schema = stricter / "backend/schema.py"
    schema.write_text(schema.read_text().replace("    title: str\n", "    title: int\n"))

    result = ask(stricter, "check", url=url)

    assert result.code == 1, result
    assert "Path: .title" in result.err


def test_camber_dev_serves_a_database(project: Path, postgres_url: str) -> None:
    with serving(project, "dev", env=with_password(postgres_url)) as running:
        running.wait_for("Reloads when a file changes")
        assert f"data        {name_of(postgres_url)}\n" in running.printed
        # In another terminal, where nobody set CAMBER_DATABASE_URL: what `camber dev` left in the folder is enough.
        assert camber(project, "run", "books:add", '{"title": "Dune"}').code == 0
        books = project / "backend/books.py"
        rewrite(books, books.read_text() + "\n\n@query\ndef hello(ctx: QueryCtx) -> str:\n    return 'hello'\n")
        running.wait_for("reloaded: books.py")
        assert camber(project, "run", "books:hello").out == '"hello"\n'
        assert PASSWORD not in running.printed

    assert (project / ".camber/.gitignore").read_text() == "*\n"
    assert not (project / ".camber/camber.sqlite3").exists()
    assert "Dune" in ask(project, *TITLES, url=postgres_url).out


# What can't be used


def refused(result: Result, message: str) -> None:
    assert result.code == 2, result
    assert message in result.err, result
    assert "Traceback" not in result.err


@pytest.mark.parametrize("words", [TITLES, ("check",), ("admin-key",), ("admin-key", "rotate")], ids=" ".join)
def test_a_database_that_was_never_served_is_no_deployment(
    project: Path, postgres_url: str, words: tuple[str, ...], postgres: Cluster
) -> None:
    refused(
        ask(project, *words, url=postgres_url),
        f"no data of Camber's in the database {postgres_url.rpartition('/')[2]} at 127.0.0.1",
    )
    assert postgres.sql("SELECT to_regnamespace('camber')", url=postgres_url) == [(None,)]
    assert not (project / ".camber").exists()


@pytest.mark.parametrize("words", [TITLES, ("serve",), ("check",), ("admin-key",)], ids=lambda words: words[0])
def test_a_database_that_is_missing_is_named(project: Path, postgres: Cluster, words: tuple[str, ...]) -> None:
    refused(ask(project, *words, url=postgres.url("no_such_database")), 'database "no_such_database" does not exist')
    assert not (project / ".camber").exists()


@pytest.mark.parametrize("words", [TITLES, ("check",), ("admin-key",)], ids=lambda words: words[0])
def test_a_command_does_not_wait_for_a_database_that_can_not_be_reached(project: Path, words: tuple[str, ...]) -> None:
    one, other = free_ports(2)
    url = f"postgresql://postgres@127.0.0.1:{one},127.0.0.1:{other}/shop"

    result = ask(project, *words, url=url)

    for port in (one, other):
        refused(result, f'connection to server at "127.0.0.1", port {port} failed: Connection refused')


def test_a_server_that_starts_waits_for_its_database(project: Path) -> None:
    with closing(Cluster()) as cluster, serving(project, "serve", env=with_password(cluster.url())) as running:
        running.wait_for("PostgreSQL can't be used yet, waiting")
        assert not (project / ".camber").exists()
        cluster.start()
        running.wait_for('"serving"')

    assert PASSWORD not in running.printed


def test_a_database_with_another_encoding_is_refused(project: Path, postgres: Cluster) -> None:
    with new_database(postgres) as url:
        name = url.rpartition("/")[2]
        postgres.sql(f"DROP DATABASE {name}")
        postgres.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")

        refused(ask(project, "serve", url=url), f"the database {name} has the encoding SQL_ASCII")


@pytest.mark.parametrize("table", ["books (title text)", "commits (id int)", "format (name text)"])
def test_a_schema_of_somebody_else_is_left_alone(
    project: Path, postgres: Cluster, postgres_url: str, table: str
) -> None:
    postgres.sql("CREATE SCHEMA camber", url=postgres_url)
    postgres.sql(f"CREATE TABLE camber.{table}", url=postgres_url)

    refused(ask(project, "serve", url=postgres_url), "has a schema camber with tables that are not Camber's")
    assert (
        len(postgres.sql("SELECT relname FROM pg_class WHERE relnamespace = 'camber'::regnamespace", url=postgres_url))
        == 1
    )


def test_a_url_that_is_none_is_refused_without_being_shown(project: Path) -> None:
    for url in (f"mysql://ada:{PASSWORD}@db/shop", f"postgresql://ada:{PASSWORD}%zz@db/shop"):
        result = camber(project, "serve", env={"CAMBER_DATABASE_URL": url})

        refused(result, "database_url (CAMBER_DATABASE_URL) is")
        assert PASSWORD not in result.err


@pytest.fixture
def guarded(postgres: Cluster) -> Iterator[Cluster]:
    """It asks Ada for her password and gives her no rights."""
    file = postgres.data / "pg_hba.conf"
    rules = file.read_text()
    postgres.sql("CREATE ROLE ada LOGIN PASSWORD 'right'")
    try:
        file.write_text(f"host all ada 127.0.0.1/32 scram-sha-256\n{rules}")
        postgres.sql("SELECT pg_reload_conf()")
        yield postgres
    finally:
        file.write_text(rules)
        postgres.sql("SELECT pg_reload_conf()")
        postgres.sql("DROP ROLE ada")


def test_a_wrong_password_a_missing_one_and_missing_rights_are_told_apart(project: Path, guarded: Cluster) -> None:
    def serve_as(person: str) -> Result:
        url = guarded.url().replace("postgres@", f"{person}@")
        result = camber(project, "serve", env={"CAMBER_DATABASE_URL": url})
        assert PASSWORD not in result.out + result.err
        return result

    refused(serve_as(f"ada:{PASSWORD}"), 'password authentication failed for user "ada"')
    refused(serve_as("ada"), "no password supplied")
    refused(serve_as("ada:right"), "the role ada can't use the database postgres at 127.0.0.1")


def test_a_replica_is_refused(project: Path) -> None:
    with closing(Cluster()) as cluster:
        (cluster.data / "standby.signal").touch()
        cluster.start()

        refused(ask(project, *TITLES, url=cluster.url()), "the server is a replica, which can't be written to")
