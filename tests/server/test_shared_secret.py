"""The one secret of all servers of a PostgreSQL database, and its copies in their data folders."""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from camber.backend import Backend
from camber.errors import ConfigurationError, DataFolderError
from camber.functions import load_application
from camber.server import (
    SECRET_FILE,
    AdminKeys,
    admin_key,
    copy_shared_secret,
    name_of_database,
    rotate_admin_key,
    rotate_shared_admin_key,
    shared_admin_key,
)
from camber.server.shared_secret import SharedSecret
from camber.settings import Settings
from camber.storage import open_storage

APPLICATION = Path(__file__).parent / "application"
PATIENCE = 30.0

Opening = Callable[[Path], Backend]


@pytest.fixture
def opened(postgres_url: str) -> Iterator[Opening]:
    """Opens further deployments on the test's database, each with its data folder; all are closed at the end."""
    with ExitStack() as stack:

        def open_with(data: Path) -> Backend:
            settings = Settings.from_env({"CAMBER_DATABASE_URL": postgres_url, "CAMBER_DATABASE_CONNECTIONS": "8"})
            backend = Backend.open(load_application(APPLICATION), data, settings=settings, create=True)
            return stack.enter_context(closing(backend))

        yield open_with


def accepted_soon(keys: AdminKeys, key: str) -> bool:
    return soon(lambda: keys.accepts(key))


def soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_a_server_with_an_empty_data_folder_gets_the_database_s_secret(tmp_path: Path, opened: Opening) -> None:
    SharedSecret(opened(tmp_path / "first"))
    keys = AdminKeys(SharedSecret(opened(tmp_path / "second")).look)

    assert admin_key(tmp_path / "second") == admin_key(tmp_path / "first")
    assert keys.accepts(admin_key(tmp_path / "first"))
    assert stat.S_IMODE((tmp_path / "second" / SECRET_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "second").iterdir()] == [SECRET_FILE]


def test_a_database_without_a_secret_takes_that_of_the_first_data_folder(
    tmp_path: Path, opened: Opening, postgres_url: str
) -> None:
    own, another = admin_key(tmp_path / "first", create=True), admin_key(tmp_path / "second", create=True)

    SharedSecret(opened(tmp_path / "first"))
    SharedSecret(opened(tmp_path / "second"))

    assert shared_admin_key(postgres_url, tmp_path / "third") == own != another
    assert admin_key(tmp_path / "second") == own


def test_servers_that_start_together_agree_on_one_secret(tmp_path: Path, opened: Opening) -> None:
    backends = [opened(tmp_path / str(number)) for number in range(4)]
    with ThreadPoolExecutor(len(backends)) as threads:
        secrets = [secret.look() for secret in threads.map(SharedSecret, backends)]

    assert len(set(secrets)) == 1
    assert len({admin_key(tmp_path / str(number)) for number in range(len(backends))}) == 1


def test_a_new_secret_takes_the_place_of_the_old_one_on_all_servers(
    tmp_path: Path, opened: Opening, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    servers = [AdminKeys(SharedSecret(opened(tmp_path / name)).look) for name in ("first", "second")]
    old = admin_key(tmp_path / "first")
    assert all(keys.accepts(old) for keys in servers)

    new = rotate_shared_admin_key(postgres_url)

    assert all(accepted_soon(keys, new) for keys in servers)
    assert not any(keys.accepts(old) for keys in servers)
    assert soon(lambda: {admin_key(tmp_path / name) for name in ("first", "second")} == {new})
    assert "another admin key" in caplog.text
    for key in (old, new):
        assert key.rpartition("|")[2] not in caplog.text
    assert (tmp_path / "first" / SECRET_FILE).read_text().strip() not in caplog.text


def test_a_new_secret_that_no_server_saw_is_that_of_the_next_one(
    tmp_path: Path, opened: Opening, postgres_url: str
) -> None:
    backend = opened(tmp_path / "first")
    SharedSecret(backend)
    backend.close()

    new = rotate_shared_admin_key(postgres_url)

    keys = AdminKeys(SharedSecret(opened(tmp_path / "first")).look)
    assert keys.accepts(new)
    assert admin_key(tmp_path / "first") == new


@pytest.mark.parametrize("content", [b"", b"tampered", b"\xff" * 64])
def test_a_damaged_copy_is_written_anew(tmp_path: Path, opened: Opening, content: bytes) -> None:
    SharedSecret(opened(tmp_path / "first"))
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / SECRET_FILE).write_bytes(content)

    SharedSecret(opened(tmp_path / "second"))

    assert admin_key(tmp_path / "second") == admin_key(tmp_path / "first")


def test_a_copy_that_is_as_it_should_be_is_left_alone(tmp_path: Path, opened: Opening, postgres_url: str) -> None:
    SharedSecret(opened(tmp_path))
    before = (tmp_path / SECRET_FILE).stat()

    SharedSecret(opened(tmp_path))
    copy_shared_secret(postgres_url, tmp_path)

    after = (tmp_path / SECRET_FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_counts_is_the_database_s_secret_whatever_the_file_says(tmp_path: Path, opened: Opening) -> None:
    keys = AdminKeys(SharedSecret(opened(tmp_path)).look)
    key = admin_key(tmp_path)

    another = rotate_admin_key(tmp_path)

    assert keys.accepts(key)
    assert not keys.accepts(another)


def test_a_data_folder_that_can_not_have_its_copy_is_named(tmp_path: Path, opened: Opening) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="file"):
        SharedSecret(opened(tmp_path / "file" / "data"))


def test_a_database_in_which_no_server_has_been_has_no_key(tmp_path: Path, postgres_url: str) -> None:
    for touch in (lambda: None, lambda: open_storage(tmp_path, create=True, database_url=postgres_url).close()):
        touch()
        for ask in (lambda: shared_admin_key(postgres_url, tmp_path), lambda: rotate_shared_admin_key(postgres_url)):
            with pytest.raises(ConfigurationError, match="start the server on it once"):
                ask()


def test_a_server_of_before_had_no_secret_and_the_first_who_asks_makes_one(
    tmp_path: Path, opened: Opening, postgres_url: str
) -> None:
    own = admin_key(tmp_path, create=True)
    opened(tmp_path).close()

    assert shared_admin_key(postgres_url, tmp_path) == own
    assert shared_admin_key(postgres_url, tmp_path / "elsewhere") == own
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM camber._deployment WHERE key = 'secret'").fetchone() == (1,)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", ""),
        ("postgresql://ada:hidden@db.example.com:5432/shop", "postgresql://db.example.com:5432/shop"),
        ("postgres://db.example.com/shop", "postgresql://db.example.com/shop"),
        ("postgresql://ada:hid[den@one:1,two:2/shop?target_session_attrs=read-write", "postgresql://one:1,two:2/shop"),
        ("postgresql:///shop?host=/run/pg&user=ada&password=hidden", "postgresql:///shop?host=%2Frun%2Fpg"),
        ("postgresql://ada:hidden@", "postgresql://"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, name: str) -> None:
    assert name_of_database(url) == name


def test_settings_don_t_show_the_password() -> None:
    settings = Settings.from_env({"CAMBER_DATABASE_URL": "postgresql://ada:hidden@db.example.com/shop"})

    assert settings.database_url
    assert "hidden" not in f"{settings!r} {settings}"
