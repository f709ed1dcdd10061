"""The validators that hold others: arrays, objects, records, unions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import Any, cast

from camber.errors import ValidatorDefinitionError
from camber.values.faults import Fault
from camber.values.kinds import Int64, type_of
from camber.values.limits import (
    MAX_ARRAY_LENGTH,
    MAX_OBJECT_FIELDS,
    check_field_name,
    identifier_problem,
    too_long_array,
    too_many_fields,
)
from camber.values.misfits import ExtraField, Misfit, MissingField
from camber.values.validators import (
    Check,
    HandOver,
    IdValidator,
    LiteralValidator,
    StringValidator,
    TableNames,
    Validator,
    refuse_optional,
    require_validator,
)


@dataclass(frozen=True, slots=True)
class ArrayValidator(Validator):
    """An array, every element of which fits `element`."""

    element: Validator

    kind = "array"
    types = frozenset({list, tuple})

    def __post_init__(self) -> None:
        require_validator(self.element, "v.array")
        refuse_optional(self.element, "The elements of v.array")
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "array", "value": self.element.json}

    def render(self) -> str:
        return f"v.array({self.element.render()})"

    @property
    def children(self) -> Iterable[Validator]:
        return (self.element,)

    def _compile(self) -> Check:
        check_element = self.element.checker()

        def check(value: Any, tables: TableNames) -> list[Any]:
            if not isinstance(value, (list, tuple)):
                raise Misfit(self, value)
            items = cast("list[Any]", value)
            if len(items) > MAX_ARRAY_LENGTH:
                raise too_long_array(len(items))
            checked: list[Any] = []
            try:
                # Element by element: where it stops, the length says at which.
                checked.extend(map(check_element, items, repeat(tables)))
            except Fault as fault:
                fault.steps.append(f"[{len(checked)}]")
                raise
            return checked

        return check

    def _compile_hand_over(self) -> HandOver | None:
        if self.element.hands_over_as_is:
            return None
        hand = self.element.hand_over
        return lambda value: list(map(hand, cast("list[Any]", value))) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class ObjectValidator(Validator):
    """Exactly these fields; the optional ones may be missing."""

    fields: Mapping[str, Validator] = field(hash=False)

    kind = "object"
    types = frozenset({dict})

    def __post_init__(self) -> None:
        _check_object_fields(self.fields)
        if len(self.fields) > MAX_OBJECT_FIELDS:
            raise ValidatorDefinitionError(too_many_fields(len(self.fields)).message)
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "object", "value": {name: _field_json(one) for name, one in self.fields.items()}}

    def render(self) -> str:
        shown = [f"{name}: {_rendered_field(self.fields[name])}" for name in sorted(self.fields)]
        return f"v.object({{{', '.join(shown)}}})"

    @property
    def children(self) -> Iterable[Validator]:
        return self.fields.values()

    def omit(self, *names: str) -> ObjectValidator:
        """Without these fields."""
        self._require(names)
        return self._with({name: one for name, one in self.fields.items() if name not in names})

    def pick(self, *names: str) -> ObjectValidator:
        """Only these fields."""
        self._require(names)
        return self._with({name: one for name, one in self.fields.items() if name in names})

    def partial(self) -> ObjectValidator:
        """With every field optional."""
        return self._with({name: one.optional() for name, one in self.fields.items()})

    def extend(self, fields: Mapping[str, Validator]) -> ObjectValidator:
        """With these fields too; one of the same name is replaced."""
        return self._with({**self.fields, **fields})

    def _require(self, names: tuple[str, ...]) -> None:
        if unknown := [name for name in names if name not in self.fields]:
            known = ", ".join(self.fields) or "none"
            raise ValidatorDefinitionError(f"there is no field {unknown[0]!r} in this object (its fields: {known})")

    def _with(self, fields: Mapping[str, Validator]) -> ObjectValidator:
        return ObjectValidator(fields, is_optional=self.is_optional)

    def _compile(self) -> Check:
        # By name, because the first field that is wrong or missing is the one reported (protocol 2.2).
        fields = [
            (name, one.is_optional, one.checker(), one.kind == "string") for name, one in sorted(self.fields.items())
        ]

        def check(given: Any, tables: TableNames) -> dict[str, Any]:
            value: dict[str, Any] = given if type_of(given) is dict else _fields_of(self, given)
            checked: dict[str, Any] = {}
            missing = name = None
            try:
                for name, is_optional, check_field, is_text in fields:
                    if name in value:
                        item = value[name]
                        # Most fields are plain text, and a call takes longer than looking.
                        if is_text and type(item) is str and item.isascii():
                            checked[name] = item
                        else:
                            checked[name] = check_field(item, tables)
                    elif not is_optional:
                        missing = name
                        break
            except Fault as fault:
                fault.below(name)
                raise
            if missing is not None:
                raise MissingField(self, value, missing)
            if len(checked) != len(value):
                raise ExtraField(self, value, _extra_name(value, self.fields))
            return checked

        return check

    def _compile_hand_over(self) -> HandOver | None:
        changing = [(name, one.hand_over) for name, one in self.fields.items() if not one.hands_over_as_is]
        if not changing:
            return None

        def hand_over(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            handed = cast("dict[str, Any]", value).copy()
            for name, hand in changing:
                if name in handed:
                    handed[name] = hand(handed[name])
            return handed

        return hand_over


def _extra_name(value: Mapping[Any, Any], fields: Mapping[str, Validator]) -> str:
    """The first field by name that is not in the validator; a name that is none is refused as a value when this is shown."""
    extra = [name for name in value if name not in fields]
    return min((name for name in extra if isinstance(name, str)), default=str(extra[0]))


def _fields_of(validator: Validator, value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    raise Misfit(validator, value)


def _check_object_fields(fields: object) -> None:
    if not isinstance(fields, Mapping):
        raise ValidatorDefinitionError(f"v.object takes a mapping of validators, not {type(fields).__name__}")
    for name, validator in cast("Mapping[object, object]", fields).items():
        _check_object_field(name, validator)


def _check_object_field(name: object, validator: object) -> None:
    if not isinstance(name, str):
        raise ValidatorDefinitionError(f"field names are str, not {type(name).__name__}")
    if problem := identifier_problem(name):
        raise ValidatorDefinitionError(f"field {name!r}: {problem}")
    require_validator(validator, f"field {name!r}")


def _field_json(validator: Validator) -> dict[str, Any]:
    return {"fieldType": validator.json, "optional": validator.is_optional}


def _rendered_field(validator: Validator) -> str:
    return f"v.optional({validator.render()})" if validator.is_optional else validator.render()


@dataclass(frozen=True, slots=True)
class RecordValidator(Validator):
    """An object with any names that fit `keys`, and values that fit `values`."""

    keys: Validator
    values: Validator

    kind = "record"
    types = frozenset({dict})

    def __post_init__(self) -> None:
        require_validator(self.keys, "v.record")
        require_validator(self.values, "v.record")
        if self.values.is_optional:
            raise ValidatorDefinitionError("Records cannot have optional values")
        if self.keys.is_optional:
            raise ValidatorDefinitionError("Records cannot have optional keys")
        _check_record_keys(self.keys)
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "record", "keys": self.keys.json, "values": _field_json(self.values)}

    def render(self) -> str:
        return f"v.record({self.keys.render()}, {self.values.render()})"

    @property
    def children(self) -> Iterable[Validator]:
        return (self.keys, self.values)

    def _compile(self) -> Check:
        check_key = None if isinstance(self.keys, StringValidator) else self.keys.checker()
        check_value = self.values.checker()

        def check(given: Any, tables: TableNames) -> dict[str, Any]:
            value: dict[str, Any] = given if type_of(given) is dict else _fields_of(self, given)
            if len(value) > MAX_OBJECT_FIELDS:
                raise too_many_fields(len(value))
            step = ".keys()"
            checked: dict[str, Any] = {}
            try:
                for name in _sorted_names(value):
                    step = ".keys()"
                    if check_key:
                        check_key(name, tables)
                    step = ".values()"
                    checked[name] = check_value(value[name], tables)
            except Fault as fault:
                fault.steps.append(step)
                raise
            return checked

        return check

    def _compile_hand_over(self) -> HandOver | None:
        if self.values.hands_over_as_is:
            return None
        hand = self.values.hand_over

        def hand_over(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {name: hand(item) for name, item in cast("dict[str, Any]", value).items()}

        return hand_over


def _sorted_names(value: dict[Any, Any]) -> list[str]:
    for name in value:
        check_field_name(name)
    return sorted(value)


def _check_record_keys(keys: Validator) -> None:
    if isinstance(keys, LiteralValidator):
        raise ValidatorDefinitionError("Records cannot have string literal keys: use v.object for known fields")
    if isinstance(keys, UnionValidator):
        for member in keys.members:
            _check_record_keys(member)
    elif not isinstance(keys, (StringValidator, IdValidator)):
        raise ValidatorDefinitionError(
            f"Records can only have string keys (v.string(), v.id(...) or a union of them), not {keys.render()}"
        )


@dataclass(frozen=True, slots=True)
class UnionValidator(Validator):
    """Any of its members; of none, nothing fits."""

    members: tuple[Validator, ...]

    kind = "union"

    def __post_init__(self) -> None:
        for member in self.members:
            require_validator(member, "v.union")
            refuse_optional(member, "The members of v.union")
        Validator.__post_init__(self)

    @property
    def json(self) -> dict[str, Any]:
        return {"type": "union", "value": [member.json for member in self.members]}

    def render(self) -> str:
        return f"v.union({', '.join([member.render() for member in self.members])})"

    @property
    def children(self) -> Iterable[Validator]:
        return self.members

    @property
    def accepted_types(self) -> frozenset[type] | None:
        accepted = [member.accepted_types for member in self.members]
        return None if None in accepted else frozenset[type]().union(*[one for one in accepted if one])

    def _compile(self) -> Check:
        if len(self.members) == 1:
            return self.members[0].checker()
        every = [member.checker() for member in _plain_ints_as_numbers(self.members)]
        by_type = self._members_by_type()
        texts = frozenset([text for member in self.members if (text := _literal_text(member)) is not None])

        def check(value: Any, tables: TableNames) -> Any:
            kind = type_of(value)
            if kind is str and value in texts:
                return value
            for check_member in by_type.get(kind, every):
                try:
                    return check_member(value, tables)
                except Misfit:
                    continue
            raise Misfit(self, value)

        return check

    def _members_by_type(self) -> dict[type, list[Check]]:
        """For each Python type the members it can fit, so that the usual union tries only one."""
        found: dict[type, list[Check]] = {}
        for kind in (type(None), bool, Int64, float, int, str, bytes, list, tuple, dict):
            members = _plain_ints_as_numbers(self.members) if kind is int else self.members
            found[kind] = [
                member.checker()
                for member in members
                if (member.accepted_types is None or kind in member.accepted_types) and _literal_text(member) is None
            ]
        return found

    def _compile_hand_over(self) -> HandOver | None:
        if all(member.hands_over_as_is for member in self.members):
            return None
        members = self.members

        def hand_over(value: Any) -> Any:
            for member in members:
                if member.fits_shape(value):
                    return member.hand_over(value)
            return value

        return hand_over


def _literal_text(validator: Validator) -> str | None:
    if isinstance(validator, LiteralValidator) and isinstance(validator.value, str):
        return validator.value
    return None


def _plain_ints_as_numbers(members: Iterable[Validator]) -> list[Validator]:
    """The members with those for int64 last: a plain int means a number where both would do."""
    return sorted(members, key=lambda member: Int64 in (member.accepted_types or ()))
