"""`field("tier") == "Gold"`: comparisons and arithmetic on documents, as values that can be printed and compared (protocol 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, cast

from camber.errors import DatabaseUsageError, QueryBuildError
from camber.values import MISSING, Int64, Value, compare, field_of, normalize, render
from camber.values.limits import identifier_problem

Evaluate = Callable[[dict[str, Any]], Any]

_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Expression:
    """A computation on one document. Combine with comparisons, + - * / %, &, | and ~; it has no truth value of its own."""

    __slots__ = ("_text", "evaluate")

    def __init__(self, text: str, evaluate: Evaluate) -> None:
        self._text = text
        self.evaluate = evaluate
        """From a document to the value for it, MISSING where there is none."""

    def __repr__(self) -> str:
        return self._text

    def __bool__(self) -> NoReturn:
        raise DatabaseUsageError(
            f"The expression {self._text} has no truth value: it is worked out for each document. "
            "Write & for `and`, | for `or`, ~ for `not`, and split `a <= field(x) < b` into (field(x) >= a) & (field(x) < b)."
        )

    def __hash__(self) -> int:
        return hash(self._text)

    def holds(self, document: dict[str, Any]) -> bool:
        """Whether a filter keeps this document. Raises DatabaseUsageError where the value is no boolean, as a deployment does."""
        return _boolean(self.evaluate(document), "A condition")

    def __eq__(self, other: object) -> Comparison:  # type: ignore[override]
        return _compared(self, "==", other)

    def __ne__(self, other: object) -> Comparison:  # type: ignore[override]
        return _compared(self, "!=", other)

    def __lt__(self, other: object) -> Comparison:
        return _compared(self, "<", other)

    def __le__(self, other: object) -> Comparison:
        return _compared(self, "<=", other)

    def __gt__(self, other: object) -> Comparison:
        return _compared(self, ">", other)

    def __ge__(self, other: object) -> Comparison:
        return _compared(self, ">=", other)

    def __add__(self, other: object) -> Expression:
        return _calculated(self, "+", other)

    def __radd__(self, other: object) -> Expression:
        return _calculated(other, "+", self)

    def __sub__(self, other: object) -> Expression:
        return _calculated(self, "-", other)

    def __rsub__(self, other: object) -> Expression:
        return _calculated(other, "-", self)

    def __mul__(self, other: object) -> Expression:
        return _calculated(self, "*", other)

    def __rmul__(self, other: object) -> Expression:
        return _calculated(other, "*", self)

    def __truediv__(self, other: object) -> Expression:
        return _calculated(self, "/", other)

    def __rtruediv__(self, other: object) -> Expression:
        return _calculated(other, "/", self)

    def __mod__(self, other: object) -> Expression:
        return _calculated(self, "%", other)

    def __rmod__(self, other: object) -> Expression:
        return _calculated(other, "%", self)

    def __neg__(self) -> Expression:
        inner = self.evaluate
        return Expression(f"-{self}", lambda document: _negated(inner(document)))

    def __and__(self, other: object) -> Expression:
        return _all_or_any("&", self, other)

    def __rand__(self, other: object) -> Expression:
        return _all_or_any("&", other, self)

    def __or__(self, other: object) -> Expression:
        return _all_or_any("|", self, other)

    def __ror__(self, other: object) -> Expression:
        return _all_or_any("|", other, self)

    def __invert__(self) -> Expression:
        inner = self.evaluate
        return Expression(f"~{self}", lambda document: not _boolean(inner(document), "~"))


class Field(Expression):
    """A field of the document, by its dotted path."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        for name in path.split("."):
            if problem := identifier_problem(name):
                raise QueryBuildError(f"field({path!r}): {problem}", rule="InvalidFieldPath")
        self.path = path
        if "." in path:
            super().__init__(f"field({path!r})", lambda document: field_of(document, path))
        else:
            super().__init__(f"field({path!r})", lambda document: document.get(path, MISSING))


class Comparison(Expression):
    """A comparison; one of a bare field with a value is also a bound of an index range."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, left: Expression, operator: str, right: Expression, evaluate: Evaluate) -> None:
        super().__init__(f"({left} {operator} {right})", evaluate)
        self.left, self.operator, self.right = left, operator, right

    def as_bound(self) -> tuple[str, str, object]:
        """Field, operator (one of == > >= < <=) and value, for an index range. Raises QueryBuildError where it is none."""
        left, operator, right = self.left, self.operator, self.right
        if isinstance(left, Literal) and isinstance(right, Field):
            left, operator, right = right, _MIRRORED[operator], left
        if not (isinstance(left, Field) and isinstance(right, Literal)) or operator == "!=":
            raise QueryBuildError(
                f"An index range takes comparisons (==, >, >=, <, <=) of one field with a value; {self} is none. Use .filter() for it."
            )
        return left.path, operator, right.value


class Literal(Expression):
    """A value in an expression; MISSING stands for a field that is not there."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        normal = MISSING if value is MISSING else normalize(value)
        super().__init__("MISSING" if normal is MISSING else render(cast("Value", normal)), lambda _: normal)
        self.value = normal


def field(path: str, /) -> Field:
    """A field of the document, by name or dotted path; a missing step gives MISSING. Raises QueryBuildError for what is no path."""
    return Field(path)


def as_expression(operand: object) -> Expression:
    """The operand itself, or a literal of it."""
    return operand if isinstance(operand, Expression) else Literal(operand)


_HOLDS: dict[str, Callable[[int], bool]] = {
    "==": lambda sign: sign == 0,
    "!=": lambda sign: sign != 0,
    "<": lambda sign: sign < 0,
    "<=": lambda sign: sign <= 0,
    ">": lambda sign: sign > 0,
    ">=": lambda sign: sign >= 0,
}


def _compared(left: Expression, operator: str, right: object) -> Comparison:
    other = as_expression(right)
    first, second, holds = left.evaluate, other.evaluate, _HOLDS[operator]
    return Comparison(left, operator, other, lambda document: holds(compare(first(document), second(document))))


def _all_or_any(operator: str, left: object, right: object) -> Expression:
    one, other = as_expression(left), as_expression(right)
    first, second = one.evaluate, other.evaluate
    if operator == "&":
        return Expression(
            f"({one} & {other})", lambda document: _boolean(first(document), "&") and _boolean(second(document), "&")
        )
    return Expression(
        f"({one} | {other})", lambda document: _boolean(first(document), "|") or _boolean(second(document), "|")
    )


def _boolean(value: object, operator: str) -> bool:
    if value is True or value is False:
        return value
    raise DatabaseUsageError(f"{operator} in a filter takes booleans, but found {_shown(value)}")


def _calculated(left: object, operator: str, right: object) -> Expression:
    one, other = as_expression(left), as_expression(right)
    first, second = one.evaluate, other.evaluate
    return Expression(
        f"({one} {operator} {other})", lambda document: _calculate(first(document), operator, second(document))
    )


def _calculate(left: object, operator: str, right: object) -> Value:
    if isinstance(left, Int64) and isinstance(right, Int64):
        return _calculate_int64(int(left), operator, int(right))
    if type(left) is float and type(right) is float:
        return _calculate_float(left, operator, right)
    word = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "take the remainder of"}[operator]
    raise DatabaseUsageError(f"Cannot {word} {_shown(left)} and {_shown(right)}")


def _calculate_int64(left: int, operator: str, right: int) -> Int64:
    if operator in "/%" and right == 0:
        raise DatabaseUsageError(f"Cannot divide {left} by zero in a filter")
    quotient = 0 if right == 0 else (abs(left) // abs(right)) * (1 if (left < 0) == (right < 0) else -1)
    result = {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "/": quotient,
        "%": left - right * quotient,
    }[operator]
    if not -(2**63) <= result < 2**63:
        raise DatabaseUsageError(f"The int64 calculation {left} {operator} {right} in a filter overflows")
    return Int64(result)


def _calculate_float(left: float, operator: str, right: float) -> float:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right if right else _divided_by_zero(left, right)
        case _:
            return math.fmod(left, right) if right and math.isfinite(left) else math.nan


def _divided_by_zero(left: float, right: float) -> float:
    if left == 0 or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _negated(value: object) -> Value:
    if isinstance(value, Int64):
        return _calculate_int64(0, "-", int(value))
    if type(value) is float:
        return -value
    raise DatabaseUsageError(f"Cannot negate {_shown(value)} in a filter")


def _shown(value: object) -> str:
    if value is MISSING:
        return "a missing field"
    kinds: dict[type, str] = {
        type(None): "null",
        bool: "boolean",
        Int64: "int64",
        float: "float64",
        str: "string",
        bytes: "bytes",
        list: "array",
    }
    return f"{render(cast('Value', value))} (type {kinds.get(type(value), 'object')})"
