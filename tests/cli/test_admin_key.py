"""`camber admin-key`: the key on stdout, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.commands import camber, server

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
