"""`camber logs`: what functions of a running server logged and how they failed."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.commands import CAMBER, PATIENCE, Serving, camber, make_project, server
from tests.cli.conftest import make_data
from tests.wire.running_server import clean_environment

DIARY = '''
"""Functions that say something."""

from camber import ActionCtx, MutationCtx, QueryCtx, action, mutation, query


@query
def levels(ctx: QueryCtx) -> None:
    ctx.log.debug("a detail")
    ctx.log("a line")
    ctx.log.info("a fact")
    ctx.log.warn("a doubt")
    ctx.log.error("a fault")


@query
def quiet(ctx: QueryCtx, *, number: int) -> int:
    return number


@mutation
def broken(ctx: MutationCtx) -> None:
    ctx.log("it began well")
    raise ValueError("the cupboard is bare")


@action
async def say(ctx: ActionCtx, *, text: str) -> None:
    ctx.log(text)
'''


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in production whose server has run a query, a mutation that failed, and two that logged nothing."""
    project = make_diary(tmp_path_factory.mktemp("diary") / "library")
    with server(project, env={"CAMBER_DEV": "0"}):
        camber(project, "run", "diary:levels")
        camber(project, "run", "diary:quiet", "{number: 4711}")
        camber(project, "run", "diary:quiet", "{number: 4712}")
        camber(project, "run", "diary:broken")
        camber(project, "run", "books:add", '{title: "Dune"}')
        yield project


def make_diary(folder: Path) -> Path:
    project = make_project(folder)
    (project / "backend/diary.py").write_text(DIARY)
    return project


def said(project: Path, *flags: str) -> list[str]:
    """The printed lines without times."""
    result = camber(project, "logs", *flags)
    assert (result.code, result.err) == (0, ""), result
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", "", line) for line in result.out.splitlines()]


@contextmanager
def following(project: Path, *flags: str) -> Iterator[Following]:
    """`camber logs --follow` in this folder, ended when the block is left."""
    process = subprocess.Popen(
        [CAMBER, "logs", "--follow", *flags],
        cwd=project,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        following = Following(process)
        try:
            yield following
        finally:
            process.kill()
            following.reader.join(PATIENCE)


class Following:
    """A command that goes on printing."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def next_line(self) -> str:
        return self._lines.get(timeout=PATIENCE)

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: the exit code, and what was said on stderr."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


def test_lines_and_failures_are_printed_in_production_too(diary: Path) -> None:
    lines = said(diary)

    assert lines[:5] == [
        "query diary:levels [DEBUG] 'a detail'",
        "query diary:levels [LOG] 'a line'",
        "query diary:levels [INFO] 'a fact'",
        "query diary:levels [WARN] 'a doubt'",
        "query diary:levels [ERROR] 'a fault'",
    ]
    assert lines[5] == "mutation diary:broken [LOG] 'it began well'"
    assert re.fullmatch(
        r"mutation diary:broken failed after [\d.,]+ ms \(request [0-9a-f]{16}\): Uncaught ValueError: the cupboard is bare",
        lines[6],
    )
    assert lines[7].startswith("    at broken (backend/diary.py:")
    assert lines[8:] == ["mutation books:add [INFO] 'adding Dune'"]


def test_arguments_and_results_are_not_in_it(diary: Path) -> None:
    everything = "\n".join([*said(diary, "--success"), *said(diary, "--success", "--jsonl")])

    assert "diary:quiet" in everything
    assert "4711" not in everything


def test_history_counts_the_runs_that_are_printed(diary: Path) -> None:
    assert said(diary, "--history", "1") == ["mutation books:add [INFO] 'adding Dune'"]
    assert said(diary, "--history", "0") == []
    assert len(said(diary, "--history", "1", "--function", "diary:levels")) == 5


def test_a_function_can_be_chosen_by_the_beginning_of_its_path(diary: Path) -> None:
    assert said(diary, "--function", "books") == ["mutation books:add [INFO] 'adding Dune'"]
    assert said(diary, "--function", "books:t") == []


def test_only_failures(diary: Path) -> None:
    assert [line.split(" ")[1] for line in said(diary, "--errors")] == ["diary:broken", "diary:broken", ""]


@pytest.mark.parametrize(
    ("level", "levels"),
    [
        ("debug", ["[DEBUG]", "[LOG]", "[INFO]", "[WARN]", "[ERROR]"]),
        ("log", ["[LOG]", "[INFO]", "[WARN]", "[ERROR]"]),
        ("info", ["[LOG]", "[INFO]", "[WARN]", "[ERROR]"]),
        ("warn", ["[WARN]", "[ERROR]"]),
        ("error", ["[ERROR]"]),
    ],
)
def test_the_least_level_of_lines(diary: Path, level: str, levels: list[str]) -> None:
    lines = said(diary, "--level", level, "--function", "diary:levels")

    assert [line.split(" ")[2] for line in lines] == levels
    assert any("the cupboard is bare" in line for line in said(diary, "--level", level))


def test_success_shows_runs_that_had_nothing_to_say(diary: Path) -> None:
    lines = said(diary, "--success", "--function", "diary:quiet")

    assert len(lines) == 2
    assert all(re.fullmatch(r"query diary:quiet ok, [\d.,]+ ms", line) for line in lines)


def test_jsonl_is_a_run_a_line(diary: Path) -> None:
    result = camber(diary, "logs", "--jsonl", "--level", "error")

    runs = [json.loads(line) for line in result.out.splitlines()]
    assert [run["identifier"] for run in runs] == ["diary:levels", "diary:broken"]
    assert len(runs[0]["logLines"]) == 5
    assert runs[1]["udfType"] == "Mutation"


def test_control_characters_and_colours_do_not_reach_what_reads_it(diary: Path) -> None:
    camber(diary, "run", "diary:say", '{text: "red \\u001b[31m and \\u202e turned"}')

    last = said(diary, "--function", "diary:say")[-1]
    assert last == "action diary:say [LOG] 'red \\x1b[31m and \\x202e turned'"
    parsed = json.loads(camber(diary, "logs", "--jsonl", "--function", "diary:say").out.splitlines()[-1])
    assert parsed["logLines"][0]["messages"] == ["'red \x1b[31m and \u202e turned'"]


def test_following_shows_a_line_that_was_logged_after_it_started(diary: Path) -> None:
    with following(diary, "--history", "1", "--function", "books") as log:
        assert log.next_line().endswith(" mutation books:add [INFO] 'adding Dune'")
        camber(diary, "run", "diary:levels")
        camber(diary, "run", "books:add", '{title: "Later"}')

        assert log.next_line().endswith(" mutation books:add [INFO] 'adding Later'")
        assert log.interrupt() == (130, "")


def test_following_finds_a_server_that_starts_anew(tmp_path: Path) -> None:
    project = make_diary(tmp_path / "library")
    with server(project) as first:
        say(project, "before")
        with following(project) as log:
            assert log.next_line().endswith("'before'")
            end(first)
            with server(project):
                say(project, "after")
                assert log.next_line().endswith("'after'")
                code, told = log.interrupt()

    assert code == 130
    assert told.count("\n") == 1
    assert "does not answer any more" in told


def test_following_ends_where_the_key_is_replaced(tmp_path: Path) -> None:
    project = make_diary(tmp_path / "library")
    with server(project) as running:
        key = camber(project, "admin-key").out.strip()
        say(project, "before")
        with following(project, "--url", running.url, "--admin-key", key) as log:
            assert log.next_line().endswith("'before'")
            camber(project, "admin-key", "rotate")
            say(project, "after")
            code = log.process.wait(PATIENCE)
            assert log.process.stderr is not None
            told = log.process.stderr.read()

    assert code == 2
    assert "refuses the admin key" in told
    assert key.rpartition("|")[2] not in told


def test_without_a_server_there_is_no_log(project: Path) -> None:
    nowhere = camber(project, "logs")
    make_data(project)
    nobody = camber(project, "logs", "--follow")
    elsewhere = camber(project, "logs", "--data", "nothing-here")

    assert (nowhere.code, nowhere.out) == (2, "")
    assert str(project / ".camber") in nowhere.err
    assert (nobody.code, nobody.out) == (2, ""), nobody
    assert f"no server runs for {project / '.camber'}" in nobody.err
    assert elsewhere.code == 2
    assert "there is no data folder" in elsewhere.err


def test_an_address_where_nothing_answers_is_named(project: Path) -> None:
    result = camber(project, "logs", "--url", "http://127.0.0.1:1", "--admin-key", "camber|00")

    assert (result.code, result.out) == (2, "")
    assert "nothing answers at http://127.0.0.1:1" in result.err


@pytest.mark.parametrize("flags", [("--history", "-1"), ("--errors", "--success"), ("--level", "loud")])
def test_flags_that_make_no_sense_are_refused(project: Path, flags: tuple[str, ...]) -> None:
    result = camber(project, "logs", *flags)

    assert (result.code, result.out) == (2, ""), result
    assert flags[0] in result.err


def say(project: Path, text: str) -> None:
    """Have a function log this."""
    assert camber(project, "run", "diary:say", json.dumps({"text": text})).code == 0


def end(running: Serving) -> None:
    """Stop a server before its block is left."""
    assert running.stop() == 0
