"""`v`: how applications write validators."""

from __future__ import annotations

from collections.abc import Mapping

from camber.errors import ValidatorDefinitionError
from camber.values.containers import ArrayValidator, ObjectValidator, RecordValidator, UnionValidator
from camber.values.faults import Fault
from camber.values.normalize import float_of
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
    require_validator,
)


def _null() -> NullValidator:
    """null, and nothing else."""
    return NullValidator()


def _number(*, whole: bool = False) -> NumberValidator:
    """A float64. With `whole`, only whole numbers within ±2^53, handed over as int: what the annotation `int` means."""
    return NumberValidator(whole)


def _int64() -> Int64Validator:
    """An int64, in Python an `Int64`."""
    return Int64Validator()


def _boolean() -> BooleanValidator:
    """true or false."""
    return BooleanValidator()


def _string() -> StringValidator:
    """Text."""
    return StringValidator()


def _bytes() -> BytesValidator:
    """Bytes."""
    return BytesValidator()


def _any() -> AnyValidator:
    """Every value."""
    return AnyValidator()


def _literal(value: str | float | bool) -> LiteralValidator:
    """Exactly this value. A plain int is a number; Int64(1) is an int64."""
    given: object = value
    if type(given) is int:
        try:
            return LiteralValidator(float_of(given))
        except Fault as fault:
            raise ValidatorDefinitionError(f"v.literal: {fault.as_error()}") from None
    return LiteralValidator(value)


def _id(table: str) -> IdValidator:
    """The id of a document of this table."""
    return IdValidator(table)


def _array(element: Validator) -> ArrayValidator:
    """An array of such elements."""
    return ArrayValidator(element)


def _object(fields: Mapping[str, Validator]) -> ObjectValidator:
    """An object with exactly these fields."""
    return ObjectValidator(fields)


def _record(keys: Validator, values: Validator) -> RecordValidator:
    """An object with any names that fit `keys`."""
    return RecordValidator(keys, values)


def _union(*members: Validator) -> UnionValidator:
    """Any of these; `v.union()` fits nothing."""
    return UnionValidator(members)


def _optional(validator: Validator) -> Validator:
    """For a field that may be missing. null is not missing."""
    require_validator(validator, "v.optional")
    return validator.optional()


def _nullable(validator: Validator) -> UnionValidator:
    """This or null."""
    return UnionValidator((validator, NullValidator()))


class _Builders:
    """Convex's validator builders, under Convex's names."""

    null = staticmethod(_null)
    number = staticmethod(_number)
    float64 = staticmethod(_number)
    bigint = staticmethod(_int64)
    int64 = staticmethod(_int64)
    boolean = staticmethod(_boolean)
    string = staticmethod(_string)
    bytes = staticmethod(_bytes)
    any = staticmethod(_any)
    literal = staticmethod(_literal)
    id = staticmethod(_id)
    array = staticmethod(_array)
    object = staticmethod(_object)
    record = staticmethod(_record)
    union = staticmethod(_union)
    optional = staticmethod(_optional)
    nullable = staticmethod(_nullable)


v = _Builders()
