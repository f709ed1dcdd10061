"""A value that does not fit its validator, and the words Convex has for it (protocol 2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camber.errors import InvalidValueError, ValidationError
from camber.values.faults import Fault, Invalid
from camber.values.limits import MAX_NESTING
from camber.values.normalize import normal_value
from camber.values.rendering import shown

if TYPE_CHECKING:
    from camber.values.validators import Validator


class Misfit(Fault):
    """This value does not fit this validator. Nothing is rendered before it is known that someone will read it."""

    kind = "NoMatch"

    def __init__(self, validator: Validator, value: object, detail: str = "") -> None:
        super().__init__()
        self.validator, self.value, self.detail = validator, value, detail

    def as_error(self, prefix: str = "") -> ValidationError | InvalidValueError:
        """What does not fit may be no Convex value at all: then that is the error."""
        path = self.path(prefix)
        try:
            message = self._message(f"Path: {path}" if path else "")
        except Invalid as fault:
            return self._located(fault).as_error(path)
        return ValidationError(message, path=path, kind=self.kind)

    def _located(self, fault: Invalid) -> Invalid:
        """The fault that rendering ran into, with the path that only a walk finds."""
        try:
            normal_value(self.value, MAX_NESTING)
        except Invalid as located:
            return located
        return fault

    def _message(self, path: str) -> str:
        wanted = f"{self.validator.render()}{self.detail}"
        return f"Value does not match validator.\n{path}\nValue: {shown(self.value)}\nValidator: {wanted}"


class MissingField(Misfit):
    """The object lacks the field `detail`."""

    kind = "MissingField"

    def _message(self, path: str) -> str:
        return (
            f"Object is missing the required field `{self.detail}`. "
            "Consider wrapping the field validator in `v.optional(...)` if this is expected.\n"
            f"{path}\nObject: {shown(self.value)}\nValidator: {self.validator.render()}"
        )


class ExtraField(Misfit):
    """The object has the field `detail`, which the validator does not name."""

    kind = "ExtraField"

    def _message(self, path: str) -> str:
        return (
            f"Object contains extra field `{self.detail}` that is not in the validator.\n"
            f"{path}\nObject: {shown(self.value)}\nValidator: {self.validator.render()}"
        )


class LiteralMismatch(Misfit):
    """Another value than the literal."""

    kind = "LiteralMismatch"

    def _message(self, path: str) -> str:
        return f"`{shown(self.value)}` does not match literal validator `{self.validator.render()}`.{path}"


class IdTableMismatch(Misfit):
    """A good id, but of the table `detail`."""

    kind = "IdTableMismatch"

    def _message(self, path: str) -> str:
        found = "a system table" if self.detail.startswith("_") else f"table `{self.detail}`"
        return (
            f'Found ID "{self.value}" from {found}, '
            f"which does not match the table name in validator `{self.validator.render()}`.{path}"
        )
