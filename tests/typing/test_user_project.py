"""A user's project, written with everything the API offers, is clean under pyright strict, and mistakes in one are found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE / "project"
MISTAKES = HERE / "mistakes.py"
PYRIGHT = Path(sys.executable).with_name("pyright")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The user's project in a folder of its own."""
    return shutil.copytree(PROJECT, tmp_path / "library", ignore=shutil.ignore_patterns("__pycache__"))


def test_the_project_is_clean_and_every_mistake_beside_it_is_reported(project: Path) -> None:
    # In one run: starting the type checker takes longer than its work.
    shutil.copy(MISTAKES, project / "backend")

    reports = pyright_reports(project)

    mistakes = reports.pop("backend/mistakes.py")
    assert reports == {}
    expected = marked_lines(MISTAKES)
    assert {line: rules for line, rules in mistakes.items() if line not in expected} == {}
    assert {line: rule for line, rule in expected.items() if rule not in mistakes.get(line, ())} == {}


def test_the_project_s_own_tests_pass(project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CAMBER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    result = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout + result.stderr


def pyright_reports(project: Path) -> dict[str, Mapping[int, list[str]]]:
    """What pyright says of a project: by file and line, the rules that are broken."""
    command = [PYRIGHT, "--project", project, "--pythonpath", sys.executable, "--outputjson"]
    output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    try:
        diagnostics = json.loads(output.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.fail(f"pyright said:\n{output.stdout}\n{output.stderr}")
    found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for report in diagnostics:
        name = str(Path(report["file"]).relative_to(project.resolve()))
        found[name][report["range"]["start"]["line"] + 1].append(report.get("rule", report["message"]))
    return dict(found)


def marked_lines(file: Path) -> dict[int, str]:
    """The lines that end with `# error: rule`."""
    lines = enumerate(file.read_text().splitlines(), 1)
    return {number: marked[1] for number, line in lines if (marked := re.search(r"# error: (\w+)$", line))}
