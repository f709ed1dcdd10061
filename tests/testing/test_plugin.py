"""The pytest plugin, in a project of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]

SCHEMA = """
from camber import Document, define_schema, define_table

class Task(Document):
    text: str

tasks = define_table("tasks", Task)
schema = define_schema(tasks)
"""

TASKS = """
from camber import MutationCtx, QueryCtx, mutation, query

from .schema import tasks

@mutation
def add(ctx: MutationCtx, *, text: str) -> str:
    return ctx.db.insert(tasks, {"text": text})

@query(name="list")
def list_tasks(ctx: QueryCtx) -> list[str]:
    return [task["text"] for task in ctx.db.query(tasks)]
"""

TESTS = """
from camber.testing import Backend
from FOLDER.tasks import add, list_tasks


def test_a_task_is_added(backend: Backend) -> None:
    backend.run(add, text="wash")
    assert backend.anonymous.run(list_tasks) == ["wash"]


def test_each_test_begins_with_an_empty_database(backend: Backend) -> None:
    assert backend.run(list_tasks) == []
    assert backend.run("tasks:list") == []


def test_others_need_no_backend() -> None:
    pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    modules, finders = set(sys.modules), list(sys.meta_path)
    yield pytester
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("backend", "apps_of_test"):
            del sys.modules[name]
    sys.meta_path[:] = finders


def make(project: pytest.Pytester, folder: str, pyproject: str) -> None:
    place = project.path / folder
    place.mkdir(parents=True)
    (place / "schema.py").write_text(SCHEMA)
    (place / "tasks.py").write_text(TASKS)
    project.makepyprojecttoml(pyproject + '\n[tool.pytest.ini_options]\naddopts = "-p no:cacheprovider"\n')
    tests = project.path / "tests"
    tests.mkdir()
    (tests / "test_tasks.py").write_text(TESTS.replace("FOLDER", folder.replace("/", ".")))


def test_the_fixture_serves_the_backend_folder(project: pytest.Pytester) -> None:
    make(project, "backend", "")

    project.runpytest_subprocess("tests").assert_outcomes(passed=3)


def test_the_fixture_serves_the_application_that_pyproject_names(project: pytest.Pytester) -> None:
    make(project, "apps_of_test/shop", '[tool.camber]\napp = "apps_of_test/shop"\n')

    project.runpytest_subprocess("tests").assert_outcomes(passed=3)


def test_an_application_that_does_not_load_is_an_error_with_its_problems(project: pytest.Pytester) -> None:
    make(project, "backend", "")
    (project.path / "backend" / "broken.py").write_text("1 / 0")
    (project.path / "tests" / "test_tasks.py").write_text("def test_it(backend): pass\n")

    result = project.runpytest_subprocess("tests")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*LoadError: *backend/broken.py:1: ZeroDivisionError: division by zero"])


def test_without_an_application_the_error_says_where_it_looked(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("")
    project.makepyfile("def test_it(backend): pass")

    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*No application found from*"])


def test_a_project_without_an_application_is_left_alone(project: pytest.Pytester) -> None:
    tests = """
import sys

import pytest

def test_it():
    assert "camber.testing.plugin" in sys.modules
    assert "camber.functions" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        import no_such_module
    with pytest.raises(ModuleNotFoundError):
        import things.no_such_module
"""
    (project.path / "things").mkdir()
    project.makepyfile(tests)

    project.runpytest_subprocess().assert_outcomes(passed=1)
