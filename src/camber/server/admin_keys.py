"""The deployment's secret, its file in a data folder, and the admin key that is made from it (protocol 7).

The key is `<instance name>|01<hex>`. The name and a prefix such as `prod:` are for people; what counts is the part behind the `|`,
which only someone with the secret can make. A new secret makes the old key worthless, also on a server that is running.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TypeGuard

from camber.errors import DataFolderError
from camber.server.small_files import sync_folder, written_beside

SECRET_FILE: Final = "secret"

_VERSION: Final = "01"
_SECRET: Final = re.compile(r"[0-9a-f]{64}")
_LOOK_SECONDS: Final = 1.0

_Stamp = tuple[int, int, int]


def admin_key(data: Path, *, create: bool = False, instance_name: str = "camber") -> str:
    """The admin key of the deployment in `data`; where `create`, a missing folder and a missing secret are made first.

    Raises DataFolderError where there is no secret, or one that can't be read or makes no sense.
    """
    path = data / SECRET_FILE
    if create and not path.exists():
        _make_folder(data)
        _write_first(path)
    return key_of(read_secret(path), instance_name=instance_name)


def check_secret(data: Path) -> None:
    """Raises DataFolderError where the data folder has a secret that can't be read or makes no sense; it may have none yet."""
    if (data / SECRET_FILE).exists():
        read_secret(data / SECRET_FILE)


def rotate_admin_key(data: Path, *, instance_name: str = "camber") -> str:
    """Make a new secret and return the new admin key; running servers take it at once and refuse the old one within a second.

    Raises DataFolderError where the secret can't be written.
    """
    _replace(data / SECRET_FILE, new_secret())
    return admin_key(data, instance_name=instance_name)


def key_of(secret: str, *, instance_name: str = "camber") -> str:
    """The admin key that is made from this secret."""
    return f"{instance_name}|{_signature(secret)}"


def new_secret() -> str:
    """A secret that nobody can guess."""
    return secrets.token_hex(32)


def is_secret(text: object) -> TypeGuard[str]:
    """Whether this can be a secret."""
    return isinstance(text, str) and _SECRET.fullmatch(text) is not None


def read_secret(path: Path) -> str:
    """The secret in this file. Raises DataFolderError where there is none, or one that can't be read or makes no sense."""
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        raise DataFolderError(f"there is no secret at {path}; `camber admin-key` makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataFolderError(f"the secret at {path} can't be read: {error}") from error
    if not is_secret(text):
        raise DataFolderError(
            f"the secret at {path} is damaged: 64 hexadecimal digits belong there; `camber admin-key rotate` makes a new one"
        )
    return text


def write_copy(data: Path, secret: str) -> None:
    """See that the data folder has this secret, which lies elsewhere too. Raises DataFolderError where it can't be written."""
    path = data / SECRET_FILE
    with contextlib.suppress(DataFolderError):
        if read_secret(path) == secret:
            return
    _make_folder(data)
    _replace(path, secret)


class SecretFile:
    """The secret as it is in a data folder's file, which is read again when it is another one."""

    def __init__(self, data: Path) -> None:
        self._path = data / SECRET_FILE
        self._stamp: _Stamp | None = None
        self._secret: str | None = None

    def look(self) -> str | None:
        """The secret; None where the file is missing or damaged."""
        if (stamp := _stamp(self._path)) != self._stamp or self._secret is None:
            self._stamp, self._secret = stamp, None
            with contextlib.suppress(DataFolderError):
                self._secret = read_secret(self._path)
        return self._secret


class AdminKeys:
    """Tells whether a text is the admin key, by the secret as `look` finds it (once a second at most); where it finds none, none is.

    `generation` grows when the secret changed: whoever keeps a verdict drops it then.
    """

    def __init__(self, look: Callable[[], str | None]) -> None:
        self._look_for_secret = look
        self._expected: bytes | None = None
        self._next_look = 0.0
        self.generation = 0

    def accepts(self, key: str) -> bool:
        """True where `key` (without impersonation) was made from this deployment's secret. Takes the same time for every wrong key."""
        self.refresh()
        given = key.rpartition("|")[2].encode("utf-8", "surrogateescape")
        if self._is_expected(given):
            return True
        # A key that was made a moment ago, after the last look.
        self._look()
        return self._is_expected(given)

    def refresh(self) -> None:
        """Look for the secret again if the last look is at least a second ago."""
        if (now := time.monotonic()) >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look()

    def _is_expected(self, given: bytes) -> bool:
        return self._expected is not None and hmac.compare_digest(given, self._expected)

    def _look(self) -> None:
        secret = self._look_for_secret()
        expected = None if secret is None else _signature(secret).encode()
        if expected != self._expected:
            self.generation += 1
        self._expected = expected


def _signature(secret: str) -> str:
    return _VERSION + hmac.new(bytes.fromhex(secret), b"camber admin key", hashlib.sha256).hexdigest()


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(f"the data folder {data} can't be made: {error.strerror}") from error


def _write_first(path: Path) -> None:
    """Put a secret where there is none; if another process does so at the same time, its secret stands."""
    with _written_beside(path, new_secret()) as written:
        try:
            # A link, not a rename: it fails where the name exists by now, so two processes that start together agree on one secret.
            path.hardlink_to(written)
        except FileExistsError:
            pass
        except OSError:
            # A file system without hard links.
            written.replace(path)
    sync_folder(path.parent)


def _replace(path: Path, secret: str) -> None:
    with _written_beside(path, secret) as written:
        written.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _written_beside(path: Path, secret: str) -> Generator[Path]:
    try:
        with written_beside(path, secret + "\n") as written:
            yield written
    except OSError as error:
        raise DataFolderError(f"the secret {path} can't be written: {error.strerror}") from error


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
