"""The application's pages in docs/ say what its code does: every function, every refusal, every quoted line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from apps.crowdfunding import rate_limits, schema
from camber.functions import load_application

ROOT = Path(__file__).parents[2]
APPLICATION = ROOT / "apps" / "crowdfunding"
REFERENCE = (ROOT / "docs" / "reference" / "crowdfunding-app.md").read_text(encoding="utf-8")
SCHEMA_PAGE = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
USERS_PAGE = (ROOT / "docs" / "users.md").read_text(encoding="utf-8")

SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(APPLICATION.glob("*.py"))}
FUNCTIONS = {spec["identifier"].replace(".js", ""): spec for spec in load_application(APPLICATION).specs()}
ENTRIES = dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", REFERENCE, flags=re.MULTILINE | re.DOTALL))


def refusals() -> list[str]:
    """Every sentence that is raised as it stands."""
    raised = [
        node for source in SOURCES.values() for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)
    ]
    calls = [node.exc for node in raised if isinstance(node.exc, ast.Call)]
    return [str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)]


def test_the_reference_has_an_entry_for_every_function_and_no_other() -> None:
    assert ENTRIES.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("path", FUNCTIONS)
def test_an_entry_names_the_kind_and_every_argument(path: str) -> None:
    spec, entry = FUNCTIONS[path], ENTRIES[path]

    assert entry.startswith(spec["functionType"])
    assert entry.split(".")[0].endswith("internal") == (spec["visibility"]["kind"] == "internal")
    signature = entry.split("Returns")[0]
    for name, argument in spec["args"]["value"].items():
        assert f"{name}?" in signature if argument["optional"] else re.search(rf"\b{name}\b(?!\?)", signature)


@pytest.mark.parametrize("sentence", refusals())
def test_the_reference_has_every_refusal(sentence: str) -> None:
    assert f"`{sentence}`" in REFERENCE


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", SCHEMA_PAGE + USERS_PAGE, flags=re.DOTALL))
def test_quoted_code_is_the_application_s_own(block: str) -> None:
    assert any(block in source for source in SOURCES.values())


@pytest.mark.parametrize("table", schema.schema.tables)
def test_the_schema_page_presents_every_table(table: str) -> None:
    assert f"| `{table}` |" in SCHEMA_PAGE


def test_the_users_page_has_every_rate_limit() -> None:
    rules = [rule for rule in vars(rate_limits).values() if hasattr(rule, "capacity")]

    assert len(rules) == 4
    for rule in rules:
        assert f"| `{rule.name}` | {rule.capacity} a minute |" in USERS_PAGE
