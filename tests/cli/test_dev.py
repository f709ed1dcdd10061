"""`camber dev`: serving what is being written, and telling `npx convex` where it is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.cli.commands import PATIENCE, Serving, camber, rewrite, serving

NEW_FUNCTION = '\n\n@query\ndef hello(ctx: QueryCtx) -> str:\n    """Greet."""\n    return "hello"\n'


@pytest.fixture
def dev(project: Path) -> Iterator[Serving]:
    """`camber dev` in the project, ready."""
    with serving(project, "dev") as running:
        running.wait_for("Reloads when a file changes")
        yield running


def append(file: Path, text: str) -> None:
    rewrite(file, file.read_text() + text)


def change(project: Path, file: str, old: str, new: str) -> None:
    path = project / "backend" / file
    text = path.read_text()
    assert old in text
    rewrite(path, text.replace(old, new))


def test_it_says_where_it_serves_what(dev: Serving, project: Path) -> None:
    assert "camber dev  backend, 8 functions" in dev.printed
    assert f"API         {dev.url}\n" in dev.printed
    assert f"HTTP        http://127.0.0.1:{dev.site_port}\n" in dev.printed
    assert "data        .camber\n" in dev.printed
    assert "\x1b" not in dev.printed
    assert dev.stop() == 0


def test_a_change_is_served_without_losing_data_or_connections(dev: Serving, project: Path) -> None:
    camber(project, "run", "books:add", '{"title": "Dune"}')
    connection = HTTPConnection("127.0.0.1", dev.port)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    used: socket.socket = connection.sock

    append(project / "backend/books.py", NEW_FUNCTION)
    dev.wait_for("reloaded: books.py")
    hello = camber(project, "run", "books:hello")
    titles = camber(project, "run", "books:titles")
    connection.request("GET", "/healthz")
    healthy = connection.getresponse().status

    assert (hello.out, titles.out) == ('"hello"\n', '[\n  "Dune"\n]\n'), (hello, titles)
    assert (healthy, connection.sock) == (200, used)
    connection.close()


def test_what_does_not_load_is_shown_and_the_version_before_goes_on(dev: Serving, project: Path) -> None:
    append(project / "backend/books.py", NEW_FUNCTION.replace("-> str:", "-> str"))
    (project / "backend/more.py").write_text("from nowhere import nothing\n")
    dev.wait_for("the application does not load: 2 problems")
    page = dev.wait_for("is still served")
    during = camber(project, "run", "books:titles")

    assert "  backend/books.py:55: expected ':'" in page
    assert "  backend/more.py:1: ModuleNotFoundError: No module named 'nowhere'" in page
    assert during.out == "[]\n", during

    (project / "backend/more.py").unlink()
    change(project, "books.py", "-> str\n", "-> str:\n")
    dev.wait_for("reloaded: ")
    assert camber(project, "run", "books:hello").out == '"hello"\n'


def test_a_schema_that_the_data_does_not_fit_is_shown_and_the_version_before_goes_on(
    dev: Serving, project: Path
) -> None:
    camber(project, "run", "books:add", '{"title": "Dune"}')
    change(project, "schema.py", "    title: str\n", "    title: str\n    author: str\n")
    page = dev.wait_for("is still served")
    during = camber(project, "run", "books:add", '{"title": "Emma"}')

    assert "the stored data does not fit the schema: 1 misfit. Nothing was changed." in page
    assert "author" in page
    assert during.code == 0, during

    change(project, "schema.py", "    author: str\n", "    author: NotRequired[str]\n")
    dev.wait_for("reloaded: schema.py")
    assert camber(project, "run", "books:titles").out == '[\n  "Dune",\n  "Emma"\n]\n'


def test_where_nothing_loads_yet_it_waits_for_the_fix(project: Path) -> None:
    change(project, "books.py", "@query\ndef titles", "@query\nasync def titles")
    with serving(project, "dev") as dev:
        page = dev.wait_for("Waiting for a change")
        change(project, "books.py", "@query\nasync def titles", "@query\ndef titles")
        dev.wait_for("Reloads when a file changes")

        assert "titles is an `async def`, but a query is a plain `def`" in page
        assert camber(project, "run", "books:titles").out == "[]\n"


def test_while_it_waits_it_can_be_stopped(project: Path) -> None:
    (project / "backend/broken.py").write_text("def\n")
    with serving(project, "dev") as dev:
        dev.wait_for("Waiting for a change")

        assert dev.stop() == 130
    assert "Traceback" not in dev.printed


def test_a_folder_that_goes_and_comes_back_is_followed(dev: Serving, project: Path) -> None:
    shutil.move(project / "backend", project / "away")
    dev.wait_for("is still served")
    append(project / "away/books.py", NEW_FUNCTION)
    shutil.move(project / "away", project / "backend")
    dev.wait_for("reloaded: ")

    assert camber(project, "run", "books:hello").out == '"hello"\n'


def test_callers_are_told_what_goes_wrong(dev: Serving, project: Path) -> None:
    result = camber(project, "run", "books:add", "{title: 5}")

    assert "ArgumentValidationError" in result.err, result


def test_address_and_key_are_written_where_convex_looks_for_them(dev: Serving, project: Path) -> None:
    key = camber(project, "admin-key").out.strip()

    written = (project / ".env.local").read_text().splitlines()
    assert written[1:] == [f"CONVEX_SELF_HOSTED_URL='{dev.url}'", f"CONVEX_SELF_HOSTED_ADMIN_KEY='{key}'"]
    assert written[0].startswith("#")
    assert (project / ".env.local").stat().st_mode & 0o777 == 0o600
    assert "works in this folder" in dev.printed


@pytest.mark.parametrize(
    "before",
    [b"A=1\nB='two\nlines'\n", b"A=1", b"\xff\xfe not utf-8\r\nA=1\r\n", b"CONVEX_SELF_HOSTED_URL=\n"],
    ids=["lines", "no line end", "no text", "an empty value"],
)
def test_the_rest_of_the_file_stays_byte_for_byte(project: Path, before: bytes) -> None:
    (project / ".env.local").write_bytes(before)
    (project / ".env.local").chmod(0o644)
    with serving(project, "dev") as dev:
        dev.wait_for("works in this folder")

    after = (project / ".env.local").read_bytes()
    assert after.startswith(before)
    assert f"CONVEX_SELF_HOSTED_URL='{dev.url}'".encode() in after.splitlines()
    assert (project / ".env.local").stat().st_mode & 0o777 == 0o644


def test_nothing_is_written_twice(project: Path) -> None:
    environment = {"CAMBER_DATA": "data", "CAMBER_CLOUD_URL": "https://api.example.com"}
    for _ in range(2):
        with serving(project, "dev", env=environment) as dev:
            dev.wait_for("works in this folder")

    assert (project / ".env.local").read_text().count("CONVEX_SELF_HOSTED_URL='https://api.example.com'") == 1


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("CONVEX_SELF_HOSTED_URL=https://other.example.com\n", "has another CONVEX_SELF_HOSTED_URL; it stays as it is"),
        ("CONVEX_SELF_HOSTED_ADMIN_KEY=other|01\n", "has another CONVEX_SELF_HOSTED_ADMIN_KEY; it stays as it is"),
        ("CONVEX_DEPLOYMENT=dev:happy-otter-1\n", "has CONVEX_DEPLOYMENT, with which `npx convex` refuses"),
    ],
)
def test_a_value_that_is_there_stays_and_is_spoken_of(project: Path, before: str, said: str) -> None:
    (project / ".env.local").write_text(before)
    with serving(project, "dev") as dev:
        dev.wait_for("Reloads when a file changes")

    assert (project / ".env.local").read_text() == before
    assert said in dev.printed


def test_nothing_secret_gets_into_git(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    with serving(project, "dev") as dev:
        dev.wait_for("is not ignored by git: add it to .gitignore")
    untracked = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert ".camber" not in untracked
    assert "A " not in untracked


def test_a_file_that_can_not_be_written_stops_nothing(project: Path) -> None:
    (project / ".env.local").mkdir()
    with serving(project, "dev") as dev:
        dev.wait_for("can't be written")
        dev.wait_for("Reloads when a file changes")


@pytest.mark.skipif(not shutil.which("npx"), reason="npx is not installed")
def test_the_line_of_the_seed_works_as_printed_in_the_folder_of_dev(project: Path) -> None:
    (project / "package.json").write_text('{"private": true, "dependencies": {"convex": "*"}}')
    (project / "node_modules").symlink_to(Path(__file__).resolve().parents[2] / "node_modules")
    (project / "pyproject.toml").write_text('[tool.camber]\napp = "backend"\n')
    with serving(project, "dev") as dev:
        dev.wait_for("Reloads when a file changes")
        done = subprocess.run(
            'npx convex run books:add \'{"title": "Dune"}\'',
            shell=True,
            cwd=project,
            env={"PATH": os.environ["PATH"], "HOME": str(project), "CI": "1", "npm_config_offline": "true"},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 34
