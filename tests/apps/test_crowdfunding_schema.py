"""The tables: what the first schema had is still there, what must be unique is, and names keep to the conventions."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apps.crowdfunding.schema import schema
from camber import UniqueIndexError

if TYPE_CHECKING:
    from .conftest import Campaign

TABLES = {table["tableName"]: table for table in schema.to_json()["tables"]}
MODULES = sorted(Path(__file__).parents[2].glob("apps/crowdfunding/*.py"))

# The schema the project started from: fields (with ? where they may be missing) and indexes.
FIRST_FIELDS = {
    "users": "authUserId email name? createdAt activeSessionId? sessionStartedAt? crowdfundingBackerId?",
    "admins": "email addedAt note?",
    "app_state": "key crowdfundingActive",
    "crowdfunding_backers": "username accessCode tier usedByUserId? usedAt?",
}
FIRST_INDEXES = {
    "users": {"by_authUserId": ["authUserId"], "by_email": ["email"]},
    "admins": {"by_email": ["email"]},
    "app_state": {"by_key": ["key"]},
    "crowdfunding_backers": {"by_username_code": ["username", "accessCode"], "by_usedByUserId": ["usedByUserId"]},
}


@pytest.mark.parametrize("table", FIRST_FIELDS)
def test_the_first_schema_s_fields_and_indexes_are_there(table: str) -> None:
    fields = TABLES[table]["documentType"]["value"]
    indexes = {index["indexDescriptor"]: index["fields"] for index in TABLES[table]["indexes"]}

    for name in FIRST_FIELDS[table].split():
        assert fields[name.rstrip("?")]["optional"] == name.endswith("?")
    assert FIRST_INDEXES[table].items() <= indexes.items()


@pytest.mark.parametrize("table", FIRST_FIELDS)
def test_every_field_added_since_may_be_missing(table: str) -> None:
    first = {name.rstrip("?") for name in FIRST_FIELDS[table].split()}

    added = {name: field for name, field in TABLES[table]["documentType"]["value"].items() if name not in first}
    assert all(field["optional"] for field in added.values())


def test_tables_are_snake_case_and_fields_camel_case() -> None:
    for name, table in TABLES.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", field) for field in table["documentType"]["value"])
        assert table["description"]


@pytest.mark.parametrize(
    ("table", "index", "row"),
    [
        ("users", "by_authUserId", {"authUserId": "auth-1", "email": "ada@example.com", "createdAt": 0.0}),
        ("admins", "by_email", {"email": "ada@example.com", "addedAt": 0.0}),
        ("app_state", "by_key", {"key": "config", "crowdfundingActive": True}),
        ("tiers", "by_name", {"name": "Gold", "percentOff": 25.0}),
        ("crowdfunding_backers", "by_username_code", {"username": "ada", "accessCode": "X1", "tier": "Gold"}),
    ],
)
def test_the_database_keeps_what_must_be_unique(
    campaign: Campaign, table: str, index: str, row: dict[str, Any]
) -> None:
    campaign.insert(table, **row)

    with pytest.raises(UniqueIndexError) as refused:
        campaign.insert(table, **row)
    assert refused.value.data == {"code": "UniqueIndexViolation", "table": table, "index": index}


def test_an_address_and_a_lower_cased_slot_are_unique_too(campaign: Campaign) -> None:
    campaign.insert("users", authUserId="auth-1", email="ada@example.com", createdAt=0.0)
    with pytest.raises(UniqueIndexError, match="by_email"):
        campaign.insert("users", authUserId="auth-2", email="ada@example.com", createdAt=0.0)

    campaign.insert("crowdfunding_backers", username="Ada", usernameLower="ada", accessCode="X1", tier="Gold")
    with pytest.raises(UniqueIndexError, match="by_usernameLower_code"):
        campaign.insert("crowdfunding_backers", username="ADA", usernameLower="ada", accessCode="X1", tier="Gold")


def test_rows_that_lack_a_field_of_a_unique_index_do_not_meet_in_it(campaign: Campaign) -> None:
    campaign.insert("crowdfunding_backers", username="Ada", accessCode="X1", tier="Gold")
    campaign.insert("crowdfunding_backers", username="ADA", accessCode="X1", tier="Gold")

    assert len(campaign.rows("crowdfunding_backers")) == 2


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_the_application_imports_camber_and_its_own_modules_only(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module == "camber" or str(node.module).split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1
