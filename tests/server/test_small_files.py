"""What a process leaves in a data folder that is killed while it writes a small file there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from camber.server import SECRET_FILE, admin_key
from camber.server.address_file import Address, written_down

ADDRESS = Address("http://127.0.0.1:1", "http://127.0.0.1:2", 1, 0.0)
WRITES_AND_WAITS = """
import sys
from pathlib import Path
from camber.server.small_files import written_beside
with written_beside(Path(sys.argv[1]) / "secret", "half a secret"):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_server_clears_away_what_a_killed_process_was_writing_and_nothing_else(tmp_path: Path) -> None:
    admin_key(tmp_path, create=True)
    (tmp_path / ".note").write_text("mine")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES_AND_WAITS, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        others = {SECRET_FILE, ".note"}
        with written_down(tmp_path, ADDRESS):  # beside one that is still at it
            assert len(names(tmp_path) - others - {"server.json"}) == 1
        writer.kill()
        writer.wait()
        assert len(names(tmp_path) - others) == 1
        with written_down(tmp_path, ADDRESS):
            assert names(tmp_path) == others | {"server.json"}
        assert names(tmp_path) == others
    finally:
        writer.kill()
        writer.communicate()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
