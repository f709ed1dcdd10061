"""The reference pages have everything that there is: errors, codes, rules, dependencies."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Iterator

import pytest

import camber
from camber import errors
from tests.docs.blocks import REPOSITORY

ERRORS = (REPOSITORY / "docs/reference/errors.md").read_text(encoding="utf-8")
DEPENDENCIES = (REPOSITORY / "docs/dependencies.md").read_text(encoding="utf-8")

CLASSES = {name: found for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, Exception)}


def calls() -> Iterator[ast.Call]:
    """Every call in the package."""
    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def texts(call: ast.Call) -> list[str]:
    """The literal texts among a call's first two arguments."""
    return [
        argument.value
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def calls_one_of(call: ast.Call, *names: str) -> bool:
    """Whether this calls a function or class of one of these names."""
    return (isinstance(call.func, ast.Name) and call.func.id in names) or (
        isinstance(call.func, ast.Attribute) and call.func.attr in names
    )


def http_codes() -> set[str]:
    """The codes with which requests are refused: single words, as in RequestError(400, "BadFormat", …)."""
    said = {
        text for call in calls() for text in texts(call) if calls_one_of(call, "RequestError", "error_answer", "_busy")
    }
    raised = {found.code for found in (errors.DiskFullError, errors.CommitUnknownError)}
    return {text for text in said if re.fullmatch(r"[A-Z][A-Za-z]+", text)} | raised


def rules() -> set[str]:
    """What `rule` of a schema's or query's error can be."""
    keywords = (keyword for call in calls() for keyword in call.keywords if keyword.arg == "rule")
    return {str(keyword.value.value) for keyword in keywords if isinstance(keyword.value, ast.Constant)}


def requirements() -> list[str]:
    """The names of all packages that pyproject.toml and package.json ask for."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    listed = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[<>=;\[ ]", text)[0] for text in listed}
    return sorted(names | json.loads((REPOSITORY / "package.json").read_text())["devDependencies"].keys())


def test_there_are_codes_and_rules_to_look_for() -> None:
    assert {"BadFormat", "TooManyConcurrentMutations", "DiskFull"} <= http_codes()
    assert {"EmptyIndex", "InvalidIndexRange"} <= rules()


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_class_is_in_the_reference(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (•?) ?\| (.+) \|$", ERRORS, re.MULTILINE)
    is_public, description = row

    assert (is_public == "•") == (name in camber.__all__)
    assert description


@pytest.mark.parametrize("code", sorted(http_codes()))
def test_a_code_over_http_is_in_the_reference(code: str) -> None:
    assert re.search(rf"^\| `{code}` \| \d\d\d \| .+ \|$", ERRORS, re.MULTILINE)


@pytest.mark.parametrize("rule", sorted(rules()))
def test_a_rule_is_in_the_reference(rule: str) -> None:
    assert f"`{rule}`" in ERRORS


@pytest.mark.parametrize("name", requirements())
def test_a_dependency_is_explained(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}`", DEPENDENCIES)
