"""The proxies of `deploy/`, started for a test with these very files: only addresses and paths are others."""

from __future__ import annotations

import getpass
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.wire.running_server import REPOSITORY, free_ports

FILES = REPOSITORY / "deploy"
SERVERS = ("10.0.0.11:3210", "10.0.0.12:3210")
"""The servers in the files."""

SECONDS_TO_START = 30.0

_SURROUNDINGS = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/log;
{user}
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused1;
    uwsgi_temp_path {folder}/unused2;
    scgi_temp_path {folder}/unused3;
    include {folder}/camber.conf;
}}
"""
"""What a packaged nginx has around a file in conf.d."""


@dataclass(frozen=True)
class Proxy:
    """A proxy that takes connections on `port` of 127.0.0.1, by TLS with a certificate that `authority` vouches for."""

    name: str
    port: int
    authority: Path
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def trust(self) -> ssl.SSLContext:
        """How a client of it is sure whom it speaks with."""
        return ssl.create_default_context(cafile=str(self.authority))

    def command(self, line: str) -> str:
        """Say this to haproxy's admin socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.folder / "admin.sock"))
            connection.sendall(f"{line}\n".encode())
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        return answer.decode()


@contextmanager
def haproxy(servers: Sequence[int]) -> Iterator[Proxy]:
    """haproxy with deploy/haproxy.cfg, in front of the servers on these ports."""
    with _folder() as folder:
        port = free_ports(1)[0]
        certificate = _certificate(folder)
        (folder / "both.pem").write_bytes(certificate.read_bytes() + certificate.with_suffix(".key").read_bytes())
        changes = {
            "bind :443": f"bind 127.0.0.1:{port}",
            "/etc/haproxy/api.example.com.pem": f"{folder}/both.pem",
            "/run/haproxy/admin.sock": f"{folder}/admin.sock",
            "log /dev/log local0": "log stdout format raw local0",
        }
        if getpass.getuser() != "root":
            changes |= {"    user haproxy\n": "", "    group haproxy\n": ""}
        file = folder / "haproxy.cfg"
        file.write_text(_changed("haproxy.cfg", changes, servers))
        _check(["haproxy", "-c", "-f", file])
        with _running("haproxy", port, folder, certificate, ["haproxy", "-db", "-f", file]) as proxy:
            yield proxy


@contextmanager
def nginx(servers: Sequence[int]) -> Iterator[Proxy]:
    """nginx with deploy/nginx.conf in its `http` block, in front of the servers on these ports."""
    with _folder() as folder:
        port = free_ports(1)[0]
        certificate = _certificate(folder)
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/api.example.com.pem": str(certificate),
            "/etc/ssl/api.example.com.key": str(certificate.with_suffix(".key")),
        }
        (folder / "camber.conf").write_text(_changed("nginx.conf", changes, servers))
        user = "user root;" if getpass.getuser() == "root" else ""
        (folder / "nginx.conf").write_text(_SURROUNDINGS.format(folder=folder, user=user))
        command: list[str | Path] = ["nginx", "-p", folder, "-e", folder / "log", "-c", folder / "nginx.conf"]
        _check([*command, "-t"])
        with _running("nginx", port, folder, certificate, command) as proxy:
            yield proxy


KINDS = {"haproxy": haproxy, "nginx": nginx}


def _changed(name: str, changes: Mapping[str, str], servers: Sequence[int]) -> str:
    text = (FILES / name).read_text()
    also = {there: f"127.0.0.1:{port}" for there, port in zip(SERVERS, servers, strict=True)}
    for there, here in {**changes, **also}.items():
        assert text.count(there) == 1, f"deploy/{name} has {there!r} {text.count(there)} times"
        text = text.replace(there, here)
    return text


def _check(command: Sequence[str | Path]) -> None:
    """Have the program look at its configuration; it must find nothing to complain of."""
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert "warn" not in said.lower(), said


@contextmanager
def _running(name: str, port: int, folder: Path, certificate: Path, command: Sequence[str | Path]) -> Iterator[Proxy]:
    with (folder / "printed").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _listens(port):
            assert process.poll() is None, (folder / "printed").read_text()
            assert time.monotonic() < deadline, (folder / "printed").read_text()
            time.sleep(0.05)
        yield Proxy(name, port, certificate, folder, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


@contextmanager
def _folder() -> Iterator[Path]:
    # Not pytest's: the path of a Unix socket may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="camber-proxy-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself; the key lies beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "api.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path
