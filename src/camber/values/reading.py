"""Validators from their JSON: Convex's export form (protocol 2.1), and the same with what that form leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any, Final, cast

from camber.errors import InvalidValueError, ValidatorDefinitionError
from camber.values.containers import ArrayValidator, ObjectValidator, RecordValidator, UnionValidator
from camber.values.encoding import decode_value
from camber.values.validators import (
    AnyValidator,
    BooleanValidator,
    BytesValidator,
    IdValidator,
    Int64Validator,
    LiteralValidator,
    NullValidator,
    NumberValidator,
    StringValidator,
    Validator,
)

MAX_FORM_DEPTH: Final = 200
"""Validators inside one another: 64 levels of arrays and objects with several unions in each, and well within Python's stack."""

_SIMPLE: dict[str, Callable[[], Validator]] = {
    "null": NullValidator,
    "bigint": Int64Validator,
    "boolean": BooleanValidator,
    "string": StringValidator,
    "bytes": BytesValidator,
    "any": AnyValidator,
    # Types of long ago that Convex still reads, as any (protocol 2.1).
    "map": AnyValidator,
    "set": AnyValidator,
}


def exact_json(validator: Validator) -> dict[str, Any]:
    """The export form with `"whole": true` where a number is handed over as an int.

    Convex's form has no word for that, so `Validator.json` leaves it out; `validator_from_json` reads both. Of this one it makes an
    equal validator: one that accepts, refuses and hands over the same.
    """
    match validator:
        case NumberValidator(whole=True) | LiteralValidator(whole=True):
            return {**validator.json, "whole": True}
        case ArrayValidator():
            return {**validator.json, "value": exact_json(validator.element)}
        case ObjectValidator():
            return {**validator.json, "value": {name: _exact_field(one) for name, one in validator.fields.items()}}
        case RecordValidator():
            return {**validator.json, "values": _exact_field(validator.values)}
        case UnionValidator():
            return {**validator.json, "value": [exact_json(member) for member in validator.members]}
        case _:
            return validator.json


def _exact_field(validator: Validator) -> dict[str, Any]:
    return {"fieldType": exact_json(validator), "optional": validator.is_optional}


def validator_from_json(json: object) -> Validator:
    """The validator of an export form (protocol 2.1) or of `exact_json`. Raises ValidatorDefinitionError for anything that is none."""
    return _read(json, MAX_FORM_DEPTH)


def _read(json: object, depth: int) -> Validator:
    if depth == 0:
        raise ValidatorDefinitionError(f"validators are nested more than {MAX_FORM_DEPTH} levels deep")
    if not isinstance(json, Mapping):
        raise ValidatorDefinitionError(f"a validator's JSON is an object, not {type(json).__name__}")
    form = cast("Mapping[str, Any]", json)
    kind = form.get("type")
    if isinstance(kind, str) and kind in _SIMPLE:
        return _SIMPLE[kind]()
    try:
        return _read_kind(kind, form, depth - 1)
    except KeyError as error:
        raise ValidatorDefinitionError(f"malformed JSON of a validator of type {kind!r}: {error} is missing") from None
    except (TypeError, AttributeError, InvalidValueError) as error:
        raise ValidatorDefinitionError(f"malformed JSON of a validator of type {kind!r}: {error}") from None


def _read_kind(kind: object, form: Mapping[str, Any], depth: int) -> Validator:
    match kind:
        case "number":
            return NumberValidator(_flag(form, "whole", default=False))
        case "id":
            return IdValidator(form["tableName"])
        case "literal":
            value = cast("Any", decode_value(form["value"]))
            return LiteralValidator(value, _flag(form, "whole", default=False))
        case "array":
            return ArrayValidator(_read(form["value"], depth))
        case "object":
            fields: Mapping[str, Any] = form["value"]
            return ObjectValidator(dict(zip(fields, map(_read_field, fields.values(), repeat(depth)), strict=True)))
        case "record":
            return RecordValidator(_read(form["keys"], depth), _read_field(form["values"], depth))
        case "union":
            return UnionValidator(tuple(map(_read, form["value"], repeat(depth))))
        case _:
            raise ValidatorDefinitionError(f"there is no validator of type {kind!r}")


def _read_field(json: Mapping[str, Any], depth: int) -> Validator:
    validator = _read(json["fieldType"], depth)
    return validator.optional() if _flag(json, "optional") else validator


def _flag(form: Mapping[str, Any], name: str, *, default: bool | None = None) -> bool:
    flag = form[name] if default is None else form.get(name, default)
    if not isinstance(flag, bool):
        raise TypeError(f"`{name}` is true or false, not {type(flag).__name__}")
    return flag
