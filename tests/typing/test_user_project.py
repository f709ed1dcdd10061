"""A user's project, written with everything the API offers, is clean under pyright strict, and mistakes in one are found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROJECT = HERE / "project"
MISTAKES = HERE / "mistakes.py"
PYRIGHT = Path(sys.executable).with_name("pyright")

MARKS = {
    number: marked[1]
    for number, line in enumerate(MISTAKES.read_text().splitlines(), 1)
    if (marked := re.search(r"# error: (\w+)$", line))
}

Reports = dict[str, dict[int, list[tuple[str, str]]]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """What pyright says of the project with the mistakes beside it: by file and line, the rules and messages."""
    project = tmp_path_factory.mktemp("typed") / "library"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(MISTAKES, project / "backend")
    command = [PYRIGHT, "--project", project, "--pythonpath", sys.executable, "--outputjson"]
    output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    found: Reports = defaultdict(lambda: defaultdict(list))
    for report in _diagnostics(output):
        name = str(Path(report["file"]).relative_to(project.resolve()))
        line = report["range"]["start"]["line"] + 1
        found[name][line].append((report.get("rule", ""), report["message"]))
    return found


def test_the_project_is_clean_under_pyright_strict(reports: Reports) -> None:
    assert {name: lines for name, lines in reports.items() if name != "backend/mistakes.py"} == {}


@pytest.mark.parametrize("line", MARKS, ids=lambda line: f"line {line}")
def test_a_mistake_is_reported(line: int, reports: Reports) -> None:
    rules = [rule for rule, _ in reports["backend/mistakes.py"].get(line, [])]

    assert MARKS[line] in rules


def test_nothing_but_the_mistakes_is_reported(reports: Reports) -> None:
    assert reports["backend/mistakes.py"].keys() <= MARKS.keys()


def test_the_project_s_own_tests_pass(tmp_path: Path) -> None:
    project = tmp_path / "library"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CAMBER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    result = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout + result.stderr


def _diagnostics(output: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    try:
        return json.loads(output.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.fail(f"pyright said:\n{output.stdout}\n{output.stderr}")
