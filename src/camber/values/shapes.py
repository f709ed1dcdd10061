"""Python annotations as validators: what a TypedDict class or a parameter's annotation says about a value."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NewType, NotRequired, Required, TypeVar, Union, cast, get_args, get_origin

from camber.errors import ValidatorDefinitionError
from camber.values.containers import ArrayValidator, ObjectValidator, RecordValidator, UnionValidator
from camber.values.kinds import Int64
from camber.values.validators import (
    AnyValidator,
    BooleanValidator,
    BytesValidator,
    Int64Validator,
    LiteralValidator,
    NullValidator,
    NumberValidator,
    StringValidator,
    Validator,
)

_SIMPLE: dict[object, Callable[[], Validator]] = {
    str: StringValidator,
    float: NumberValidator,
    int: lambda: NumberValidator(whole=True),
    Int64: Int64Validator,
    bool: BooleanValidator,
    bytes: BytesValidator,
    None: NullValidator,
    type(None): NullValidator,
    Any: AnyValidator,
    object: AnyValidator,
    list: lambda: ArrayValidator(AnyValidator()),
    dict: lambda: RecordValidator(StringValidator(), AnyValidator()),
}

_INSTEAD: dict[str, str] = {
    "tuple": "list[T]",
    "set": "list[T]",
    "frozenset": "list[T]",
    "Sequence": "list[T]",
    "Iterable": "list[T]",
    "Mapping": "dict[str, T] or a TypedDict",
    "MutableMapping": "dict[str, T] or a TypedDict",
    "datetime": "float, milliseconds since the epoch",
    "date": "float, milliseconds since the epoch, or str",
    "timedelta": "float, milliseconds",
    "Decimal": "float or str",
    "complex": "list[float]",
    "UUID": "str",
    "bytearray": "bytes",
    "memoryview": "bytes",
}

_READ_ONLY: object = getattr(typing, "ReadOnly", None)
_FIELD_QUALIFIERS = (NotRequired, Required, _READ_ONLY)

_NOTHING_BOUND: Mapping[object, object] = {}


def shape_validator(shape: object) -> Validator:
    """The validator that an annotation or a TypedDict class stands for.

    `float` and `int` both mean Convex's number, `int` a whole one; `Int64` is int64; `Annotated[T, v.id("users")]` is what its last
    validator says. Raises ValidatorDefinitionError, naming the annotation to write instead.
    """
    return _Reader().read(shape, _NOTHING_BOUND)


class _Reader:
    """One walk through an annotation; knows the classes it is inside of, and where it is for messages."""

    def __init__(self) -> None:
        self._inside: list[type] = []
        self._field = ""

    def read(self, annotation: object, bound: Mapping[object, object]) -> Validator:
        """`bound` says what the type variables of the generic class around it stand for."""
        annotation = _resolved(annotation, bound)
        if isinstance(annotation, Validator):
            return annotation
        if _is_hashable(annotation) and annotation in _SIMPLE:
            return _SIMPLE[annotation]()
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._read_annotated(arguments, bound)
        if origin is Literal:
            return _union([self._literal(value) for value in arguments])
        if origin is Union or origin is types.UnionType:
            return _union([self.read(member, bound) for member in arguments])
        if origin is list:
            return ArrayValidator(self.read(arguments[0], bound))
        if origin is dict:
            return self._read_dict(arguments, bound)
        if is_typed_dict(annotation):
            return self.read_class(annotation, bound)
        if is_typed_dict(origin):
            return self.read_class(origin, _bind(origin, [self.read(one, bound) for one in arguments]))
        raise self._refusal(annotation)

    def read_class(self, shape: type, bound: Mapping[object, object]) -> ObjectValidator:
        if shape in self._inside:
            raise ValidatorDefinitionError(
                f"{self._where()}{shape.__name__} holds itself, and a validator can't; annotate the inner one as Any"
            )
        self._inside.append(shape)
        outer_field = self._field
        fields: dict[str, Validator] = {}
        for name, annotation in _hints(shape).items():
            self._field = name
            fields[name] = self._read_field(shape, name, annotation, bound)
        self._field = outer_field
        self._inside.pop()
        return ObjectValidator(fields)

    def _read_field(self, shape: type, name: str, annotation: object, bound: Mapping[object, object]) -> Validator:
        # Under postponed annotations the class's own lists of keys miss NotRequired and Required; get_type_hints does not. What
        # the lists do know is `total=False`, also of a base class.
        is_optional = name in getattr(shape, "__optional_keys__", ())
        while (origin := get_origin(annotation)) in _FIELD_QUALIFIERS and origin is not None:
            if origin is not _READ_ONLY:
                is_optional = origin is NotRequired
            annotation = get_args(annotation)[0]
        validator = self.read(annotation, bound)
        return validator.optional() if is_optional else validator

    def _read_annotated(self, arguments: tuple[Any, ...], bound: Mapping[object, object]) -> Validator:
        validators = [one for one in arguments[1:] if isinstance(one, Validator)]
        return validators[-1] if validators else self.read(arguments[0], bound)

    def _read_dict(self, arguments: tuple[Any, ...], bound: Mapping[object, object]) -> Validator:
        keys, values = self.read(arguments[0], bound), self.read(arguments[1], bound)
        try:
            return RecordValidator(keys, values)
        except ValidatorDefinitionError as error:
            raise ValidatorDefinitionError(f"{self._where()}{error}; write dict[str, T] or a TypedDict") from None

    def _literal(self, value: object) -> Validator:
        if value is None:
            return NullValidator()
        if type(value) is int:
            return LiteralValidator(float(value), whole=True)
        if type(value) in (str, bool):
            return LiteralValidator(cast("str | bool", value))
        raise ValidatorDefinitionError(
            f"{self._where()}Literal[{value!r}] can't be checked: write a str, int, bool or None in it"
        )

    def _refusal(self, annotation: object) -> ValidatorDefinitionError:
        shown = _shown(annotation)
        if isinstance(annotation, str | typing.ForwardRef):
            return ValidatorDefinitionError(f"{self._where()}{shown} is the name of a type that can't be found here")
        if isinstance(annotation, TypeVar):
            return ValidatorDefinitionError(f"{self._where()}{shown} is open; write the type, as in Page[Users]")
        if isinstance(annotation, type) and getattr(annotation, "__members__", None):
            texts = ", ".join(repr(member.value) for member in cast("Any", annotation))
            return ValidatorDefinitionError(f"{self._where()}{shown} is an Enum; write Literal[{texts}]")
        name = getattr(get_origin(annotation) or annotation, "__name__", "")
        instead = _INSTEAD.get(
            name, "str, float, int, Int64, bool, None, bytes, list[T], dict[str, T], Literal, a TypedDict or Any"
        )
        return ValidatorDefinitionError(f"{self._where()}{shown} can't be checked; write {instead}")

    def _where(self) -> str:
        if not self._inside:
            return ""
        return f"{self._inside[-1].__name__}.{self._field}: " if self._field else f"{self._inside[-1].__name__}: "


def is_typed_dict(shape: object) -> typing.TypeGuard[type]:
    """Whether this is a TypedDict class, of `typing` or of typing_extensions."""
    return isinstance(shape, type) and hasattr(shape, "__optional_keys__") and issubclass(shape, dict)


def _hints(shape: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(shape, include_extras=True)
    except NameError as error:
        raise ValidatorDefinitionError(
            f"{shape.__name__}: {error}; what an annotation names must be known in the module {shape.__module__}"
        ) from None
    except (TypeError, SyntaxError) as error:
        raise ValidatorDefinitionError(f"{shape.__name__}: an annotation can't be read: {error}") from None


def _resolved(annotation: object, bound: Mapping[object, object]) -> object:
    """Behind NewType, `type X = ...` and type variables."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, TypeVar) and annotation in bound:
            annotation = bound[annotation]
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = cast("Any", annotation).__value__
        else:
            return annotation


def _bind(shape: type, arguments: list[Validator]) -> Mapping[object, object]:
    """What the type variables of a generic class stand for."""
    parameters = cast("tuple[object, ...]", getattr(shape, "__parameters__", ()))
    return dict(zip(parameters, arguments, strict=False))


def _union(members: list[Validator]) -> Validator:
    """One validator for all of them: unions inside are opened, the same thing is said once, a number takes whole ones too."""
    flat: list[Validator] = []
    for member in members:
        for one in member.members if isinstance(member, UnionValidator) else (member,):
            if one not in flat:
                flat.append(one)
    if NumberValidator() in flat:
        flat = [one for one in flat if one != NumberValidator(whole=True)]
    return flat[0] if len(flat) == 1 else UnionValidator(tuple(flat))


def _is_hashable(annotation: object) -> bool:
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


def _shown(annotation: object) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).removeprefix("typing.")
