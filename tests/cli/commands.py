"""The real command as a subprocess, and the servers it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crashes.servers import UNHURRIED
from tests.wire.running_server import clean_environment, free_ports

CAMBER = Path(sys.executable).with_name("camber")
PROJECT = Path(__file__).parent / "project"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def camber(folder: Path, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Result:
    """`camber WORDS...` in this folder, to its end."""
    done = subprocess.run(
        [CAMBER, *words],
        cwd=folder,
        env=clean_environment() | UNHURRIED | dict(env or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def make_project(folder: Path) -> Path:
    """A folder with the library application in `backend/`."""
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return folder


def begin_with(folder: Path, code: str) -> dict[str, str]:
    """The environment in which each Python runs this before anything else."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))}


def rewrite(file: Path, text: str) -> None:
    """Give a file this text at once: a server that looks meanwhile finds the one before or this one, and no half of it."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


@dataclass(slots=True)
class Serving:
    """A `camber serve` or `camber dev` that runs; `printed` is all it said so far."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    site_port: int
    log: Path
    seen: int = field(default=0)

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> str:
        """Wait until this is printed, behind what was waited for before; returns what was printed since then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            is_over = self.process.poll() is not None or time.monotonic() > deadline
            if text in self.printed[self.seen :]:
                break
            assert not is_over, f"{text!r} was not printed behind {self.seen}:\n{self.printed}"
            time.sleep(0.02)
        since, self.seen = self.printed[self.seen :], self.printed.index(text, self.seen) + len(text)
        return since

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def serving(folder: Path, command: str, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """The command on free ports in this folder; ended when the block is left. It may not answer yet."""
    port, site_port = free_ports(2)
    log = folder / f"{command}.{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [CAMBER, command, *words, "--port", str(port), "--site-port", str(site_port)],
            cwd=folder,
            env=clean_environment() | UNHURRIED | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Serving(process, f"http://127.0.0.1:{port}", port, site_port, log)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def server(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """`camber serve` in this folder, ready for requests, telling callers what goes wrong."""
    with serving(folder, "serve", *words, env={"CAMBER_DEV": "1"} | dict(env or {})) as running:
        running.wait_for("serving")
        yield running
