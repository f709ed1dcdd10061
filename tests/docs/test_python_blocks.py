"""Every Python block of the documentation works as it stands: files load, programs run, tests pass, types are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camber.functions import load_application
from tests.docs.blocks import PAGES, Block, blocks_of, files_of, is_quotation, name_of

PYRIGHT = Path(sys.executable).with_name("pyright")

RUN = [page for page in PAGES if any(block.is_run and not is_quotation(block) for block in blocks_of(page))]


def program_of(page: Path) -> list[Block]:
    """The blocks that belong to no file."""
    return [block for block in blocks_of(page) if block.is_run and block.title is None and not is_quotation(block)]


def write_project(page: Path, folder: Path) -> None:
    """Make the files that the page shows."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in a folder of their own, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_project(request.getfixturevalue("page"), folder)
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "backend"]:
        del sys.modules[name]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_application_on_a_page_loads_without_warnings(page: Path, project: Path) -> None:
    if not (project / "backend").is_dir():
        pytest.skip("the page shows none")

    assert load_application(project / "backend").warnings == ()


@pytest.mark.parametrize("page", [page for page in RUN if program_of(page)], ids=name_of)
def test_the_program_on_a_page_runs(page: Path, project: Path) -> None:
    if (project / "backend").is_dir():
        load_application(project / "backend")
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in program_of(page):
        # The line numbers are the page's.
        code = compile("\n" * (block.line - 1) + block.text, name_of(page), "exec")
        exec(code, namespace)  # noqa: S102  running the page's own words is the point


@pytest.mark.parametrize(
    "page", [page for page in RUN if any(name.startswith("tests/") for name in files_of(page))], ids=name_of
)
def test_the_tests_on_a_page_pass(page: Path, project: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CAMBER_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", project]

    result = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout + result.stderr


def test_the_code_on_all_pages_is_clean_under_pyright_strict(tmp_path: Path) -> None:
    roots = {name_of(page).removesuffix(".md").replace("/", "-"): page for page in RUN}
    for root, page in roots.items():
        write_project(page, tmp_path / root)
        (tmp_path / root).mkdir(exist_ok=True)
        (tmp_path / root / "program.py").write_text(_one_text(program_of(page)), encoding="utf-8")
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportUnusedImport": False,  # a page may import what its next block needs
        "executionEnvironments": [{"root": root} for root in roots],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [PYRIGHT, "--project", tmp_path, "--pythonpath", sys.executable, "--outputjson"]

    output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)

    reports: list[str] = []
    for report in json.loads(output.stdout)["generalDiagnostics"]:
        page = roots[Path(report["file"]).relative_to(tmp_path.resolve()).parts[0]]
        line = report["range"]["start"]["line"] + 1
        reports.append(f"{name_of(page)}:{line}: {report['message']} ({report.get('rule')})")
    assert reports == []


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "python" and not block.is_run:
                assert len(block.words) > 2, f"{name_of(page)}:{block.line}: add the reason after no-run"


def _one_text(program: list[Block]) -> str:
    text = ""
    for block in program:
        text += "\n" * (block.line - 1 - text.count("\n")) + block.text
    return text
