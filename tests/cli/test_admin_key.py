"""`camber admin-key`: the key on stdout, and nothing else."""

from __future__ import annotations

import json
import re
import time
from http.client import HTTPConnection
from pathlib import Path

from tests.cli.commands import PATIENCE, Serving, camber, server, serving

KEY = re.compile(r"camber\|01[0-9a-f]{64}\n")


def test_the_key_is_printed_and_nothing_else_also_while_a_server_runs(project: Path) -> None:
    before = camber(project, "admin-key", "--data", "data")
    with server(project, "--data", "data"):
        during = camber(project, "admin-key", "--data", "data")

    assert KEY.fullmatch(before.out), before
    assert (before.code, before.err) == (0, "")
    assert during.out == before.out


def test_the_data_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    assert camber(tmp_path, "admin-key").code == 0
    assert (tmp_path / ".camber/secret").stat().st_mode & 0o777 == 0o600


def test_the_nearest_data_folder_above_is_taken(tmp_path: Path) -> None:
    (tmp_path / "deep/down").mkdir(parents=True)
    above = camber(tmp_path, "admin-key")

    assert camber(tmp_path / "deep/down", "admin-key").out == above.out
    assert not (tmp_path / "deep/down/.camber").exists()


def test_a_new_key_takes_the_place_of_the_old_one_on_a_running_server(deployment: Path) -> None:
    old = camber(deployment, "admin-key").out
    new = camber(deployment, "admin-key", "rotate").out

    assert KEY.fullmatch(new)
    assert new != old
    assert camber(deployment, "admin-key").out == new
    assert camber(deployment, "run", "books:titles").code == 0


def test_a_copy_of_the_old_key_is_pointed_out(tmp_path: Path) -> None:
    key = camber(tmp_path, "admin-key").out.strip()
    (tmp_path / ".env.local").write_text(f"CONVEX_SELF_HOSTED_ADMIN_KEY='{key}'\n")

    result = camber(tmp_path, "admin-key", "rotate")

    assert KEY.fullmatch(result.out)
    assert ".env.local still has the old key" in result.err, result
    assert key in (tmp_path / ".env.local").read_text()


def test_a_secret_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".camber").mkdir()
    (tmp_path / ".camber/secret").write_text("tampered")

    result = camber(tmp_path, "admin-key")

    assert (result.code, result.out) == (2, ""), result
    assert f"the secret at {tmp_path / '.camber/secret'} is damaged" in result.err


def test_the_instance_name_stands_before_the_key(tmp_path: Path) -> None:
    result = camber(tmp_path, "admin-key", env={"CAMBER_INSTANCE_NAME": "shop", "CAMBER_DATA": "elsewhere"})

    assert result.out.startswith("shop|01"), result
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


# Where the data lies in PostgreSQL


def accepts(running: Serving, key: str) -> bool:
    connection = HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    try:
        call = json.dumps({"path": "_system/cli/modules:apiSpec", "args": {}})
        connection.request("POST", "/api/query", call, {"Authorization": f"Convex {key}"})
        return connection.getresponse().status == 200
    finally:
        connection.close()


def test_all_servers_of_a_database_have_one_key_and_a_new_one_takes_its_place(project: Path, postgres_url: str) -> None:
    env = {"CAMBER_DATABASE_URL": postgres_url}
    for folder in ("one", "two"):
        camber(project, "admin-key", "--data", folder)  # each its own, while nobody says that there is a database
    with (
        serving(project, "serve", "--data", "one", env=env) as first,
        serving(project, "serve", "--data", "two", env=env) as second,
    ):
        servers = [first, second]
        for running in servers:
            running.wait_for('"serving"')
        old = camber(project, "admin-key", env=env).out.strip()
        assert all(accepts(running, old) for running in servers)
        refused = camber(project, "admin-key", "rotate", "--data", "one")
        assert (refused.code, refused.out) == (2, "")
        assert "CAMBER_DATABASE_URL" in refused.err, "without it only the folder's copy would change"
        assert camber(project, "admin-key", "--data", "one").out.strip() == old

        new = camber(project, "admin-key", "rotate", "--data", "one", env=env).out.strip()

        deadline = time.monotonic() + PATIENCE
        while any(accepts(running, old) for running in servers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert new != old
        assert [accepts(running, old) for running in servers] == [False, False]
        assert [accepts(running, new) for running in servers] == [True, True]
    keys = [camber(project, "admin-key", "--data", folder).out.strip() for folder in ("one", "two")]
    assert keys == [new, new]
    for running in servers:
        assert not any(key.rpartition("|")[2] in running.printed for key in (old, new))


def test_the_key_of_a_database_is_changed_while_no_server_runs(project: Path, postgres_url: str) -> None:
    env = {"CAMBER_DATABASE_URL": postgres_url}
    with server(project, env=env):
        old = camber(project, "admin-key", env=env).out

    (project / ".env.local").write_text(f"CONVEX_SELF_HOSTED_ADMIN_KEY='{old.strip()}'\n")
    rotated = camber(project, "admin-key", "rotate", "--data", "not-there", env=env)
    shown = camber(project, "admin-key", env=env)

    assert KEY.fullmatch(rotated.out), rotated
    assert ".env.local still has the old key" in rotated.err
    assert shown.out == rotated.out != old
    assert not (project / "not-there").exists()
    assert camber(project, "admin-key").out == rotated.out, "the data folder has its copy"
    with server(project, env=env) as running:
        assert accepts(running, rotated.out.strip())


def test_a_key_is_printed_also_where_the_data_folder_can_not_have_its_copy(project: Path, postgres_url: str) -> None:
    env = {"CAMBER_DATABASE_URL": postgres_url}
    with server(project, env=env):
        pass
    (project / "data/secret").mkdir(parents=True)

    result = camber(project, "admin-key", "rotate", "--data", "data", env=env)

    assert (result.code, KEY.fullmatch(result.out) is not None) == (0, True), result
    assert "the data folder does not have the key" in result.err
    assert [path.name for path in (project / "data").iterdir()] == ["secret"]
