"""Loading an application from its folder: how its modules are found and named, and every mistake told at once."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from camber import LoadError
from camber.functions import Application, load_application, reload_application
from camber.settings import Settings
from camber.testing import Backend
from tests.functions.conftest import Write
from tests.functions.deployments import UNHURRIED

pytestmark = pytest.mark.usefixtures("modules_as_before")

SCHEMA = """
from camber import define_schema, define_table, v

tasks = define_table("tasks", {"text": v.string()}).index("by_text", ["text"])
schema = define_schema(tasks)
"""

TASKS = """
from camber import MutationCtx, QueryCtx, mutation, query

from .schema import tasks


@query(name="list")
def list_tasks(ctx: QueryCtx) -> list[str]:
    return [task["text"] for task in ctx.db.query(tasks)]


@mutation
def add(ctx: MutationCtx, *, text: str) -> None:
    ctx.db.insert(tasks, {"text": text})
"""

ONE = """
from camber import QueryCtx, query


@query
def one(ctx: QueryCtx) -> str:
    return "one"
"""


def problems(folder: Path) -> list[str]:
    """What loading this says, without the folder that the test is in."""
    with pytest.raises(LoadError) as raised:
        load_application(folder)
    return [problem.replace(f"{folder}/", "") for problem in raised.value.problems]


def run(application: Application, path: str, args: Any = None) -> Any:
    with Backend(application, settings=Settings(dev=True, **UNHURRIED)) as backend:
        return backend.run(path, args or {})


# Finding modules


def test_a_folder_is_an_application_without_init_files(write: Write) -> None:
    folder = write("shop", {"schema.py": SCHEMA, "tasks.py": TASKS, "admin/old_tasks.py": ONE})

    application = load_application(folder)

    assert sorted(application.functions) == ["admin/oldTasks:one", "tasks:add", "tasks:list"]
    assert list(application.schema.tables) == ["tasks"]
    assert application.name == "shop"
    assert run(application, "admin/oldTasks:one") == "one"


def test_modules_import_each_other_relatively_also_upwards_and_in_a_circle(write: Write) -> None:
    folder = write(
        "shop",
        {
            "deep/er/tasks.py": "from ...texts import hello\nfrom ..near import NAME\n" + ONE,
            "deep/near.py": "NAME = 'near'",
            "texts.py": "from . import other\nhello = 'hello'",
            "other.py": "from . import texts",
        },
    )

    assert list(load_application(folder).functions) == ["deep/er/tasks:one"]


def test_an_init_file_does_no_harm(write: Write) -> None:
    folder = write("shop", {"__init__.py": "NAME = 'shop'", "tasks.py": "from . import NAME\n" + ONE})

    assert "tasks:one" in load_application(folder).functions


def test_an_ordinary_import_gives_the_function_that_is_served(write: Write) -> None:
    folder = write("work", {"pyproject.toml": "", "apps/shop/tasks.py": ONE}) / "apps/shop"

    application = load_application(folder)

    assert importlib.import_module("apps.shop.tasks").one is application.functions["tasks:one"]
    assert application.name == "apps.shop"


def test_loading_twice_gives_the_same_functions(write: Write) -> None:
    folder = write("shop", {"tasks.py": ONE})

    first, second = load_application(folder), load_application(folder)

    assert first.functions["tasks:one"] is second.functions["tasks:one"]
    with Backend(second, settings=Settings(dev=True, **UNHURRIED)) as backend:
        assert backend.run(importlib.import_module("shop.tasks").one) == "one"


def test_two_projects_with_applications_of_one_name_each_get_their_own(write: Write) -> None:
    first = write("first", {"pyproject.toml": "", "backend/tasks.py": ONE})
    second = write("second", {"pyproject.toml": "", "backend/tasks.py": ONE.replace("one", "two")})

    assert list(load_application(first / "backend").functions) == ["tasks:one"]
    assert list(load_application(second / "backend").functions) == ["tasks:two"]
    assert list(load_application(first / "backend").functions) == ["tasks:one"]


def test_nothing_of_an_application_is_put_where_it_hides_other_modules(write: Write) -> None:
    path = list(sys.path)
    folder = write("shop", {"http.py": ONE, "json.py": ONE, "tasks.py": "import http\nimport json\n" + ONE})

    application = load_application(folder)

    assert sorted(application.functions) == ["http:one", "json:one", "tasks:one"]
    tasks = sys.modules["shop.tasks"]
    assert tasks.http.__name__ == "http"
    assert tasks.json.dumps([]) == "[]"
    assert sys.path == path


def test_a_folder_called_convex_leaves_the_installed_package_alone(write: Write) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "convex"]:
        del sys.modules[name]
    uses = "import convex\nfrom .values import SIX\n" + ONE.replace('"one"', "str(convex.ConvexInt64(SIX).value)")
    folder = write("convex", {"values.py": "SIX = 6", "tasks.py": uses, "schema.py": SCHEMA})

    application = load_application(folder)

    assert run(application, "tasks:one") == "6"
    assert hasattr(importlib.import_module("convex"), "ConvexClient")
    assert importlib.import_module("convex.values").__file__ != str(folder / "values.py")


def test_a_folder_named_like_a_module_of_python_leaves_that_alone(write: Write) -> None:
    import calendar
    import json

    application = load_application(write("json", {"tasks.py": ONE}))
    reload_application(write("calendar", {"tasks.py": ONE}))

    assert run(application, "tasks:one") == "one"
    assert importlib.import_module("json") is json
    assert importlib.import_module("calendar") is calendar


def test_tests_and_what_is_no_module_are_left_out(write: Write) -> None:
    bad = "raise RuntimeError('imported')"
    folder = write(
        "shop",
        {
            "tasks.py": ONE,
            "test_tasks.py": bad,
            "tasks_test.py": bad,
            "conftest.py": bad,
            "tests/helpers.py": bad,
            "node_modules/x.py": bad,
            ".hidden/x.py": bad,
            "notes.txt": "notes",
        },
    )

    assert list(load_application(folder).functions) == ["tasks:one"]


def test_a_file_that_can_not_be_a_module_is_warned_about(write: Write) -> None:
    folder = write("shop", {"tasks.py": ONE, "my-tasks.py": ONE})

    (warning,) = load_application(folder).warnings
    assert "my-tasks.py: `my-tasks` can't be a module's name" in warning


def test_functions_that_a_module_imports_are_not_its_own(write: Write) -> None:
    folder = write("shop", {"tasks.py": ONE, "other.py": "from .tasks import one"})

    assert list(load_application(folder).functions) == ["tasks:one"]


def test_functions_made_by_a_helper_belong_to_the_module_that_names_them(write: Write) -> None:
    helper = """
from camber import QueryCtx, query

def lister(table, name=None):
    @query(name=name)
    def list_all(ctx: QueryCtx) -> int:
        return ctx.db.query(table).count()
    return list_all
"""
    uses = "from .helper import lister\ncount_tasks = lister('tasks')\nsecond = lister('users', 'countUsers')\n"
    folder = write("shop", {"helper.py": helper, "a.py": uses, "b.py": "from .a import count_tasks, second"})

    application = load_application(folder)

    assert sorted(application.functions) == ["a:countTasks", "a:countUsers"]
    assert run(application, "a:countTasks") == 0


def test_without_a_schema_file_tables_come_with_their_first_document(write: Write) -> None:
    adds = """
from camber import MutationCtx, mutation

@mutation
def add(ctx: MutationCtx) -> int:
    ctx.db.insert("tasks", {"text": "wash"})
    return ctx.db.query("tasks").count()
"""
    assert run(load_application(write("shop", {"tasks.py": adds})), "tasks:add") == 1.0


# Mistakes


def test_a_syntax_error_is_told_once_with_its_line(write: Write) -> None:
    folder = write(
        "shop",
        {
            "schema.py": "schema = (\n\nlast = 1",
            "a.py": "from .schema import schema",
            "b.py": "from . import schema",
        },
    )

    (problem,) = problems(folder)
    assert re.fullmatch(r"schema.py:\d: .*", problem)


def test_an_import_error_is_told_with_its_place(write: Write) -> None:
    folder = write(
        "shop",
        {
            "a.py": "import os\n\nimport no_such_thing",
            "b.py": "from .nowhere import x",
            "c.py": "from .d import x",
            "d.py": "",
        },
    )

    first, second, third = problems(folder)
    assert first == "a.py:3: ModuleNotFoundError: No module named 'no_such_thing'"
    assert second == "b.py:1: ModuleNotFoundError: No module named 'shop.nowhere'"
    assert third.startswith("c.py:1: ImportError: cannot import name 'x' from 'shop.d'")


def test_an_error_in_a_module_is_told_where_it_happened_not_where_it_was_imported(write: Write) -> None:
    folder = write("shop", {"a.py": "from .deep import b", "deep/b.py": "\n\nx = 1 / 0"})

    assert problems(folder) == ["deep/b.py:3: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize("ending", ["raise SystemExit(3)", "import sys\nsys.exit(3)"])
def test_a_module_that_ends_the_program_does_not(write: Write, ending: str) -> None:
    assert problems(write("shop", {"a.py": ending})) == [
        "a.py: the module ended the program while it was imported (SystemExit 3)."
    ]


def test_a_schema_file_without_a_schema_is_told_what_to_write(write: Write) -> None:
    folder = write("shop", {"schema.py": SCHEMA.replace("schema = define_schema(tasks)", "")})

    (problem,) = problems(folder)
    assert "no `schema` in it (a table alone is not enough)" in problem
    assert "schema = define_schema(" in problem


def test_an_index_on_a_field_that_is_not_there_is_refused(write: Write) -> None:
    folder = write("shop", {"schema.py": SCHEMA.replace('["text"]', '["txet"]')})

    (problem,) = problems(folder)
    assert problem.startswith("schema.py:4: ")
    assert "txet" in problem
    assert "text" in problem.replace("txet", "")


def test_two_functions_with_one_path_are_refused_with_both_places(write: Write) -> None:
    folder = write(
        "shop", {"tasks.py": ONE + ONE.replace("@query", '@query(name="one")').replace("def one", "def other")}
    )

    (problem,) = problems(folder)
    assert problem.startswith("tasks.py:12: the path tasks:one is taken by the function at tasks.py:5. Give one")


def test_two_modules_with_one_wire_name_are_refused(write: Write) -> None:
    folder = write("shop", {"my_tasks.py": ONE, "myTasks.py": ONE})

    (problem,) = problems(folder)
    assert "the path myTasks:one is taken by the function at" in problem


def test_a_function_hidden_by_one_of_the_same_python_name_is_refused(write: Write) -> None:
    (problem,) = problems(write("shop", {"tasks.py": ONE + ONE}))

    assert problem.startswith("tasks.py:13: one is defined a second time, which hides the one in line 6.")


def test_functions_in_the_schema_file_are_refused(write: Write) -> None:
    (problem,) = problems(write("shop", {"schema.py": SCHEMA + ONE}))

    assert "functions in schema.py are not served. Move one to a module of its own." in problem


def test_an_async_query_is_refused_with_its_place(write: Write) -> None:
    (problem,) = problems(write("shop", {"tasks.py": ONE.replace("def one", "async def one")}))

    assert problem.startswith("tasks.py:5: one is an `async def`, but a query is a plain `def`")


@pytest.mark.parametrize(("length", "is_fine"), [(64, True), (65, False)])
def test_names_of_64_letters_are_fine_and_of_65_are_refused(write: Write, length: int, is_fine: bool) -> None:
    name = "n" * length
    for texts in (
        {"tasks.py": ONE.replace("def one", f"def {name}")},
        {f"{name}.py": ONE},
        {"schema.py": SCHEMA.replace('"tasks"', f'"{name}"')},
        {"schema.py": SCHEMA.replace('"by_text"', f'"{name}"')},
    ):
        folder = write(f"shop{len(sys.modules)}", texts)
        if is_fine:
            load_application(folder)
        else:
            (problem,) = problems(folder)
            assert "64" in problem


def test_every_problem_is_told_at_once(write: Write) -> None:
    folder = write(
        "shop",
        {
            "schema.py": "schema = 5",
            "a.py": "1 / 0",
            "b.py": "def (",
            "c.py": ONE.replace("ctx: QueryCtx", "ctx: QueryCtx, *, x: complex")
            + ONE.replace("def one", "def two").replace("ctx: QueryCtx", "ctx, x"),
            "d.py": "from camber import query\n@query\nasync def x(ctx): ...",
        },
    )

    found = problems(folder)

    assert [problem.split(":")[0] for problem in found] == ["a.py", "b.py", "c.py", "c.py", "d.py", "schema.py"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no such folder"):
        load_application(tmp_path / "nowhere")


def test_a_folder_without_modules_is_told_what_belongs_there(write: Write) -> None:
    (problem,) = problems(write("shop", {"README.md": ""}))

    assert "there is no Python file in this folder" in problem


def test_a_folder_that_can_not_be_a_package_is_told(write: Write) -> None:
    (problem,) = problems(write("my-shop", {"tasks.py": ONE}))

    assert "`my-shop` can't be part of a Python package's name. Rename the folder" in problem


# Tables that differ in case only


def test_tables_and_fields_that_differ_in_case_only_are_apart_also_in_sql(write: Write) -> None:
    schema = """
from camber import define_schema, define_table, v

small = define_table("things", {"name": v.string(), "Name": v.string()}).index("by_name", ["name"]).index("by_Name", ["Name"])
large = define_table("Things", {"n": v.string()})
schema = define_schema(small, large)
"""
    functions = """
from camber import MutationCtx, mutation

from .schema import large, small

@mutation
def fill(ctx: MutationCtx) -> list[int]:
    ctx.db.insert(small, {"name": "a", "Name": "B"})
    ctx.db.insert(large, {"n": "only"})
    ctx.db.insert(large, {"n": "two"})
    by_name = ctx.db.query(small).with_index("by_name", name="a").collect()
    by_other = ctx.db.query(small).with_index("by_Name", Name="a").collect()
    return [len(by_name), len(by_other), ctx.db.query("Things").count()]
"""
    folder = write("shop", {"schema.py": schema, "things.py": functions})
    with Backend.load(folder, settings=Settings(dev=True, **UNHURRIED)) as backend:
        assert backend.run("things:fill") == [1.0, 0.0, 2.0]
        views = [
            str(name) for (name,) in backend.sql("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name")
        ]
        found = {name: backend.sql(f'SELECT * FROM "{name}"') for name in views if name.lower().startswith("things")}
        assert sorted(len(rows) for rows in found.values()) == [1, 2]
        (row,) = min(found.values(), key=len)
        assert {"a", "B"} <= set(row)


# Loading again


def test_reloading_takes_the_files_as_they_are_now_however_quickly_they_changed(write: Write) -> None:
    write("shop", {"tasks.py": ONE})
    for answer in "abc":
        folder = write("shop", {"tasks.py": ONE.replace('"one"', f'"{answer}"')})
        assert run(reload_application(folder), "tasks:one") == answer


def test_reloading_forgets_modules_that_are_gone(write: Write) -> None:
    folder = write("shop", {"tasks.py": ONE, "old.py": ONE})
    load_application(folder)
    (folder / "old.py").unlink()

    assert list(reload_application(folder).functions) == ["tasks:one"]
    assert "shop.old" not in sys.modules


def imported(name: str) -> ModuleType:
    """What `import a.b as it` gives, which goes by attributes."""
    namespace: dict[str, Any] = {}
    exec(f"import {name} as it", namespace)  # noqa: S102
    return namespace["it"]


def test_the_old_modules_stay_when_the_new_ones_do_not_load(write: Write) -> None:
    folder = write("work", {"pyproject.toml": "", "outer/shop/tasks.py": ONE, "outer/shop/b.py": ""}) / "outer/shop"
    before = load_application(folder)
    old = imported("outer.shop.tasks")
    write("work", {"outer/shop/tasks.py": "x = 1\n" + ONE, "outer/shop/b.py": "1 / 0"})

    with pytest.raises(LoadError, match="ZeroDivisionError"):
        reload_application(folder)

    assert imported("outer.shop.tasks") is old
    assert load_application(folder).functions["tasks:one"] is before.functions["tasks:one"]


def test_problems_of_reloading_are_those_of_the_files_as_they_are_now(write: Write) -> None:
    folder = write("shop", {"tasks.py": ONE})
    load_application(folder)
    write("shop", {"tasks.py": textwrap.dedent(ONE).replace("return", "return (")})

    with pytest.raises(LoadError, match=r"tasks.py:7"):
        reload_application(folder)
