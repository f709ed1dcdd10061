"""A real server process: its ports, its connections, its log, and how it starts and stops."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from camber.backend import Backend
from camber.functions import load_application
from camber.identity import OPERATOR
from camber.server import Address, address_of, admin_key, rotate_admin_key
from camber.settings import Settings
from tests.server.asking import call
from tests.wire.raw_client import raw_client

SERVING = Path(__file__).parent / "serving.py"
PATIENCE = 60.0
DEFAULTS = Settings()


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[str]
    data: Path
    address: Address
    log: Path

    def ask(
        self, method: str, path: str, content: object = None, *, key: str | None = None, site: bool = False
    ) -> tuple[int, bytes]:
        with self.connection(site=site) as connection:
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, {} if key is None else {"Authorization": f"Convex {key}"})
            response = connection.getresponse()
            return response.status, response.read()

    def value(self, kind: str, path: str, args: object = None, *, key: str | None = None) -> object:
        status, body = self.ask("POST", f"/api/{kind}", call(path, args), key=key)
        assert status == 200, body
        return json.loads(body)["value"]

    @contextmanager
    def connection(self, *, site: bool = False) -> Iterator[http.client.HTTPConnection]:
        url = urlsplit(self.address.site_url if site else self.address.url)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=PATIENCE)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def bare_connection(self) -> Iterator[socket.socket]:
        url = urlsplit(self.address.url)
        with socket.create_connection((str(url.hostname), url.port or 0), timeout=PATIENCE) as connection:
            yield connection

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def logged(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Starting = Callable[..., Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starting]:
    """Starts servers; called with settings by name, it waits until the server answers. All are stopped at the end."""
    servers: list[Server] = []

    def start_with(data: Path | None = None, **settings: object) -> Server:
        folder = tmp_path_factory.mktemp("server")
        own = {"port": 0, "site_port": 0, "mutation_seconds": PATIENCE, "query_seconds": PATIENCE, **settings}
        server = _start(data or folder / "data", folder / "log", **own)
        servers.append(server)
        return server

    yield start_with
    for server in servers:
        server.stop()


def _start(data: Path, log: Path, **settings: object) -> Server:
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(SERVING), str(data)], env=_environment(settings), stderr=out, text=True
        )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if (address := address_of(data)) is not None and address.pid == process.pid and '"serving"' in log.read_text():
            return Server(process, data, address, log)
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise AssertionError(log.read_text())


def _environment(settings: dict[str, object]) -> dict[str, str]:
    own = {f"CAMBER_{name.upper()}": str(value) for name, value in settings.items()}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("CAMBER_")}, **own}


@pytest.fixture(scope="module")
def server(start: Starting) -> Server:
    """A server with small bounds, shared by this file's tests."""
    return start(dev=1, header_bytes="8KiB", request_body_bytes="64KiB", connections=20)


@pytest.fixture(scope="module")
def impatient(start: Starting) -> Server:
    """One that does not wait long for a head."""
    return start(header_seconds=0.5)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def answers(server: Server) -> bool:
    """Whether it takes this connection and answers."""
    try:
        return server.ask("GET", "/healthz")[0] == 200
    except (ConnectionError, http.client.BadStatusLine):
        return False


def is_open(connection: socket.socket) -> bool:
    """Whether the server has its end of this connection open still."""
    try:
        ends = " ".join(f"0100007F:{port:04X}" for _, port in (connection.getpeername(), connection.getsockname()))
    except OSError:  # it was reset
        return False
    return f"{ends} 01 " in Path("/proc/net/tcp").read_text()


def test_both_ports_answer(server: Server) -> None:
    assert server.value("query", "notes:same", {"value": "ä"}) == "ä"
    status, body = server.ask("GET", "/hook", site=True)
    assert (status, body) == (404, b"This Convex deployment does not have HTTP actions enabled.")


def test_a_server_on_a_port_that_the_system_chose_tells_its_functions(server: Server) -> None:
    key = admin_key(server.data)

    assert server.value("function", "_system/cli/convexUrl:cloudUrl", key=key) == server.address.url
    assert server.value("function", "_system/cli/convexUrl:siteUrl", key=key) == server.address.site_url


def test_the_data_folder_says_where_the_server_is(server: Server) -> None:
    file = server.data / "server.json"
    said = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert said.keys() == {"url", "site_url", "pid", "started"}
    assert (said["pid"], said["url"]) == (server.process.pid, server.address.url)
    assert abs(said["started"] / 1000 - time.time()) < 300


def test_a_connection_serves_many_requests(server: Server) -> None:
    with server.connection() as connection:
        for number in range(50):
            connection.request("POST", "/api/query", json.dumps(call("notes:same", {"value": number})))
            assert json.loads(connection.getresponse().read())["value"] == number


def test_requests_sent_at_once_are_answered_in_order(server: Server) -> None:
    body = json.dumps(call("notes:same", {"value": "x"})).encode()
    request = b"POST /api/query HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with server.bare_connection() as connection:
        connection.sendall(request * 20 + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answered = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answered.count(b'"value":"x"') == 20
    assert answered.endswith(b"ok")


def test_a_key_that_was_rotated_meanwhile_is_taken_at_once(server: Server) -> None:
    old = admin_key(server.data)
    assert server.value("function", "notes:hidden", key=old) == "hidden"
    new = rotate_admin_key(server.data)
    assert server.value("function", "notes:hidden", key=new) == "hidden"
    assert server.ask("POST", "/api/function", call("notes:hidden"), key=old)[0] == 403


def test_a_live_client_that_was_let_in_by_an_old_key_has_to_show_the_new_one(server: Server) -> None:
    with raw_client(server.address.url) as operator, raw_client(server.address.url) as visitor:
        visitor.connect()
        operator.connect()
        operator.say("Authenticate", baseVersion=0, tokenType="Admin", value=admin_key(server.data))
        assert operator.hear_transition()
        new = rotate_admin_key(server.data)
        assert operator.hear()["type"] == "AuthError"
        assert operator.hear_goodbye() == 1000
        visitor.say("Authenticate", baseVersion=0, tokenType="Admin", value=new)
        assert visitor.hear_transition()
        time.sleep(1.5)  # longer than it takes to look at the key
        visitor.mutation(0, "notes:add", text="still there")
        assert visitor.hear_response()["success"]


# Connections that are up to no good.
def read_all(connection: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: connection.recv(65_536), b""))
    except ConnectionError:
        return b""


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"\r\n\r\n", b"POST /api/query HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_a_head_that_does_not_come_ends_the_connection(impatient: Server, sent: bytes) -> None:
    with impatient.bare_connection() as connection:
        began = time.monotonic()
        with suppress(ConnectionError):
            connection.sendall(sent)
        assert read_all(connection) == b""
        assert time.monotonic() - began < DEFAULTS.header_seconds


def test_a_head_that_trickles_in_ends_the_connection(impatient: Server) -> None:
    with impatient.bare_connection() as connection:
        began = time.monotonic()
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nx: ")
            while is_open(connection):
                assert time.monotonic() - began < DEFAULTS.header_seconds
                connection.sendall(b"y")
                time.sleep(0.05)


def test_a_head_without_end_is_refused(server: Server) -> None:
    with server.bare_connection() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(3):
            connection.sendall(b"y" * 4_000)
            time.sleep(0.05)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")
    assert server.ask("GET", "/healthz")[0] == 200


def test_a_body_s_trailers_without_end_are_cut_off(server: Server) -> None:
    sent = 0
    with server.bare_connection() as connection, suppress(ConnectionError):
        connection.sendall(b"POST /api/query HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ")
        while sent < 64 << 20:
            sent += connection.send(b"y" * 65_536)
    assert sent < 64 << 20
    assert server.ask("GET", "/healthz")[0] == 200


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_refused(server: Server, sent: bytes) -> None:
    with server.bare_connection() as connection:
        connection.sendall(sent)
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_sends_a_body_too_large_gets_to_the_answer(server: Server) -> None:
    status, body = server.ask("POST", "/api/query", "x" * 200_000)
    assert (status, body) == (413, b"The request's body is too large.")


def test_a_client_that_asks_before_it_sends_is_told_at_once(server: Server) -> None:
    with server.bare_connection() as connection:
        connection.sendall(
            b"POST /api/query HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_connections_are_bounded(server: Server) -> None:
    time.sleep(0.1)
    url = urlsplit(server.address.url)
    opened = [socket.create_connection((str(url.hostname), url.port or 0), timeout=PATIENCE) for _ in range(20)]
    with server.bare_connection() as one_more:
        assert read_all(one_more) == b""
    for connection in opened:
        connection.close()
    wait_until(lambda: answers(server))


@pytest.mark.parametrize(
    ("path", "key", "status", "reason"),
    [
        (b"/api/1.48.0/sync", b"AAAA", b"400", b"Sec-WebSocket-Key"),
        (b"/api/query", b"dGhlIHNhbXBsZSBub25jZQ==", b"404", b"There is no WebSocket at /api/query"),
        (b"/api/sync", b"dGhlIHNhbXBsZSBub25jZQ==", b"101", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ],
)
def test_a_web_socket_opens_at_its_place_and_is_refused_elsewhere_with_the_reason(
    server: Server, path: bytes, key: bytes, status: bytes, reason: bytes
) -> None:
    upgrade = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: "
    with server.bare_connection() as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + upgrade + key + b"\r\n\r\n")
        if status == b"101":
            connection.shutdown(socket.SHUT_WR)
        answered = read_all(connection)
    assert answered.startswith(b"HTTP/1.1 " + status)
    assert reason in answered


# Starting and stopping.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_finishes_what_runs(start: Starting, number: int) -> None:
    server = start(shutdown_seconds=PATIENCE)
    with server.connection() as connection:
        connection.request("POST", "/api/action", json.dumps(call("notes:later", {"seconds": 0.7})))
        time.sleep(0.2)
        server.process.send_signal(number)
        assert json.loads(connection.getresponse().read())["value"] == "later"
    assert server.process.wait(PATIENCE) == 0
    assert not (server.data / "server.json").exists()


def test_it_does_not_wait_longer_than_it_may(start: Starting) -> None:
    server = start(shutdown_seconds=1)
    with server.connection() as connection:
        connection.request("POST", "/api/action", json.dumps(call("notes:later", {"seconds": 2 * PATIENCE})))
        time.sleep(0.2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answered = connection.getresponse()
        assert (answered.status, json.loads(answered.read())["code"]) == (503, "CommitUnknown")
    assert server.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < DEFAULTS.shutdown_seconds


def test_what_was_written_is_there_after_a_restart(start: Starting) -> None:
    first = start()
    first.value("mutation", "notes:add", {"text": "kept"})
    first.stop()
    second = start(data=first.data)
    assert second.value("query", "notes:texts") == ["kept"]
    assert admin_key(second.data) == admin_key(first.data)


def test_a_server_whose_functions_do_not_stop_starts_anew_under_its_process_id(start: Starting, tmp_path: Path) -> None:
    application, settings = load_application(SERVING.parent / "application"), Settings(mutation_seconds=PATIENCE)
    with closing(Backend.open(application, tmp_path, settings=settings, create=True)) as backend:
        assert backend.run_sync("notes:add", b'{"text":"before"}', OPERATOR).ok
    server = start(data=tmp_path, mutation_seconds=0.1, shutdown_seconds=1)
    for _ in range(3):
        status, body = server.ask("POST", "/api/mutation", call("notes:stubborn"))
        assert status == 503 or json.loads(body)["status"] == "error"

    end = time.monotonic() + PATIENCE
    while (address := address_of(server.data)) in {None, server.address}:
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.05)

    assert address is not None
    assert address.pid == server.process.pid
    server.address = address
    assert server.value("query", "notes:texts") == ["before"]


def test_a_taken_port_is_named_with_who_has_it(start: Starting, server: Server, tmp_path: Path) -> None:
    port = urlsplit(server.address.url).port
    with pytest.raises(AssertionError) as refused:
        start(data=tmp_path / "data", port=port)
    assert f"port {port} on 127.0.0.1 is taken by pid {server.process.pid} (" in str(refused.value)
    assert "serving.py" in str(refused.value)
    assert "CAMBER_PORT" in str(refused.value)


def test_a_host_that_is_not_there_is_named(start: Starting) -> None:
    with pytest.raises(
        AssertionError, match=r"host \(CAMBER_HOST\) is '192\.0\.2\.1', which is no address of this machine"
    ):
        start(host="192.0.2.1")
    with pytest.raises(AssertionError, match=r"host \(CAMBER_HOST\) is 'no\.such\.invalid', which has no address"):
        start(host="no.such.invalid")


def test_the_log_is_json_lines_without_secrets(start: Starting) -> None:
    server = start()
    key = admin_key(server.data)
    server.ask("POST", "/api/function", call("notes:hidden"), key=key)
    server.stop()

    assert [event["event"] for event in server.logged()] == ["serving", "stopping"]
    assert server.logged()[0]["url"] == server.address.url
    assert not re.search(r"01[0-9a-f]{64}", server.log.read_text())


def test_a_client_that_does_not_read_its_answer_is_cut_off(start: Starting) -> None:
    server = start(keep_alive_seconds=1)
    size = 12 << 20
    with server.bare_connection() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        wait_until(lambda: not is_open(connection))
        assert len(read_all(connection)) < size
    assert server.ask("GET", "/healthz")[0] == 200
