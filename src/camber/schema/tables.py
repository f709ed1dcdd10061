"""Tables: a name, what its documents look like, and the indexes on them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypedDict, TypeVar, cast, overload

from camber.errors import (
    InvalidValueError,
    SchemaDefinitionError,
    SchemaEnforcementError,
    ValidationError,
    ValidatorDefinitionError,
)
from camber.values import (
    ObjectValidator,
    RawDocument,
    TableNames,
    Validator,
    Value,
    prepare_document,
    shape_validator,
)
from camber.values.containers import RecordValidator, UnionValidator
from camber.values.faults import Fault
from camber.values.limits import MAX_DOCUMENT_NESTING, SYSTEM_FIELDS, identifier_problem
from camber.values.normalize import check_document_nesting, encode_and_measure
from camber.values.shapes import is_typed_dict
from camber.values.validators import (
    AnyValidator,
    IdValidator,
    NumberValidator,
    StringValidator,
)

MAX_INDEXES: Final = 64
MAX_INDEX_FIELDS: Final = 16

_RESERVED_INDEX_NAMES = frozenset({"by_id", "by_creation_time"})

D = TypeVar("D")


class Document(TypedDict):
    """What every document has: extend it for the documents of a table, field by field."""

    _id: str
    _creationTime: float


@dataclass(frozen=True, slots=True)
class Index:
    """Documents by these fields, dotted paths included, then by creation time. `unique` refuses a second one with the same key."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Table(Generic[D]):
    """A table, whose documents are typed D. `define_table` makes one.

    `validator` checks a document without `_id` and `_creationTime`. `write_with` names the function to change it with, `description`
    says what it holds; both are for people.
    """

    name: str
    validator: Validator
    indexes: tuple[Index, ...] = ()
    write_with: str | None = None
    description: str = ""
    _prepare: Callable[[object, TableNames], tuple[dict[str, Value], str, int]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prepare", self._compile())

    def index(self, name: str, /, fields: Sequence[str], *, unique: bool = False) -> Table[D]:
        """The same table with one more index. Raises SchemaDefinitionError for one that breaks a rule of protocol 3.6.

        A unique index lets no second document have the same values, as long as none of the fields is missing.
        """
        index = Index(name, _field_list(self.name, name, fields), unique)
        _check_index(self, index)
        return replace(self, indexes=(*self.indexes, index))

    def prepare(self, value: object, tables: TableNames) -> tuple[dict[str, Value], str, int]:
        """A document ready to be stored, in fresh containers, its stored form, and its size in bytes with its system fields.

        `value` is without `_id` and `_creationTime`. Raises SchemaEnforcementError where it does not fit, InvalidValueError where it
        can't be a document at all.
        """
        return self._prepare(value, tables)

    def hand_over(self, document: RawDocument) -> D:
        """A stored document, system fields included, as the table's class says: whole numbers as int."""
        if self.validator.hands_over_as_is:
            return cast("D", document)
        fields = {name: item for name, item in document.items() if name not in SYSTEM_FIELDS}
        return cast("D", {**document, **self.validator.hand_over(fields)})

    @property
    def hands_over_as_is(self) -> bool:
        """Whether `hand_over` never changes anything."""
        return self.validator.hands_over_as_is

    def _compile(self) -> Callable[[object, TableNames], tuple[dict[str, Value], str, int]]:
        if isinstance(self.validator, AnyValidator):
            return self._prepare_anything
        check = self.validator.checker()
        may_be_too_deep = self.validator.holds_anything or self.validator.levels > MAX_DOCUMENT_NESTING

        def prepare(value: object, tables: TableNames) -> tuple[dict[str, Value], str, int]:
            try:
                document = check(value, tables)
                if may_be_too_deep:
                    check_document_nesting(document)
                return document, *encode_and_measure(document)
            except Fault as fault:
                raise self._refusal(value, fault) from None

        return prepare

    def _prepare_anything(self, value: object, _tables: TableNames) -> tuple[dict[str, Value], str, int]:
        prepared = prepare_document(value)
        _check_top_level_names(prepared[0])
        return prepared

    def _refusal(self, value: object, fault: Fault) -> Exception:
        if isinstance(value, Mapping):
            _check_top_level_names(cast("Mapping[object, object]", value))
        error = fault.as_error()
        if not isinstance(error, ValidationError):
            return error
        return SchemaEnforcementError(
            f'Failed to insert or update a document in table "{self.name}" because it does not match the schema: {error}',
            path=error.path,
            kind=error.kind,
        )


def _check_top_level_names(fields: Iterable[object]) -> None:
    for name in fields:
        if name in SYSTEM_FIELDS:
            raise InvalidValueError(f"Field '{name}' is given by the database and can't be set", path=f".{name}")
        if isinstance(name, str) and name.startswith("_"):
            raise InvalidValueError(
                f"Field '{name}' starts with an underscore, which is only allowed for system fields like '_id'",
                path=f".{name[:100]}",
            )


@overload
def define_table(name: str, shape: type[D], /, *, write_with: str | None = None) -> Table[D]: ...


@overload
def define_table(
    name: str, shape: Mapping[str, Validator] | Validator, /, *, write_with: str | None = None
) -> Table[RawDocument]: ...


def define_table(name: str, shape: object, /, *, write_with: str | None = None) -> Table[Any]:
    """A table whose documents have this shape: a TypedDict class, a mapping of validators, or a validator.

    Raises SchemaDefinitionError for a name or shape that can't be, ValidatorDefinitionError for a field that can't be checked.
    """
    _check_table_name(name)
    description = ""
    if is_typed_dict(shape):
        validator = shape_validator(shape)
        description = inspect.cleandoc(shape.__doc__ or "")
    elif isinstance(shape, Validator):
        validator = shape
    elif isinstance(shape, Mapping):
        validator = ObjectValidator(cast("Mapping[str, Validator]", shape))
    else:
        raise ValidatorDefinitionError(
            f'table "{name}": its shape is a TypedDict class or a mapping of validators, not {type(shape).__name__}'
        )
    return Table(name, _document_validator(name, validator), write_with=write_with, description=description)


def _check_table_name(name: object) -> None:
    if not isinstance(name, str):
        raise SchemaDefinitionError(f"a table's name is a str, not {type(name).__name__}", rule="InvalidTableName")
    if problem := identifier_problem(name):
        raise SchemaDefinitionError(f'Invalid table name "{name[:100]}": {problem}', rule="InvalidTableName")
    if name.startswith("_"):
        raise SchemaDefinitionError(
            f'Invalid table name "{name}": names that start with an underscore are reserved for system tables.',
            rule="TableNameReserved",
        )


def _document_validator(table: str, validator: Validator) -> Validator:
    """The validator for what is stored: without the system fields, which every document has anyway."""
    if validator.is_optional:
        raise _wrong_top_level(f"v.optional({validator.render()})")
    if isinstance(validator, AnyValidator):
        return validator
    if isinstance(validator, ObjectValidator):
        return _without_system_fields(table, validator)
    if isinstance(validator, UnionValidator):
        members = [_document_validator(table, member) for member in validator.members]
        if all(isinstance(member, (ObjectValidator, UnionValidator)) for member in members):
            return UnionValidator(tuple(members))
    raise _wrong_top_level(validator.render())


def _wrong_top_level(found: str) -> SchemaDefinitionError:
    return SchemaDefinitionError(
        f"The document validator in a schema must be an object, a union of objects, or `v.any()`. Found {found}.",
        rule="InvalidDocumentValidator",
    )


def _without_system_fields(table: str, validator: ObjectValidator) -> ObjectValidator:
    for name, one in validator.fields.items():
        if name in SYSTEM_FIELDS:
            _check_system_field(table, name, one)
        elif name.startswith("_"):
            raise SchemaDefinitionError(
                f"Table \"{table}\": Field '{name}' starts with an underscore, "
                "which is only allowed for system fields like '_id'",
                rule="FieldNameReserved",
            )
    named = [name for name in SYSTEM_FIELDS if name in validator.fields]
    return validator.omit(*named) if named else validator


def _check_system_field(table: str, name: str, validator: Validator) -> None:
    if isinstance(validator, AnyValidator):
        return
    fits = (
        isinstance(validator, StringValidator) or validator == IdValidator(table)
        if name == "_id"
        else validator == NumberValidator()
    )
    if not fits:
        right = f'v.id("{table}")' if name == "_id" else "v.number()"
        raise SchemaDefinitionError(
            f'Table "{table}": no document can have {name} as {validator.render()}; leave it out or write {right}.',
            rule="SystemFieldType",
        )


def _field_list(table: str, index: str, fields: object) -> tuple[str, ...]:
    if isinstance(fields, str) or not isinstance(fields, Sequence):
        raise SchemaDefinitionError(
            f'In table "{table}" the fields of index "{index}" are a list of names, as in ["email"].',
            rule="InvalidIndexFields",
        )
    return tuple(cast("Sequence[str]", fields))


def _check_index(table: Table[Any], index: Index) -> None:
    """The rules of protocol 3.6, in its words."""
    _check_index_name(table, index.name)
    _check_index_fields(table, index)
    for other in table.indexes:
        if other.name == index.name:
            raise SchemaDefinitionError(
                f'Table "{table.name}" has two or more definitions of index "{index.name}".', rule="IndexNamesNotUnique"
            )
        if other.fields == index.fields:
            raise SchemaDefinitionError(
                f'In table "{table.name}" index "{other.name}" and index "{index.name}" have the same fields. '
                "Indexes must be unique within a table.",
                rule="IndexNotUnique",
            )
    if len(table.indexes) >= MAX_INDEXES:
        raise SchemaDefinitionError(
            f'Table "{table.name}" cannot have more than {MAX_INDEXES} indexes.', rule="TooManyIndexes"
        )


def _check_index_name(table: Table[Any], name: str) -> None:
    if name in _RESERVED_INDEX_NAMES or name.startswith("_"):
        raise SchemaDefinitionError(
            f'In table "{table.name}" cannot name an index "{name}" because the name is reserved. '
            'Indexes may not start with an underscore or be named "by_id" or "by_creation_time".',
            rule="IndexNameReserved",
        )
    if problem := identifier_problem(name):
        raise SchemaDefinitionError(
            f'In table "{table.name}" cannot name an index "{name[:100]}": {problem}', rule="InvalidIndexName"
        )


def _check_index_fields(table: Table[Any], index: Index) -> None:
    if not index.fields:
        raise SchemaDefinitionError(
            f'In table "{table.name}" index "{index.name}" must have at least one field.', rule="EmptyIndex"
        )
    if len(index.fields) > MAX_INDEX_FIELDS:
        raise SchemaDefinitionError(f"Indexes may have up to {MAX_INDEX_FIELDS} fields.", rule="IndexTooManyFields")
    seen: set[str] = set()
    for path in index.fields:
        if path in seen:
            raise SchemaDefinitionError(
                f"Duplicate field {path}. Index fields must be unique within an index.",
                rule="FieldsNotUniqueWithinIndex",
            )
        seen.add(path)
        _check_index_field(table, index, path)


def _check_index_field(table: Table[Any], index: Index, path: str) -> None:
    if path == "_id":
        raise SchemaDefinitionError(
            "`_id` is not a valid index field. To load documents by ID, use `db.get(id)`.", rule="IndexFieldsContainId"
        )
    if path == "_creationTime":
        raise SchemaDefinitionError(
            "`_creationTime` is automatically added to the end of each index. It should not be added explicitly in the "
            "index definition. See https://docs.convex.dev/using/indexes for more details.",
            rule="IndexFieldsContainCreationTime",
        )
    if path.startswith("_"):
        raise SchemaDefinitionError(
            "Reserved fields (starting with `_`) are not allowed in indexes.", rule="IndexFieldNameReserved"
        )
    for name in path.split("."):
        if problem := identifier_problem(name):
            raise SchemaDefinitionError(
                f'In table "{table.name}" index "{index.name}" has the field "{path[:100]}": {problem}',
                rule="InvalidIndexField",
            )
    if not _has_field(table.validator, path.split(".")):
        raise SchemaDefinitionError(
            f'In table "{table.name}" index "{index.name}" is on the field "{path}", which its documents don\'t have.'
            + _nearest(path, table.validator),
            rule="IndexFieldNotFound",
        )


def _has_field(validator: Validator, names: Sequence[str]) -> bool:
    """Whether some value that fits can have something at this path."""
    if not names:
        return True
    if isinstance(validator, ObjectValidator):
        return names[0] in validator.fields and _has_field(validator.fields[names[0]], names[1:])
    if isinstance(validator, UnionValidator):
        return any(_has_field(member, names) for member in validator.members)
    if isinstance(validator, RecordValidator):
        return _has_field(validator.values, names[1:])
    return isinstance(validator, AnyValidator)


def _nearest(path: str, validator: Validator) -> str:
    objects = validator.members if isinstance(validator, UnionValidator) else (validator,)
    names = sorted({name for one in objects if isinstance(one, ObjectValidator) for name in one.fields})
    if near := difflib.get_close_matches(path, names, n=1):
        return f' Did you mean "{near[0]}"?'
    return f" It has: {', '.join(names)}." if names else " It has none."
