"""The commands in the documentation do what the pages say, typed one after another against a real server.

A page begins in a clone of this repository (the tutorial beside one). Where it does not start a server itself, one runs already, as
docs/setup.md starts it. Ports are free ones, and what would need the network is done otherwise: see `_INSTEAD`. A page that speaks of a
PostgreSQL on its usual port finds one, with a database `camber` and its owner; until it starts a server on that, one with a file runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, REPOSITORY, Block, blocks_of, is_quotation, name_of
from tests.postgres.cluster import Cluster
from tests.wire.running_server import CAMBER, clean_environment, free_ports

TUTORIAL = REPOSITORY / "docs/tutorial.md"
WITH_COMMANDS = [page for page in PAGES if any(block.language == "console" for block in blocks_of(page))]

SECONDS = 120
DATABASE = "127.0.0.1:5432"
A_MOMENT, UNTIL_TOLD = "await asyncio.sleep(1)", "await asyncio.to_thread(input)"
"""How long a program on a page watches, and how long it does here: until it has shown what is on the page."""
STARTS_A_SERVER = re.compile(r"(?P<variables>(?:\w+=\S+ )*)(?P<command>scripts/dev|camber dev|camber serve)\b")


class Session:
    """Somebody at a terminal: the folder they are in, and the server they have started."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.port, site_port = free_ports(2)
        self.database: Cluster | None = None
        self._environment = clean_environment() | {
            "CAMBER_PORT": str(self.port),
            "CAMBER_SITE_PORT": str(site_port),
            "CI": "1",
            "COLUMNS": "80",
            "HOME": str(home),
            "NO_COLOR": "1",
            "npm_config_offline": "true",
            "PATH": f"{CAMBER.parent}{os.pathsep}{os.environ['PATH']}",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._watching: set[str] = set()
        """The commands that end when they are told to."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()

    def type(self, command: str, expected: str, place: str) -> None:
        """Carry out a command; it must succeed, or fail with the error that the page shows, and print what the page shows."""
        for beginning, instead in _INSTEAD.items():
            if command.startswith(beginning):
                instead(self, command)
                return
        if STARTS_A_SERVER.match(command):
            self.start_server(self._with_port(command).replace("scripts/dev", "camber dev", 1))
            return
        if command in self._watching:
            ended = self._watch(command, expected)
        else:
            ended = subprocess.run(
                ["bash", "-c", self._with_port(command)],
                cwd=self.folder,
                env=self._environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        fails = expected.startswith("error:")
        assert (ended.returncode != 0) == fails, f"{place}: {command}\n{ended.stdout}{ended.stderr}"
        printed = ended.stderr if fails else ended.stdout
        assert not expected or _fits(printed, expected), f"{place}: {command}\nprints\n{printed}"

    def _watch(self, command: str, expected: str) -> subprocess.CompletedProcess[str]:
        """Carry out a command that goes on until it is told to end; it is when it has printed this."""
        with subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            too_late = threading.Timer(SECONDS, process.kill)
            too_late.start()
            printed = ""
            while not _fits(printed, expected) and (line := process.stdout.readline()):
                printed += line
            rest, complaint = process.communicate("\n")
            too_late.cancel()
        return subprocess.CompletedProcess(command, process.returncode, printed + rest, complaint)

    def start_server(self, command: str) -> None:
        """Start it in place of the one that runs, and wait until it answers."""
        self.stop_server()
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                ["bash", "-c", STARTS_A_SERVER.sub(r"\g<variables>exec \g<command>", command, count=1)],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop_server(self) -> None:
        """End it, by its process id."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(SECONDS)
            self._server = None

    def write(self, block: Block, name: str) -> None:
        """Put a block at the end of the file that it is a part of."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._with_port(block.text)
        if A_MOMENT in text:
            self._watching.add(f"python {name}")
        with path.open("a", encoding="utf-8") as file:
            file.write(text.replace(A_MOMENT, UNTIL_TOLD))

    def install_convex(self) -> None:
        """What `npm install convex` does, from what this clone has installed."""
        (self.folder / "package.json").write_text(json.dumps({"private": True, "dependencies": {"convex": "*"}}))
        (self.folder / "node_modules").symlink_to(REPOSITORY / "node_modules")

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _with_port(self, text: str) -> str:
        if self.database is not None:
            text = text.replace(DATABASE, f"127.0.0.1:{self.database.port}")
        return text.replace("127.0.0.1:3210", f"127.0.0.1:{self.port}")


def _start_example(session: Session, command: str) -> None:
    """What `npm run backend` of the React example does, without the scripts of this clone."""
    here, session.folder = session.folder, session.folder / "examples/react"
    session.start_server("camber dev backend")
    session.folder = here


def _change_folder(session: Session, command: str) -> None:
    session.folder = session.folder / command.removeprefix("cd ")


_INSTEAD: dict[str, Callable[[Session, str], None]] = {
    "cd ": _change_folder,
    "python3 -m venv": lambda session, command: None,  # the tests' own environment is on the PATH
    ". .venv/bin/activate": lambda session, command: None,
    "pip install": lambda session, command: None,
    "npm init": lambda session, command: None,
    "npm install convex": lambda session, command: session.install_convex(),
    "npm --prefix examples/react run backend": _start_example,
    "npm --prefix examples/react run dev": lambda session, command: None,  # tests/browser builds the page
    "scripts/setup": lambda session, command: None,  # the tests run in what it has installed
    "scripts/test": lambda session, command: None,  # this is one of them
}


def commands_of(block: Block) -> Iterator[tuple[str, str, int]]:
    """The commands in a console block, what each prints, and on which line of the page it is."""
    command, printed, line = "", list[str](), block.line
    for number, text in enumerate(block.text.splitlines(), block.line):
        if text.startswith("$ "):
            if command:
                yield command, "\n".join(printed), line
            command, printed, line = text[2:], [], number
        elif command and command.endswith("\\"):
            command = command[:-1] + text.strip()
        else:
            printed.append(text)
    if command:
        yield command, "\n".join(printed), line


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of this repository as far as a server needs it."""
    folder = tmp_path / "camber"
    folder.mkdir()
    for name in ("pyproject.toml", "package.json"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(REPOSITORY / "apps", folder / "apps", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
    example = folder / "examples/react"
    shutil.copytree(
        REPOSITORY / "examples/react/backend", example / "backend", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "examples/react/package.json", example)
    (example / "node_modules").symlink_to(REPOSITORY / "node_modules")
    return folder


@contextmanager
def database_of_a_reader() -> Iterator[Cluster]:
    """A PostgreSQL as somebody may have it who reads such a page."""
    with Cluster() as cluster:
        cluster.sql("CREATE ROLE camber LOGIN")
        cluster.sql("CREATE DATABASE camber OWNER camber")
        yield cluster


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_the_commands_on_a_page_do_what_it_says(page: Path, clone: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None and "$ curl" in page.read_text():
        pytest.skip("the page uses curl")
    blocks = blocks_of(page)
    commands = [command for block in blocks if block.language == "console" for command, _, _ in commands_of(block)]
    with ExitStack() as stack:
        database = stack.enter_context(database_of_a_reader()) if DATABASE in page.read_text() else None
        session = stack.enter_context(Session(clone.parent if page == TUTORIAL else clone, tmp_path))
        session.database = database
        if not any(STARTS_A_SERVER.match(command) and DATABASE not in command for command in commands):
            session.start_server("camber dev")
        for block in blocks:
            if block.language == "console":
                for command, expected, line in commands_of(block):
                    session.type(command, expected, f"{name_of(page)}:{line}")
            elif block.title is not None and not is_quotation(block):
                session.write(block, block.title)


def test_scripts_dev_is_what_these_tests_take_it_for() -> None:
    assert (REPOSITORY / "scripts/dev").read_text().endswith('exec .venv/bin/camber dev "$@"\n')


def _fits(printed: str, expected: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
