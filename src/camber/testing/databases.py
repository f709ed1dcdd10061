"""PostgreSQL databases for the backends of tests, one for each: made when they are needed, emptied and used again, dropped at the end."""

from __future__ import annotations

import atexit
import secrets
import threading
from contextlib import closing, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from camber.errors import ConfigurationError
from camber.settings import TEST_DATABASE_VARIABLE

_SCHEMA: Final = "camber"  # what Camber keeps in a database lies in there, and nothing else
_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def take_database(server: str) -> str:
    """The URL of an empty database for one backend, on the server of this URL. Raises ConfigurationError."""
    return _databases.take(server)


def give_back_database(url: str) -> None:
    """The backend is closed: its database may be another one's."""
    _databases.give_back(url)


class _Databases:
    """Those that this process has made. To make one takes PostgreSQL longer than to empty one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[str, str] = {}  # by the URLs of databases
        self._empty: dict[str, list[str]] = {}  # by the URLs of servers

    def take(self, server: str) -> str:
        with self._lock:
            if empty := self._empty.get(server):
                return empty.pop()
        name = f"camber_test_{secrets.token_hex(6)}"
        url = urlsplit(server)._replace(path=f"/{name}").geturl()
        try:
            with closing(_connect(server)) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name))
                )
        except psycopg.Error as error:
            # Not in libpq's words where the URL itself is wrong: they may repeat parts of it.
            said = str(error).strip() if isinstance(error, psycopg.OperationalError) else type(error).__name__
            raise ConfigurationError(
                f"{TEST_DATABASE_VARIABLE}: no database for tests can be made there: {said}"
            ) from None
        with self._lock:
            if not self._servers:
                atexit.register(self._drop_all)
            self._servers[url] = server
        return url

    def give_back(self, url: str) -> None:
        with suppress(psycopg.Error):  # it is dropped at the end, like all
            with closing(_connect(url)) as connection:
                connection.execute(_OTHERS)
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_SCHEMA)))
            with self._lock:
                self._empty.setdefault(self._servers[url], []).append(url)

    def _drop_all(self) -> None:
        for url, server in self._servers.items():
            name = urlsplit(url).path.removeprefix("/")
            with suppress(psycopg.Error), closing(_connect(server)) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _connect(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
    connection.execute("SET client_min_messages = warning")
    return connection


_databases = _Databases()
