"""The deployment's secret and the key that is made from it."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from camber.errors import DataFolderError
from camber.server import SECRET_FILE, AdminKeys, SecretFile, admin_key, rotate_admin_key


def test_a_key_is_the_name_and_a_version_and_hexadecimal_digits(tmp_path: Path) -> None:
    assert re.fullmatch(r"camber\|01[0-9a-f]{64}", admin_key(tmp_path, create=True))
    assert admin_key(tmp_path, instance_name="shop").startswith("shop|01")


def test_a_key_stays_the_same(tmp_path: Path) -> None:
    assert admin_key(tmp_path, create=True) == admin_key(tmp_path, create=True) == admin_key(tmp_path)


def test_the_secret_is_for_its_owner_only_and_never_the_key(tmp_path: Path) -> None:
    key = admin_key(tmp_path / "new" / "data", create=True)
    secret = tmp_path / "new" / "data" / SECRET_FILE
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().strip() not in key
    assert [path.name for path in secret.parent.iterdir()] == [SECRET_FILE]


def test_those_who_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: admin_key(tmp_path, create=True), range(16)))
    assert len(keys) == 1


def test_without_a_secret_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="camber admin-key"):
        admin_key(tmp_path)
    assert not AdminKeys(SecretFile(tmp_path).look).accepts("camber|01")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"z" * 64])
def test_a_damaged_secret_is_named_and_makes_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SECRET_FILE).write_bytes(content)
    with pytest.raises(DataFolderError, match=SECRET_FILE):
        admin_key(tmp_path)
    assert not AdminKeys(SecretFile(tmp_path).look).accepts("camber|01")


def test_a_damaged_secret_can_be_rotated(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"damaged")
    assert AdminKeys(SecretFile(tmp_path).look).accepts(rotate_admin_key(tmp_path))


def test_a_rotation_makes_the_old_key_worthless(tmp_path: Path) -> None:
    old = admin_key(tmp_path, create=True)
    keys = AdminKeys(SecretFile(tmp_path).look)
    assert keys.accepts(old)
    before = keys.generation

    new = rotate_admin_key(tmp_path)

    assert keys.accepts(new)
    assert not keys.accepts(old)
    assert keys.generation > before


def test_a_secret_that_was_removed_opens_nothing(tmp_path: Path) -> None:
    key = admin_key(tmp_path, create=True)
    keys = AdminKeys(SecretFile(tmp_path).look)
    assert keys.accepts(key)
    (tmp_path / SECRET_FILE).unlink()
    assert not keys.accepts("camber|01" + "0" * 64)
    assert not keys.accepts(key)


def test_the_name_before_the_bar_is_only_for_people(tmp_path: Path) -> None:
    key = admin_key(tmp_path, create=True)
    assert AdminKeys(SecretFile(tmp_path).look).accepts("another" + key.removeprefix("camber"))


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="file"):
        admin_key(tmp_path / "file" / "data", create=True)
