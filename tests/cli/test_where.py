"""How commands find the deployment to work on, and what they say when they don't."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.commands import Serving, begin_with, camber, make_project, server, serving
from tests.cli.conftest import make_data
from tests.wire.running_server import free_ports

TITLES = ("run", "books:titles")

PATIENT = """
from camber.cli import serving, where

serving.WAIT_FOR_DATA_SECONDS = where.WAIT_FOR_ADDRESS_SECONDS = 60.0
"""
"""Processes that wait for each other for longer than 5 seconds, which a busy machine may need."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Serving, str]]:
    """A project with a running server that has one book: its folder, the server, the admin key."""
    project = make_project(tmp_path_factory.mktemp("served") / "library")
    with server(project) as running:
        assert camber(project, "run", "books:add", '{"title": "Served"}').code == 0
        yield project, running, camber(project, "admin-key").out.strip()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives this answer to everything; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize(
    "words",
    [
        TITLES,
        ("data",),
        ("sql", "SELECT 1"),
        ("env", "list"),
        ("function-spec",),
    ],
    ids=lambda words: words[0],
)
def test_where_there_is_nothing_a_command_says_where_it_looked_and_makes_nothing(
    project: Path, words: tuple[str, ...]
) -> None:
    result = camber(project, *words)

    assert (result.code, result.out) == (2, ""), result
    assert str(project / ".camber") in result.err
    assert str(project.parent / ".camber") in result.err
    assert not (project / ".camber").exists()


def test_the_data_folder_is_found_from_a_folder_below(library: tuple[Path, Serving, str]) -> None:
    project, _, _ = library

    assert '"Served"' in camber(project / "backend", *TITLES).out


@pytest.mark.parametrize(
    ("url", "key"), [("CAMBER_URL", "CAMBER_ADMIN_KEY"), ("CONVEX_SELF_HOSTED_URL", "CONVEX_SELF_HOSTED_ADMIN_KEY")]
)
def test_the_environment_names_a_deployment(
    library: tuple[Path, Serving, str], tmp_path: Path, url: str, key: str
) -> None:
    _, running, admin_key = library

    from_environment = camber(tmp_path, *TITLES, env={url: running.url, key: admin_key})
    (tmp_path / ".env.local").write_text(f'# ours\nexport {url}="{running.url}/"\n{key}={admin_key} # keep\n')
    from_file = camber(tmp_path, *TITLES)
    half = camber(tmp_path, *TITLES, env={url: running.url})

    assert '"Served"' in from_environment.out, from_environment
    assert '"Served"' in from_file.out, from_file
    assert (half.code, half.out) == (2, "")
    assert f"the environment has {url} but no {key}" in half.err


def test_flags_come_before_a_data_folder_before_the_environment_before_the_nearest_folder(
    library: tuple[Path, Serving, str], with_data: Path, tmp_path: Path
) -> None:
    _, running, admin_key = library
    other = make_data(make_project(tmp_path / "other"))
    nowhere = {"CAMBER_URL": "http://127.0.0.1:9", "CAMBER_ADMIN_KEY": "a|01"}

    nearest = camber(with_data, *TITLES)
    environment = camber(with_data, *TITLES, env={"CAMBER_DATA": str(other / ".camber")})
    url = camber(with_data, *TITLES, env=nowhere | {"CAMBER_DATA": str(other / ".camber")})
    folder = camber(with_data, *TITLES, "--data", str(other / ".camber"), env=nowhere)
    flags = camber(
        with_data, *TITLES, "--url", running.url, "--admin-key", admin_key, "--data", str(other), env=nowhere
    )

    assert (nearest.out, environment.out, folder.out) == ("[]\n", "[]\n", "[]\n"), (nearest, environment, folder)
    assert url.code == 2
    assert "nothing answers at http://127.0.0.1:9 (CAMBER_URL in the environment)" in url.err
    assert '"Served"' in flags.out, flags


def test_what_dev_wrote_into_env_local_leads_to_the_data_also_while_no_server_runs(with_data: Path) -> None:
    key = camber(with_data, "admin-key").out.strip()
    (port,) = free_ports(1)
    (with_data / ".env.local").write_text(
        f"CONVEX_SELF_HOSTED_URL='http://127.0.0.1:{port}'\nCONVEX_SELF_HOSTED_ADMIN_KEY='{key}'\n"
    )

    assert camber(with_data, *TITLES).out == "[]\n"


def test_a_wrong_key_ends_with_exit_code_2_and_is_not_repeated(
    library: tuple[Path, Serving, str], tmp_path: Path
) -> None:
    _, running, admin_key = library
    wrong = admin_key[:-8] + "00000000"

    result = camber(tmp_path, *TITLES, "--url", running.url, env={"CAMBER_ADMIN_KEY": wrong})

    assert (result.code, result.out) == (2, ""), result
    assert "refuses the admin key" in result.err
    assert wrong not in result.err


@pytest.mark.parametrize(
    "url", ["localhost:3210", "ftp://example.com", "http://", "http://127.0.0.1:port", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    result = camber(tmp_path, *TITLES, "--url", url, "--admin-key", "a|01")

    assert (result.code, result.out) == (2, ""), result
    assert "is no address of a deployment" in result.err


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"Not found"), (301, b""), (500, b'{"oops": 1}')])
def test_a_server_that_is_no_deployment_is_told_from_one(tmp_path: Path, status: int, body: bytes) -> None:
    with answering(status, body) as url:
        result = camber(tmp_path, *TITLES, "--url", url, "--admin-key", "a|01")

    assert (result.code, result.out) == (2, ""), result
    assert f"answers with status {status}, but not as a deployment does" in result.err


def test_a_call_that_a_server_refuses_ends_with_what_it_says(tmp_path: Path) -> None:
    with answering(503, b'{"code": "CommitUnknown", "message": "It is not known \\u001b[31mwhether."}') as url:
        result = camber(tmp_path, *TITLES, "--url", url, "--admin-key", "a|01")

    assert (result.code, result.err) == (1, "error: It is not known \\x1b[31mwhether.\n"), result


def test_a_data_folder_that_is_not_there_is_named(project: Path) -> None:
    result = camber(project, *TITLES, "--data", "no/such")

    assert result.code == 2
    assert f"there is no data folder {project / 'no/such'}" in result.err, result


def test_a_data_folder_without_data_is_refused(project: Path) -> None:
    camber(project, "admin-key")

    result = camber(project, *TITLES)

    assert result.code == 2
    assert "there is no data in" in result.err, result


def test_data_without_an_application_is_refused_with_what_to_create(with_data: Path) -> None:
    (with_data / "backend").rename(with_data / "elsewhere")

    refused = camber(with_data, *TITLES)
    named = camber(with_data, *TITLES, "--app", "elsewhere")

    assert refused.code == 2
    assert "no application: none was named" in refused.err, refused
    assert "make a folder backend/ with a schema.py in it" in refused.err
    assert "camber new" not in refused.err
    assert named.out == "[]\n", named


def test_the_project_file_names_the_application(with_data: Path) -> None:
    (with_data / "backend").rename(with_data / "library")
    (with_data / "pyproject.toml").write_text('[tool.camber]\napp = "library"\n')
    (with_data / "deep").mkdir()
    found = camber(with_data / "deep", *TITLES)
    (with_data / "pyproject.toml").write_text('[tool.camber]\napp = "gone"\n')
    gone = camber(with_data, *TITLES)
    (with_data / "pyproject.toml").write_text("[tool.camber\n")
    broken = camber(with_data, *TITLES)

    assert found.out == "[]\n", found
    assert (gone.code, broken.code) == (2, 2)
    assert 'names the application "gone"' in gone.err, gone
    assert f"{with_data / 'pyproject.toml'} can't be read" in broken.err, broken


def test_an_application_can_be_a_package_that_is_installed(with_data: Path, tmp_path: Path) -> None:
    (tmp_path / "installed").mkdir()
    (with_data / "backend").rename(tmp_path / "installed/library_app")

    result = camber(with_data, *TITLES, "--app", "library_app", env={"PYTHONPATH": str(tmp_path / "installed")})

    assert result.out == "[]\n", result


def test_data_that_another_process_holds_is_waited_for_and_then_its_holder_named(with_data: Path) -> None:
    holding = "import sys, pathlib, time\nfrom camber.storage import open_storage\n"
    holding += (
        "held = open_storage(pathlib.Path('.camber'), create=False)\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding], cwd=with_data, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        begun = time.monotonic()
        result = camber(with_data, *TITLES)
        waited = time.monotonic() - begun
        holder.stdin.close()

    assert result.code == 2, result
    assert f"is in use by process {holder.pid} " in result.err
    assert waited >= 5


def test_a_command_and_a_server_that_starts_at_the_same_time_both_get_their_way(with_data: Path) -> None:
    patient = begin_with(with_data, PATIENT)
    with serving(with_data, "serve", env=patient) as starting:
        results = [camber(with_data, *TITLES, env=patient) for _ in range(3)]
        starting.wait_for("serving")

    assert [(result.code, result.out) for result in results] == [(0, "[]\n")] * 3, results


def test_an_address_that_a_killed_server_left_behind_is_no_obstacle(with_data: Path) -> None:
    with server(with_data) as running:
        running.process.kill()
        running.process.wait()
    assert (with_data / ".camber/server.json").exists()

    assert camber(with_data, *TITLES).out == "[]\n"
