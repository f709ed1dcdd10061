"""The recorded queries as calls on `ctx.db`: how a description in the vectors becomes index bounds, filters and a last word."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add, and_, eq, ge, gt, invert, le, lt, mod, mul, ne, neg, or_, sub, truediv
from typing import Any

from camber import Query, QueryCtx, Schema, define_schema, define_table, field
from camber.database.expressions import as_expression
from camber.values import validator_from_json
from tests.vectors.reading import Token, value_of

Recorded = dict[str, Any]

_COMPARE = {"eq": eq, "neq": ne, "gt": gt, "gte": ge, "lt": lt, "lte": le}
_CALCULATE = {"add": add, "sub": sub, "mul": mul, "div": truediv, "mod": mod}
_ONE = {"not": invert, "neg": neg}


def schema_of(recorded: Recorded) -> Schema:
    """The schema of a case."""
    tables = []
    for name, described in recorded["tables"].items():
        table = define_table(name, validator_from_json(described["validator"]))
        for index in described["indexes"]:
            table = table.index(index["name"], index["fields"])
        tables.append(table)
    return define_schema(*tables, schema_validation=recorded["schemaValidation"])


def build(ctx: QueryCtx, recorded: Recorded, tokens: Mapping[str, Token]) -> Query[Any]:
    """The query without its last word."""
    query: Query[Any] = ctx.db.query(recorded["table"])
    if index := recorded.get("index"):
        equal, comparisons = _bounds(index.get("range", []), tokens)
        query = query.with_index(index["name"], *comparisons, **equal)
    order = recorded.get("order")
    if order and not recorded.get("orderAfterFilter"):
        query = query.order(order)
    if recorded.get("orderTwice"):
        query = query.order(order or "asc")
    for predicate in recorded.get("filter", []):
        query = query.filter(_expression(predicate, tokens))
    return query.order(order) if order and recorded.get("orderAfterFilter") else query


def page_options(terminal: Recorded, cursor: str | None) -> dict[str, Any]:
    """What a client would send for one page."""
    return {**{name: value for name, value in terminal.items() if name != "op"}, "cursor": cursor}


def _bounds(steps: list[Recorded], tokens: Mapping[str, Token]) -> tuple[dict[str, Any], list[Any]]:
    """Equalities by keyword where Python can say them, the rest as comparisons."""
    equal: dict[str, Any] = {}
    comparisons: list[Any] = []
    for step in steps:
        name, value = step["field"], value_of(step["value"], tokens)
        if step["op"] == "eq" and name.isidentifier() and name not in equal:
            equal[name] = value
        else:
            comparisons.append(_COMPARE[step["op"]](field(name), value))
    return equal, comparisons


def _expression(recorded: Recorded, tokens: Mapping[str, Token]) -> Any:
    if "field" in recorded:
        return field(recorded["field"])
    if "literal" in recorded:
        return as_expression(value_of(recorded["literal"], tokens))
    operator, operands = recorded["op"], [_expression(operand, tokens) for operand in recorded["args"]]
    if operator in _ONE:
        return _ONE[operator](operands[0])
    if operator == "and":
        return reduce(and_, operands, as_expression(True))
    if operator == "or":
        return reduce(or_, operands, as_expression(False))
    return (_COMPARE | _CALCULATE)[operator](*operands)
