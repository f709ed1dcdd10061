"""`camber serve` on data that it can't use: exit code 2, a message that says what is wrong, and nothing changed."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from camber.server import admin_key
from tests.crashes.engines import opened
from tests.crashes.servers import CROWDFUNDING, serving
from tests.wire.running_server import CAMBER, clean_environment

_DROP_CAPABILITY = 24
_CAPABILITIES = (1, 2)  # to write and to read everything, whatever the modes of files say


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a server that has ended, with a backer in it."""
    data = tmp_path / "data"
    with closing(opened(data)) as backend:
        fields = {"username": "ada", "accessCode": "A1", "tier": "Gold"}
        backend.transact(lambda ctx: ctx.db.insert("crowdfunding_backers", fields), [])
    admin_key(data, create=True)
    yield data
    data.chmod(0o700)


def serve(data: Path, *, port: int = 0, site_port: int = 0) -> tuple[int, str]:
    """Try to serve it; returns the exit code and what was printed."""
    ports = ["--port", str(port), "--site-port", str(site_port)]
    done = subprocess.run(
        [CAMBER, "serve", CROWDFUNDING, *ports, "--data", data],
        cwd=data.parent,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        text=True,
        check=False,
        preexec_fn=_as_anybody,
    )
    return done.returncode, done.stdout


def _as_anybody() -> None:
    """Give up root's right to read and write everything, where the tests run as root."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None)
        for capability in _CAPABILITIES:
            assert library.prctl(_DROP_CAPABILITY, capability, 0, 0, 0) == 0


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """The digest of every file of a folder, with its mode; the lock's text, which only says who was there last, left out."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(b"" if path.name == "lock" else path.read_bytes()).hexdigest(),
            path.stat().st_mode,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(data: Path, **ports: int) -> str:
    """The message with which it ends; nothing in the folder may have changed."""
    before = contents(data)
    code, printed = serve(data, **ports)
    assert code == 2, printed
    assert "Traceback" not in printed
    assert contents(data) == before
    return printed


def overwrite(place: int, content: bytes) -> Callable[[Path], None]:
    def spoil(data: Path) -> None:
        with (data / "camber.sqlite3").open("r+b") as file:
            file.seek(place)
            file.write(content)

    return spoil


def cut(data: Path) -> None:
    file = data / "camber.sqlite3"
    os.truncate(file, file.stat().st_size - 4096)


def spoil_every_page(data: Path) -> None:
    for page in range(1, (data / "camber.sqlite3").stat().st_size // 4096):
        overwrite(page * 4096, b"\xff" * 64)(data)


def make_newer(data: Path) -> None:
    connection = apsw.Connection(str(data / "camber.sqlite3"))
    connection.execute("PRAGMA user_version = 7")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(overwrite(100, b"\xff" * 8), "is damaged", id="damage in the first page"),
        pytest.param(spoil_every_page, "is damaged", id="damage in every other page"),
        pytest.param(cut, "is damaged", id="the end is missing"),
        pytest.param(make_newer, "was written by a newer Camber (format 7", id="a newer format"),
        pytest.param(
            lambda data: (data / "camber.sqlite3").chmod(0o444), "give this user the right", id="a read-only file"
        ),
        pytest.param(lambda data: data.chmod(0o555), "give this user the right", id="a read-only folder"),
        pytest.param(lambda data: (data / "secret").write_text("no secret"), "secret", id="a damaged secret"),
    ],
)
def test_data_that_can_not_be_used_is_refused(data: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(data)

    printed = refusal(data)

    assert message in printed
    assert str(data) in printed or data.name in printed


def test_what_a_killed_server_left_in_the_wal_stays_when_the_file_is_refused(data: Path) -> None:
    """SQLite would throw such a WAL away: it belongs to a file that is whole again after the restore."""
    with serving(CROWDFUNDING, data) as server:
        with server.client() as client:
            args = {"username": "bob", "accessCode": "A1", "tier": "Gold"}
            assert client.call("crowdfundingBackers:addBacker", args).end == "done"
        server.end(signal.SIGKILL)
    good = (data / "camber.sqlite3").read_bytes()
    overwrite(0, b"nothing of ours ")(data)

    assert "is not a SQLite file" in refusal(data)

    (data / "camber.sqlite3").write_bytes(good)
    with closing(opened(data)) as backend:
        rows = backend.sql_sync("SELECT username FROM crowdfunding_backers ORDER BY username", limit=9).rows
    assert rows == [("ada",), ("bob",)]


@pytest.mark.parametrize("which", ["port", "site_port"])
def test_a_port_in_use_is_named_with_who_has_it(data: Path, which: str) -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        printed = refusal(data, **{which: port})
    finally:
        holder.communicate("\n")

    assert f"port {port} on 127.0.0.1 is taken by pid {holder.pid} (" in printed
    assert "create_server" in printed
    assert f"CAMBER_{which.upper()}" in printed


def test_a_second_server_on_one_folder_is_told_of_the_first_which_goes_on(data: Path) -> None:
    with serving(CROWDFUNDING, data) as first:
        assert first.process is not None
        printed = refusal(data)

        assert f"is in use by process {first.process.pid} on {socket.gethostname()}" in printed
        assert f"at http://127.0.0.1:{first.port}" in printed
        with first.client() as client:
            assert client.call("appState:set", {"crowdfundingActive": True}).end == "done"
        assert first.end() == 0


def test_a_file_that_is_taken_away_from_a_running_server_ends_acknowledgements(data: Path) -> None:
    """Linux would go on writing to it, and nobody would find that again."""
    file = data / "camber.sqlite3"
    with serving(CROWDFUNDING, data) as server, server.client() as client:
        good = file.read_bytes()
        file.unlink()
        assert client.call("appState:set", {"crowdfundingActive": True}).end == "refused"
        assert "removed or replaced while it was in use" in server.printed
        assert server.end() == 0
    file.write_bytes(good)
    with closing(opened(data)) as backend:
        assert backend.sql_sync("SELECT username FROM crowdfunding_backers", limit=9).rows == [("ada",)]


def test_damage_that_shows_only_later_refuses_what_needs_it_and_nothing_else(data: Path) -> None:
    with closing(opened(data)) as backend:
        table = "SELECT 't' || CAST(number AS INTEGER) FROM _tables WHERE name = 'crowdfunding_backers'"
        found = backend.sql_sync(f"SELECT rootpage FROM sqlite_schema WHERE name = ({table})", limit=1)
        ((page,),) = found.rows
    overwrite((int(str(page)) - 1) * 4096, b"\xff" * 64)(data)

    with serving(CROWDFUNDING, data) as server, server.client() as client:
        entered = {"username": "ada", "accessCode": "A1"}
        verified = client.visit("crowdfundingBackers:verifyBacker", entered, "192.0.2.1")
        added = client.call("crowdfundingBackers:addBacker", {**entered, "tier": "Gold"})
        assert {verified.reason, added.reason} == {"500 InternalServerError"}
        assert f"{data / 'camber.sqlite3'} is damaged" in server.printed
        assert client.call("appState:set", {"crowdfundingActive": True}).end == "done"
        assert server.end() == 0
