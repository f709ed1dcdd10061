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
    for name in [name for name in sys.modules if name.split(".")[0] in {"backend", "tests_of_page"}]:
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


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What pyright strict says of the code on all pages, by page."""
    folder = tmp_path_factory.mktemp("types")
    roots: dict[str, Path] = {}
    for page in RUN:
        root = name_of(page).removesuffix(".md").replace("/", "-")
        roots[root] = page
        write_project(page, folder / root)
        if program := program_of(page):
            (folder / root).mkdir(exist_ok=True)
            (folder / root / "program.py").write_text(_one_text(program), encoding="utf-8")
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportUnusedImport": False,  # a block may show an import for what follows elsewhere
        "executionEnvironments": [{"root": root} for root in roots],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [PYRIGHT, "--project", folder, "--pythonpath", sys.executable, "--outputjson"]
    output = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    found: dict[str, list[str]] = {}
    for report in json.loads(output.stdout)["generalDiagnostics"]:
        path = Path(report["file"]).relative_to(folder.resolve())
        page = name_of(roots[path.parts[0]])
        place = f"{page}:{report['range']['start']['line'] + 1}"
        found.setdefault(page, []).append(f"{place}: {report['message']} ({report.get('rule')})")
    return found


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_code_on_a_page_is_clean_under_pyright_strict(page: Path, type_errors: dict[str, list[str]]) -> None:
    assert type_errors.get(name_of(page), []) == []


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
