"""Validators: what a value must look like, checked by functions that are put together once (protocol 2). Here the plain ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self, TypeAlias, cast

from camber.errors import InvalidIdError, ValidatorDefinitionError
from camber.values.encoding import to_json
from camber.values.faults import Fault
from camber.values.ids import decode_id
from camber.values.kinds import WHOLE_LIMIT, Int64, Value, type_of
from camber.values.limits import (
    MAX_NESTING,
    TooNested,
    check_text,
    identifier_problem,
)
from camber.values.misfits import IdTableMismatch, LiteralMismatch, Misfit
from camber.values.normalize import float_of, int64_of, normal_value, plain
from camber.values.rendering import render_float, render_text
from camber.values.sizes import nesting_of


class TableNames(Protocol):
    """Which number a table has, among user and system tables; ids carry the number."""

    def number_of(self, name: str) -> int | None: ...

    def name_of(self, number: int) -> str | None: ...


Check: TypeAlias = Callable[[Any, TableNames], Any]
"""From a value to its normal form; raises Fault where it does not fit."""

HandOver: TypeAlias = Callable[[Any], Any]

_CONTAINERS = frozenset({list, tuple, dict})


class _NoTables:
    """Tells validators of ids to take any text: used where a value was checked before and only its shape is asked."""

    def number_of(self, name: str) -> int | None:  # noqa: ARG002
        return None

    def name_of(self, number: int) -> str | None:  # noqa: ARG002
        return None


_SHAPE_ONLY = _NoTables()


@dataclass(frozen=True, slots=True)
class Validator:
    """What a value must look like. Immutable; made by the builders in `v`.

    `is_optional` is a matter of the object field it stands for: the field may be missing.
    """

    is_optional: bool = field(default=False, kw_only=True)
    _check: Check = field(init=False, repr=False, compare=False)
    _hand: HandOver | None = field(init=False, repr=False, compare=False)
    levels: int = field(init=False, repr=False, compare=False)
    """Arrays and objects inside one another, not counting what `v.any()` may bring."""
    holds_anything: bool = field(init=False, repr=False, compare=False)
    """Whether some part takes values of any shape, so of any depth."""

    kind: ClassVar[str] = ""
    types: ClassVar[frozenset[type]] = frozenset()

    def __post_init__(self) -> None:
        children = self.children
        deepest = max([child.levels for child in children], default=0)
        levels = deepest + (self.types <= _CONTAINERS and bool(self.types))
        if levels > MAX_NESTING:
            raise ValidatorDefinitionError(f"a value nested more than {MAX_NESTING} levels deep can't be")
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "holds_anything", self._takes_anything())
        object.__setattr__(self, "_check", self._compile())
        object.__setattr__(self, "_hand", self._compile_hand_over())

    @property
    def json(self) -> dict[str, Any]:
        """The export form of protocol 2.1."""
        return {"type": self.kind}

    def render(self) -> str:
        """The text that error messages show, like `v.object({a: v.string()})`."""
        return f"v.{self.kind}()"

    def check(self, value: object, tables: TableNames, path: str = "") -> Value:
        """The value in its normal form, in fresh containers.

        A plain int becomes a float64, or an int64 where the validator says so. Raises ValidationError with the text of protocol
        2.3 and the path below `path`, InvalidValueError for what is no Convex value.
        """
        try:
            checked = self._check(value, tables)
            if self.holds_anything and nesting_of(checked) > MAX_NESTING:
                raise TooNested
        except Fault as fault:
            raise fault.as_error(path) from None
        return checked

    def hand_over(self, value: Value) -> Any:
        """What Python code receives for a checked value: an int where the annotation said `int`."""
        return self._hand(value) if self._hand else value

    @property
    def hands_over_as_is(self) -> bool:
        """Whether `hand_over` never changes anything, so that it need not be called."""
        return self._hand is None

    def optional(self) -> Self:
        """The same validator for a field that may be missing."""
        return replace(self, is_optional=True)

    @property
    def children(self) -> Iterable[Validator]:
        """The validators directly inside this one."""
        return ()

    def _takes_anything(self) -> bool:
        return any(child.holds_anything for child in self.children)

    @property
    def accepted_types(self) -> frozenset[type] | None:
        """The Python types that can fit; None for all."""
        return self.types

    def _compile(self) -> Check:
        raise NotImplementedError

    def _compile_hand_over(self) -> HandOver | None:
        return None

    def checker(self) -> Check:
        """The compiled check, for validators and tables around this one. Raises Fault."""
        return self._check

    def fits_shape(self, value: Value) -> bool:
        """Whether the value fits, whichever table an id is of."""
        try:
            self._check(value, _SHAPE_ONLY)
        except Fault:
            return False
        return True


@dataclass(frozen=True, slots=True)
class NullValidator(Validator):
    """null, and nothing else."""

    kind = "null"
    types = frozenset({type(None)})

    def _compile(self) -> Check:
        def check(value: Any, _tables: TableNames) -> None:
            if value is not None:
                raise Misfit(self, value)

        return check


@dataclass(frozen=True, slots=True)
class NumberValidator(Validator):
    """A float64. `whole`, which comes from the annotation `int`, takes whole numbers within ±2^53 only."""

    whole: bool = False

    kind = "number"
    types = frozenset({float, int})

    def render(self) -> str:
        return "v.float64()"

    def _compile(self) -> Check:
        return self._compile_whole() if self.whole else self._compile_any_number()

    def _compile_any_number(self) -> Check:
        def check(value: Any, _tables: TableNames) -> float:
            if type(value) is float:
                return value
            return self._number(value)

        return check

    def _compile_whole(self) -> Check:
        def check(value: Any, _tables: TableNames) -> float:
            number = value if type(value) is float else self._number(value)
            if -WHOLE_LIMIT <= number <= WHOLE_LIMIT and number.is_integer():
                return number
            raise Misfit(self, value, " with a whole number within ±2^53")

        return check

    def _number(self, value: object) -> float:
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, int) and not isinstance(value, (bool, Int64)):
            return float_of(int.__int__(value))
        raise Misfit(self, value)

    def _compile_hand_over(self) -> HandOver | None:
        return _as_int if self.whole else None


def _as_int(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Int64Validator(Validator):
    """An int64."""

    kind = "bigint"
    types = frozenset({Int64, int})

    def render(self) -> str:
        return "v.int64()"

    def _compile(self) -> Check:
        def check(value: Any, _tables: TableNames) -> Int64:
            if type(value) is Int64:
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return int64_of(int.__int__(value))
            raise Misfit(self, value)

        return check


@dataclass(frozen=True, slots=True)
class BooleanValidator(Validator):
    """true or false."""

    kind = "boolean"
    types = frozenset({bool})

    def _compile(self) -> Check:
        def check(value: Any, _tables: TableNames) -> bool:
            if value is True or value is False:
                return value
            raise Misfit(self, value)

        return check


@dataclass(frozen=True, slots=True)
class StringValidator(Validator):
    """Text."""

    kind = "string"
    types = frozenset({str})

    def _compile(self) -> Check:
        def check(value: Any, _tables: TableNames) -> str:
            if type(value) is str and value.isascii():
                return value
            return _text(self, value)

        return check


def _text(validator: Validator, value: object) -> str:
    if not isinstance(value, str):
        raise Misfit(validator, value)
    text = str.__str__(value)
    check_text(text)
    return text


@dataclass(frozen=True, slots=True)
class BytesValidator(Validator):
    """Bytes."""

    kind = "bytes"
    types = frozenset({bytes})

    def _compile(self) -> Check:
        def check(value: Any, _tables: TableNames) -> bytes:
            if type(value) is bytes:
                return value
            if isinstance(value, bytes):
                return cast("bytes", plain(value))
            raise Misfit(self, value)

        return check


@dataclass(frozen=True, slots=True)
class AnyValidator(Validator):
    """Every value."""

    kind = "any"

    def _takes_anything(self) -> bool:
        return True

    @property
    def accepted_types(self) -> frozenset[type] | None:
        return None

    def _compile(self) -> Check:
        return lambda value, _tables: normal_value(value, MAX_NESTING)


@dataclass(frozen=True, slots=True)
class IdValidator(Validator):
    """The id of a document of `table`."""

    table: str

    kind = "id"
    types = frozenset({str})

    def __post_init__(self) -> None:
        _check_table_name(self.table)
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "id", "tableName": self.table}

    def render(self) -> str:
        return f'v.id("{self.table}")'

    def _compile(self) -> Check:
        table = self.table

        def check(value: Any, tables: TableNames) -> str:
            try:
                text = value if type(value) is str else _text(self, value)
                number = decode_id(text)[0]
            except InvalidIdError:
                if tables is _SHAPE_ONLY:
                    return value
                raise Misfit(self, value) from None
            if number == tables.number_of(table) or tables is _SHAPE_ONLY:
                return text
            found = tables.name_of(number)
            raise Misfit(self, value) if found is None else IdTableMismatch(self, text, found)

        return check


def _check_table_name(name: object) -> None:
    if not isinstance(name, str):
        raise ValidatorDefinitionError(f'v.id takes a table\'s name, as in v.id("users"), not {named(name)}')
    if problem := identifier_problem(name):
        raise ValidatorDefinitionError(f"v.id({name!r}): {problem}")


@dataclass(frozen=True, slots=True)
class LiteralValidator(Validator):
    """Exactly this text, number, int64 or boolean. `whole`, from `Literal[1]`, hands a number over as an int."""

    value: str | float | Int64 | bool
    whole: bool = False

    kind = "literal"

    def __post_init__(self) -> None:
        if type(self.value) not in (str, float, Int64, bool):
            raise ValidatorDefinitionError(
                f"v.literal takes a str, number, Int64 or bool, not {type(self.value).__name__}"
            )
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "literal", "value": to_json(self.value)}

    def render(self) -> str:
        return f"v.literal({self._rendered_value()})"

    def _rendered_value(self) -> str:
        value = self.value
        if isinstance(value, str):
            return render_text(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "<bigint>" if isinstance(value, Int64) else render_float(value)

    @property
    def accepted_types(self) -> frozenset[type] | None:
        kind = type_of(self.value)
        return frozenset({kind, int}) if kind is float or kind is Int64 else frozenset({kind})

    def _compile(self) -> Check:
        literal, kind = self.value, type(self.value)
        if kind is float:
            return self._compile_float(_bits(cast("float", literal)))

        def check(value: Any, _tables: TableNames) -> Any:
            if type(value) is kind and value == literal:
                return literal
            if _plain_literal(value, kind) == literal:
                return literal
            raise LiteralMismatch(self, value)

        return check

    def _compile_float(self, bits: bytes) -> Check:
        def check(value: Any, _tables: TableNames) -> float:
            number = value if type(value) is float else _plain_literal(value, float)
            if number is not None and _bits(number) == bits:
                return number
            raise LiteralMismatch(self, value)

        return check

    def _compile_hand_over(self) -> HandOver | None:
        return _as_int if self.whole else None


def _bits(number: float) -> bytes:
    """A float's identity: -0 is not 0, and each NaN is equal to itself."""
    return struct.pack(">d", number)


def _plain_literal(value: object, kind: type) -> Any:
    """A subclass's content (an Enum's text), or a plain int as the number kind asked for; None where it is another kind."""
    if isinstance(value, bool) or type(value) is Int64:
        return None
    if isinstance(value, int):
        number = int.__int__(value)
        return float_of(number) if kind is float else int64_of(number) if kind is Int64 else None
    return plain(value) if isinstance(value, (str, float)) and isinstance(value, kind) else None


def require_validator(validator: object, where: str) -> None:
    """Raise ValidatorDefinitionError for anything else, a type mostly."""
    if not isinstance(validator, Validator):
        raise ValidatorDefinitionError(f"{where} takes a validator, like v.string(), not {named(validator)}")


def named(thing: object) -> str:
    """What someone gave instead of what belongs there, for a message."""
    return f"the type {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


def refuse_optional(validator: Validator, where: str) -> None:
    """Raise ValidatorDefinitionError where nothing can be missing."""
    if validator.is_optional:
        raise ValidatorDefinitionError(f"{where} can't be optional: only fields of an object can be missing")
