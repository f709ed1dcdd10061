"""`camber serve`: starting, refusing to start, and stopping."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.commands import PATIENCE, camber, make_project, server, serving


def test_it_serves_until_it_is_told_to_stop(project: Path) -> None:
    with server(project, "backend", "--data", "data") as running:
        address = json.loads((project / "data/server.json").read_text())
        assert camber(project, "run", "books:add", '{"title": "Dune"}', "--data", "data").code == 0
        running.process.send_signal(signal.SIGTERM)
        code = running.process.wait(PATIENCE)

    assert code == 0
    assert (address["url"], address["pid"]) == (running.url, running.process.pid)
    assert not (project / "data/server.json").exists()
    assert camber(project, "run", "books:titles", "--data", "data").out == '[\n  "Dune"\n]\n'


def test_a_port_in_use_is_refused_by_name_of_its_holder_and_nothing_is_made(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        result = camber(project, "serve", "--port", str(port), "--site-port", "0")

    assert result.code == 2, result
    assert f"port {port} on 127.0.0.1 is taken by pid {os.getpid()} (" in result.err
    assert not (project / ".camber").exists()


def test_data_that_does_not_fit_is_refused_with_every_misfit(with_data: Path) -> None:
    for title in ("Dune", "Emma"):
        camber(with_data, "run", "books:add", json.dumps({"title": title}))
    ids = [json.loads(line)["_id"] for line in camber(with_data, "data", "books").out.splitlines()]
    schema = with_data / "backend/schema.py"
    before = schema.read_text()
    schema.write_text(before.replace("    title: str\n", "    title: int\n"))

    refused = camber(with_data, "serve", "--port", "0", "--site-port", "0")
    alone = camber(with_data, "data", "books")
    schema.write_text(before)

    for result in (refused, alone):
        assert result.code == 1, result
        assert "2 misfits. Nothing was changed." in result.err
        assert all(f'Document with ID "{id}" in table "books"' in result.err for id in ids)
        assert "Path: .title" in result.err
    assert len(camber(with_data, "data", "books").out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        (["nowhere"], {}, "there is no folder"),
        (["backend/schema.py"], {}, "is a file; an application is a folder"),
        (["--port", "70000"], {}, "port (CAMBER_PORT) is 70000"),
        (["--port", "4000", "--site-port", "4000"], {}, "site_port (CAMBER_SITE_PORT) is 4000"),
        (["--port", "http"], {}, 'unable to convert "http" into int'),
        (["--host", "no.such.host.invalid"], {}, "has no address"),
        ([], {"CAMBER_QUERY_THREADS": "many"}, "query_threads (CAMBER_QUERY_THREADS) is 'many'"),
    ],
)
def test_what_makes_no_sense_ends_with_exit_code_2_and_makes_nothing(
    project: Path, words: list[str], env: dict[str, str], message: str
) -> None:
    result = camber(project, "serve", *words, env=env)

    assert result.code == 2, result
    assert message in result.err
    assert "Traceback" not in result.err
    assert not (project / ".camber").exists()


def test_an_application_that_does_not_load_is_refused(project: Path) -> None:
    (project / "backend/broken.py").write_text("import nothing_of_that_name\n")

    result = camber(project, "serve")

    assert result.code == 1, result
    assert "backend/broken.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'" in result.err
    assert not (project / ".camber").exists()


def test_a_data_file_that_is_none_of_ours_is_refused_and_stays(project: Path) -> None:
    data = project / ".camber"
    data.mkdir()
    (data / "camber.sqlite3").write_bytes(b"no database at all" * 20)

    result = camber(project, "serve", "--port", "0", "--site-port", "0")

    assert result.code == 2, result
    assert "is not a SQLite file" in result.err
    assert (data / "camber.sqlite3").read_bytes() == b"no database at all" * 20


def test_a_second_server_on_the_same_data_is_told_who_has_it(project: Path) -> None:
    with server(project) as first:
        result = camber(project, "serve", "--port", "0", "--site-port", "0")

    assert result.code == 2, result
    assert f"in use by process {first.process.pid} " in result.err
    assert first.url in result.err


def test_what_the_operator_should_know_is_logged(project: Path) -> None:
    (project / "backend/clock.py").write_text(
        "import time\n\nfrom camber import QueryCtx, query\n\n\n@query\ndef now(ctx: QueryCtx) -> float:\n    return time.time()\n"
    )
    with serving(project, "serve", env={"CAMBER_QUERY_TREADS": "3"}) as running:
        running.wait_for("serving")

    lines = [json.loads(line) for line in running.printed.splitlines()]
    warnings = [line["event"] for line in lines if line["level"] == "warning"]
    assert "did you mean CAMBER_QUERY_THREADS?" in warnings[0]
    assert "uses time.time; use ctx.now" in warnings[1]


def test_two_projects_have_nothing_in_common(tmp_path: Path) -> None:
    one, other = make_project(tmp_path / "one"), make_project(tmp_path / "other")
    with server(one), server(other):
        camber(one, "run", "books:add", '{"title": "Dune"}')

        assert camber(other, "run", "books:titles").out == "[]\n"
        assert camber(one, "run", "books:titles").out != "[]\n"
