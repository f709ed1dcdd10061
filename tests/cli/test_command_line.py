"""What all commands have in common: help, suggestions, colour, pipes, completion, and starting fast."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camber.cli.command_line import COMMANDS
from tests.cli.commands import CAMBER, PATIENCE, camber
from tests.wire.running_server import clean_environment

IMPORTS = """
import sys
from camber.cli.command_line import run_command_line
code = run_command_line(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""

SLOW = """
import time
from camber.cli.progress import Progress

before = time.monotonic()
done = too_early = 0
with Progress() as progress:
    begun = now = time.monotonic()
    while now < begun + 1:
        done, now = done + 1, time.monotonic()
        progress("checking books", done * 1000, 99000)
        if time.monotonic() < before + 1:
            too_early = done
        time.sleep(0.1)
    progress("checking books", (done + 1) * 1000, 99000)
print(too_early, done)
"""
"""Prints the last number that was told before the first second was over, and the first one that was told when it was."""


def on_a_terminal(folder: Path, *command: str | Path, env: dict[str, str] | None = None) -> str:
    """What the command prints on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment() | {"TERM": "xterm"} | (env or {}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(ours)
        process.wait(PATIENCE)
    return printed.decode()


def without_style(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def modules_loaded_by(folder: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *words],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split())


def test_without_words_the_commands_are_listed(tmp_path: Path) -> None:
    result = camber(tmp_path)

    assert result.code == 0, result
    assert all(re.search(rf"│ {command} +\S", result.out) for command in COMMANDS), result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_begins_with(tmp_path: Path, command: str) -> None:
    summary = COMMANDS[command][2]

    assert f"\n\n{summary}\n" in camber(tmp_path, command, "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(tmp_path: Path, command: str) -> None:
    result = camber(tmp_path, command, "--help")

    assert (result.code, result.err) == (0, ""), result
    assert re.search(rf"For example:\n\n    .*camber {command}", result.out), result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_a_command_that_does_not_exist_ends_with_the_nearest_one(tmp_path: Path) -> None:
    result = camber(tmp_path, "serv")

    assert (result.code, result.out) == (2, "")
    assert 'Did you mean "serve"?' in result.err, result


def test_a_flag_that_does_not_exist_ends_with_the_nearest_one(tmp_path: Path) -> None:
    result = camber(tmp_path, "data", "--fromat", "json")

    assert (result.code, result.out) == (2, "")
    assert "Did you mean --format?" in result.err, result
    assert "camber data --help" in result.err


def test_it_is_also_a_module(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "camber", "--version"], cwd=tmp_path, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


def test_colour_is_for_terminals_only_and_not_for_everybody(tmp_path: Path) -> None:
    assert "\x1b[31m" in on_a_terminal(tmp_path, CAMBER, "data")
    assert "\x1b" not in on_a_terminal(tmp_path, CAMBER, "data", env={"NO_COLOR": "1"})
    assert "\x1b" not in on_a_terminal(tmp_path, CAMBER, "data", env={"TERM": "dumb"})
    assert "\x1b" not in camber(tmp_path, "data").err


def test_on_a_terminal_rows_are_a_table(deployment: Path) -> None:
    camber(deployment, "run", "books:add", '{"title": "Dune"}')

    printed = without_style(on_a_terminal(deployment, CAMBER, "data", "books", env={"COLUMNS": "160"}))

    assert re.search(r"_id +_creationTime +barcode +borrower +cover +pages +title", printed), printed
    assert "Dune" in printed


def test_a_reader_that_has_enough_ends_a_command_quietly(deployment: Path) -> None:
    camber(deployment, "run", "books:addMany", "{count: 2000}")
    with subprocess.Popen(
        [CAMBER, "data", "books", "--limit", "0"],
        cwd=deployment,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (141, b"")


def test_ctrl_c_ends_a_command_with_130_and_no_traceback(with_data: Path) -> None:
    (with_data / "backend/slow.py").write_text(
        "import asyncio\n\nfrom camber import ActionCtx, action\n\n\n"
        "@action\nasync def wait(ctx: ActionCtx) -> None:\n    print('waiting', flush=True)\n    await asyncio.sleep(60)\n"
    )
    with subprocess.Popen(
        [CAMBER, "run", "slow:wait"],
        cwd=with_data,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        complaint = process.stderr.read()

    assert (process.returncode, complaint) == (130, b"")


def test_what_a_terminal_can_not_show_is_written_out(deployment: Path) -> None:
    camber(deployment, "run", "books:add", '{"title": "Œuvre ☃"}')

    latin = camber(deployment, "data", "books", "--limit", "1", "--format", "table", env={"PYTHONIOENCODING": "ascii"})

    assert latin.code == 0, latin
    assert r"\u0152uvre \u2603" in latin.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_commands_and_flags(tmp_path: Path, shell: str) -> None:
    result = camber(tmp_path, "completion", shell)

    assert result.code == 0, result
    assert all(word in result.out for word in ("function-spec", "rotate", "identity", "site-port"))


def test_completion_in_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(camber(tmp_path, "completion", "bash").out)
    script = """
        source completion
        COMP_WORDS=(camber fun); COMP_CWORD=1; COMP_LINE="camber fun"; COMP_POINT=10
        $(complete -p camber | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        echo "${COMPREPLY[@]}"
    """

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "function-spec" in done.stdout, done


def test_a_command_for_a_server_loads_neither_the_engine_nor_what_draws_tables(production: Path) -> None:
    loaded = modules_loaded_by(production, "run", "books:titles")

    assert not {"camber.database", "camber.functions", "apsw", "rich.console", "uvicorn", "json5", "asyncio"} & loaded


def test_help_loads_neither_the_engine_nor_the_server(tmp_path: Path) -> None:
    loaded = modules_loaded_by(tmp_path, "run", "--help")

    assert not {"camber.database", "camber.functions", "apsw", "uvicorn", "json5", "asyncio", "structlog"} & loaded


def test_what_takes_longer_than_a_second_has_a_progress_bar(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, sys.executable, "-c", SLOW)
    logged = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)

    assert re.search(r"checking books.*%", without_style(shown)), shown
    said = re.fullmatch(r"checking books: (\d+),000 of 99,000\n", logged.stderr)
    assert said, logged
    too_early, late_enough = map(int, logged.stdout.split())
    assert too_early < int(said[1]) <= late_enough


def test_what_is_done_at_once_has_none(with_data: Path) -> None:
    begun = time.monotonic()

    printed = on_a_terminal(with_data, CAMBER, "run", "books:titles")

    assert printed == "[]\r\n" or time.monotonic() - begun > 1
