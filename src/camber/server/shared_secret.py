"""The secret of a deployment whose data lies in PostgreSQL: in the database, for all its servers, and a copy in each data folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from camber.backend import Backend, change_stored_value, stored_value
from camber.errors import DataFolderError
from camber.server.admin_keys import SECRET_FILE, is_secret, key_of, new_secret, read_secret, write_copy

_KEY: Final = "secret"

_log = logging.getLogger("camber.server")


def shared_admin_key(database_url: str, data: Path, *, instance_name: str = "camber") -> str:
    """The admin key of the deployment in this database. Where it has none yet, it gets the secret of this data folder, or a new one.

    Raises ConfigurationError where the database can't be used or has nothing of ours, StorageError.
    """
    secret = stored_value(database_url, _KEY)
    if not is_secret(secret):
        secret = change_stored_value(database_url, _KEY, lambda found: found if is_secret(found) else _own_or_new(data))
    return key_of(str(secret), instance_name=instance_name)


def rotate_shared_admin_key(database_url: str, *, instance_name: str = "camber") -> str:
    """Make a new secret and return the new admin key; running servers take it within a second and refuse the old one then.

    Raises as `shared_admin_key` does.
    """
    secret = change_stored_value(database_url, _KEY, lambda _: new_secret())
    return key_of(str(secret), instance_name=instance_name)


def copy_shared_secret(database_url: str, data: Path) -> None:
    """Put the database's secret into this data folder too. Raises DataFolderError, and as `shared_admin_key` does."""
    secret = stored_value(database_url, _KEY)
    if is_secret(secret):
        write_copy(data, secret)


class SharedSecret:
    """The secret of a running server's database as the server knows it."""

    def __init__(self, backend: Backend) -> None:
        """Learn it, and where there is none yet, have the database keep the data folder's, or a new one.

        Raises DataFolderError where the data folder can't have its copy, StorageError.
        """
        self._data, self._database = backend.data, backend.database
        self._secret: str | None = None
        # First: a change that comes after this is told, one that came before is seen.
        self._database.when_deployment_changes.append(self._look_again)
        own = _own_or_new(self._data)
        self._secret = self._known(self._database.keep_value(_KEY, own))
        if self._secret is not None:
            write_copy(self._data, self._secret)

    def look(self) -> str | None:
        """The secret; None where the database has something else in its place."""
        return self._secret

    def _look_again(self) -> None:
        """On the thread that follows the others' commits; raises StorageError, and is called again then."""
        secret = self._known(self._database.value(_KEY))
        if secret == self._secret:
            return
        self._secret = secret
        _log.info("the deployment has another admin key from now on")
        if secret is not None:
            try:
                write_copy(self._data, secret)
            except DataFolderError as error:
                _log.warning("the data folder does not have the new secret: %s", error)

    @staticmethod
    def _known(found: object) -> str | None:
        return found if is_secret(found) else None


def _own_or_new(data: Path) -> str:
    """The secret that the data folder has already, else a new one."""
    try:
        return read_secret(data / SECRET_FILE)
    except DataFolderError:
        return new_secret()
