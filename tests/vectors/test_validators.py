"""validators.json: what each validator accepts, where it says a value is wrong, and which validators may be at all."""

from __future__ import annotations

from typing import Any

import pytest

from camber.errors import InvalidValueError, ValidationError, ValidatorDefinitionError
from camber.schema import Table, define_table
from camber.values import decode_value, new_id, to_json, validator_from_json
from tests.vectors.reading import cases, each, same, value_of

CASES = cases("validators.json")

KINDS = {
    "NoMatch": "NoMatch",
    "LiteralValuesDoNotMatch": "LiteralMismatch",
    "ExtraField": "ExtraField",
    "MissingRequiredField": "MissingField",
    "TableNamesDoNotMatch": "IdTableMismatch",
    # A deployment looks at the names of system fields before it looks at the schema; to the validator they are extra.
    "InvalidCreationTimeError": "ExtraField",
    "InvalidDocumentError": "ExtraField",
}


class AppTables:
    """The tables of the recorded application, with numbers as a database would give them."""

    def __init__(self, names: list[str]) -> None:
        self._numbers = {name: 10001 + position for position, name in enumerate(names)}
        self._names = {number: name for name, number in self._numbers.items()}

    def number_of(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name_of(self, number: int) -> str | None:
        return self._names.get(number)

    def some_id(self, table: str) -> str:
        return new_id(self._numbers[table], 1_700_000_000_000.0, b"just ten b")


def app_tables() -> dict[str, Table[Any]]:
    (app,) = [case for case in cases("queries.json") if case["name"] == "crowdfunding app"]
    tables: dict[str, Table[Any]] = {}
    for name, recorded in app["schema"]["tables"].items():
        table = define_table(name, validator_from_json(recorded["validator"]))
        for index in recorded["indexes"]:
            table = table.index(index["name"], index["fields"])
        tables[name] = table
    return tables


TABLES = app_tables()
NAMES = AppTables([*TABLES, "things"])


def value_in(case: dict[str, Any]) -> Any:
    tokens = {"$newId": NAMES.some_id, "$newIdKey": lambda pair: {NAMES.some_id(pair[0]): value_of(pair[1])}}
    return value_of(case["value"], tokens)


@pytest.mark.parametrize("case", each([case for case in CASES if case["kind"] in ("value", "args", "returns")]))
def test_a_value_is_judged_as_recorded(case: dict[str, Any]) -> None:
    judge(case, validator_from_json(case["validator"]))


@pytest.mark.parametrize("case", each([case for case in CASES if case["kind"] == "document"]))
def test_a_document_is_judged_as_recorded(case: dict[str, Any]) -> None:
    table = TABLES[case["table"]]
    judge(case, table.validator)

    if case["accepted"]:
        assert same(table.prepare(value_in(case), NAMES)[0], value_in(case))
    else:
        with pytest.raises((ValidationError, InvalidValueError)):
            table.prepare(value_in(case), NAMES)


def judge(case: dict[str, Any], validator: Any) -> None:
    value = value_in(case)
    if case["accepted"]:
        assert same(validator.check(value, NAMES), value)
        assert same(validator.check(decode_value(to_json(value)), NAMES), value)
        return

    with pytest.raises(ValidationError) as refused:
        validator.check(value, NAMES)
    assert (refused.value.kind, refused.value.path) == (KINDS[case["errorKind"]], case["path"])


@pytest.mark.parametrize("case", each([case for case in CASES if case["kind"] == "definition"]))
def test_a_validator_is_legal_as_recorded(case: dict[str, Any]) -> None:
    if case["accepted"]:
        assert validator_from_json(case["validator"]).json == case["validator"]
    else:
        with pytest.raises(ValidatorDefinitionError):
            validator_from_json(case["validator"])
