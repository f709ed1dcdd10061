"""A commit of which nobody knows whether it is on disk ends the server; what a caller hears is that it is not known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from camber.server import address_of
from tests.cli.commands import PATIENCE, camber

SERVER = Path(__file__).with_name("server_on_a_faulty_disk.py")


def test_it_ends_the_process_with_an_error_and_the_caller_is_told(with_data: Path) -> None:
    log = with_data / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, SERVER],
            cwd=with_data,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while (address := address_of(with_data / ".camber")) is None or '"serving"' not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        idle = HTTPConnection(str(urlsplit(address.url).hostname), urlsplit(address.url).port)
        idle.connect()
        result = camber(with_data, "run", "books:add", '{"title": "Dune"}')
        code = process.wait(PATIENCE)
        idle.close()
    finally:
        process.kill()
        process.wait()

    assert (result.code, result.out) == (1, ""), result
    assert "not known" in result.err
    assert code == 1, log.read_text()
    assert "the server ends" in log.read_text()
    assert camber(with_data, "run", "books:titles").out in {"[]\n", '[\n  "Dune"\n]\n'}
