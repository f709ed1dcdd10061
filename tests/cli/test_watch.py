"""`camber run --watch`: the values of a query, one after the other."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import CAMBER, PATIENCE, camber, make_project, server
from tests.wire.loose_wire import loose_wire
from tests.wire.running_server import clean_environment


@dataclass(frozen=True, slots=True)
class Watching:
    """A `camber run --watch` that runs."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait_for(self, text: str, *, file: Path | None = None) -> None:
        """Wait until all that was printed on stdout, or in this file, ends so."""
        file = file or self.out
        self._wait(lambda: file.read_text().endswith(text), text)

    def end(self) -> int:
        """Wait until it has ended; returns its exit code."""
        return self.process.wait(PATIENCE)

    def interrupt(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def _wait(self, until: Callable[[], bool], text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not printed:\n{self.out.read_text()}\n{self.err.read_text()}")
            time.sleep(0.02)


@contextmanager
def watching(folder: Path, *words: str) -> Iterator[Watching]:
    """`camber run WORDS... --watch` in this folder; ended when the block is left."""
    out, err = folder / "watch.out", folder / "watch.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [CAMBER, "run", *words, "--watch"], cwd=folder, env=clean_environment(), stdout=stdout, stderr=stderr
        )
    try:
        yield Watching(process, out, err)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose server runs."""
    folder = make_project(tmp_path_factory.mktemp("served") / "library")
    with server(folder):
        yield folder


def test_each_new_value_is_printed_until_ctrl_c(served: Path) -> None:
    with watching(served, "books:titles") as watch:
        watch.wait_for("[]\n")
        camber(served, "run", "books:add", '{title: "Emma"}')
        watch.wait_for('[]\n[\n  "Emma"\n]\n')
        camber(served, "run", "books:add", '{title: "Dune"}')
        watch.wait_for('[\n  "Dune",\n  "Emma"\n]\n')

        assert watch.interrupt() == 130
        assert watch.err.read_text() == ""


def test_null_is_printed_and_arguments_and_an_identity_count(served: Path) -> None:
    with watching(served, "books:reader") as watch:
        watch.wait_for("null\n")
    with watching(served, "api.books.reader", "{}", "--identity", '{name: "Ada"}') as watch:
        watch.wait_for("}\n")
        assert json.loads(watch.out.read_text())["subject"] == "1947304225"


def test_it_goes_on_with_a_server_that_was_started_again(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "library")
    with ExitStack() as stack:
        with server(folder) as first:
            wire = stack.enter_context(loose_wire(first.port))
            key = camber(folder, "admin-key").out.strip()
            watch = stack.enter_context(watching(folder, "books:titles", "--url", wire.url, "--admin-key", key))
            watch.wait_for("[]\n")
        watch.wait_for("trying again\n", file=watch.err)
        with server(folder) as second:
            wire.leads_to = second.port
            camber(folder, "run", "books:add", '{title: "Emma"}')
            watch.wait_for('[]\n[\n  "Emma"\n]\n')
            watch.wait_for(" again\n", file=watch.err)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["books:add", "{title: 'x'}"], 2, "books:add is a mutation: only queries can be watched"),
        (["books:echo", "{value: 1}"], 2, "books:echo is an action: only queries can be watched"),
        (["books:titels"], 1, "There is no function books:titels. Did you mean books:titles?"),
        (["books:titles", "{more: 1}"], 1, "ArgumentValidationError"),
        (["books:titles", "[{}, {}]"], 2, "the arguments are one object"),
        (["books:titles", "{}", "--admin-key", "wrong|key"], 2, "refuses the admin key"),
    ],
)
def test_what_can_not_be_watched_ends_with_the_reason(served: Path, words: list[str], code: int, message: str) -> None:
    if "--admin-key" in words:
        address = json.loads((served / ".camber/server.json").read_text())["url"]
        words = [*words, "--url", address]

    result = camber(served, "run", *words, "--watch")

    assert (result.code, result.out) == (code, ""), result
    assert message in result.err


def test_without_a_server_it_says_that_it_needs_one(with_data: Path) -> None:
    result = camber(with_data, "run", "books:titles", "--watch")

    assert (result.code, result.out) == (2, ""), result
    assert "no server runs for" in result.err
    assert "`camber dev` starts one" in result.err
