"""Index ranges: from comparisons on index fields to two bounds on full keys (protocol 3.4).

A range is `lower <= key < upper`; `upper` None means to the end. Keys are self-delimiting parts, so every prefix that ends
between two fields stands for exactly the keys that begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from camber.errors import QueryBuildError
from camber.values import AFTER_KEY, MISSING, Missing, Value, compare, encode_id, key_of, normalize, render

ID = "_id"
_ID_BYTES = 16
INDEXES_HELP = "For more information see https://docs.convex.dev/using/indexes."


class Bound(NamedTuple):
    """One comparison of an index field with a value; `operator` is one of == > >= < <=."""

    field: str
    operator: str
    value: object


class KeyRange(NamedTuple):
    """Keys of one index from `lower` on and below `upper` (None: no end); all of them begin with `prefix`.

    The prefix is what the equalities of a query say: it ends where a field ends, or is empty.
    """

    lower: bytes
    upper: bytes | None
    prefix: bytes = b""


_NEXT_BYTE = [bytes((byte + 1,)) for byte in range(255)]

WHOLE_INDEX = KeyRange(b"", None)

_ENDED_BY_NUL = frozenset({str, bytes, list, dict})


def after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above all keys that begin with this prefix; None if there is none."""
    if prefix and prefix[-1] != 0xFF:
        return prefix[:-1] + _NEXT_BYTE[prefix[-1]]
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + _NEXT_BYTE[shortened[-1]] if shortened else None


def after_parts(parts: bytes, last: Value | Missing) -> bytes:
    """The end of all keys that begin with these parts, of which the last is that of `last`."""
    if type(last) in _ENDED_BY_NUL:
        # Longer text with a NUL of its own goes on with FF and belongs behind; the next part does not begin with 80 or more.
        return parts + AFTER_KEY
    # Behind the creation time comes the id, which may begin with any byte. Every part begins with a tag below FF.
    return after_prefix(parts) or parts


def bound_value(value: object) -> Value | Missing:
    """The value of a bound in normal form; MISSING stays what it is."""
    if type(value) is str and value.isascii():
        return value
    return MISSING if value is MISSING else normalize(value)


def range_of(table: str, table_number: int, index: str, fields: Sequence[str], bounds: Sequence[Bound]) -> KeyRange:
    """The keys for which all bounds hold.

    `fields` are the index's own, with `_creationTime` behind them unless it is `by_id`; the id may be bounded behind that. Raises
    QueryBuildError with the rule that the bounds break: equalities on a prefix of the fields, then at most one lower and one upper
    bound, both on the next field.
    """
    ordered = (*fields, ID) if fields[-1] != ID else fields
    equal, lower, upper = _sorted_out(table, index, fields, ordered, bounds)
    _check_order(table, index, ordered, list(equal), lower or upper)
    edge: _Edge = _value_edge
    if ordered is not fields and ID in (*equal, *(bound.field for bound in (lower, upper) if bound)):
        edge = partial(_id_edge, table_number)
        if ID in equal:
            lower, upper = Bound(ID, ">=", equal[ID]), Bound(ID, "<=", equal.pop(ID))
    values = [bound_value(equal[field]) for field in ordered if field in equal]
    prefix = b"".join(map(key_of, values))
    start = edge(prefix, bound_value(lower.value), after=lower.operator == ">") if lower else prefix
    if upper:
        return KeyRange(start, edge(prefix, bound_value(upper.value), after=upper.operator == "<="), prefix)
    return KeyRange(start, after_parts(prefix, values[-1]) if values else None, prefix)


def equal_range(values: Sequence[object]) -> KeyRange:
    """The range for equalities on the first fields of an index, given in the index's order."""
    prefix = b""
    last: Value | Missing = None
    for value in values:
        last = bound_value(value)
        prefix += key_of(last)
    return KeyRange(prefix, after_parts(prefix, last), prefix) if prefix else WHOLE_INDEX


def _sorted_out(
    table: str, index: str, fields: Sequence[str], ordered: Sequence[str], bounds: Sequence[Bound]
) -> tuple[dict[str, object], Bound | None, Bound | None]:
    """The equalities, the lower and the upper bound, each of which can be there once."""
    equal: dict[str, object] = {}
    lower: Bound | None = None
    upper: Bound | None = None
    for bound in bounds:
        if bound.field not in ordered:
            raise _not_indexed(table, index, fields, bound.field)
        if bound.operator == "==":
            if bound.field in equal or any(other and other.field == bound.field for other in (lower, upper)):
                raise _already_defined("equality" if bound.field in equal else "inequality", bound)
            equal[bound.field] = bound.value
        elif bound.field in equal:
            raise _already_defined("equality", bound)
        elif bound.operator in (">", ">="):
            if lower:
                raise _already_defined("lower", bound)
            lower = bound
        else:
            if upper:
                raise _already_defined("upper", bound)
            upper = bound
    if lower and upper and lower.field != upper.field:
        raise QueryBuildError(
            "Upper and lower bounds in `range` can only be applied to a single index field. This query against index "
            f'{table}.{index} attempted to set a range bound on both "{lower.field}" and "{upper.field}". Consider using `filter` instead. '
            "See https://docs.convex.dev/using/indexes for more info.",
            rule="BoundsOnMultipleFields",
        )
    return equal, lower, upper


class _Edge(Protocol):
    def __call__(self, prefix: bytes, value: Value | Missing, *, after: bool) -> bytes:
        """Behind the prefix, where the keys with this value begin, or where they have ended."""
        ...


def _value_edge(prefix: bytes, value: Value | Missing, *, after: bool) -> bytes:
    at = prefix + key_of(value)
    return after_parts(at, value) if after else at


def _id_edge(table_number: int, prefix: bytes, value: Value | Missing, *, after: bool) -> bytes:
    """The same for the id behind the creation time. It stands there as bare bytes, in the order of the ids' texts: bisect."""
    low, high = 0, 1 << 8 * _ID_BYTES
    while low < high:
        middle = (low + high) // 2
        sign = compare(encode_id(table_number, middle.to_bytes(_ID_BYTES)), value)
        if sign < 0 or (after and sign == 0):
            low = middle + 1
        else:
            high = middle
    return prefix + low.to_bytes(_ID_BYTES) if low >> 8 * _ID_BYTES == 0 else after_prefix(prefix) or prefix


def _check_order(table: str, index: str, fields: Sequence[str], equal: list[str], ranged: Bound | None) -> None:
    used = [*sorted(equal, key=list(fields).index), *([ranged.field] if ranged else [])]
    for wanted, found in zip(fields, used, strict=False):
        if wanted != found:
            raise QueryBuildError(
                f"Tried to query index {table}.{index} but the query didn't use the index fields in order.\n"
                f"Index fields: {_listed(fields[:-1] or fields)}\nQuery fields: {_listed(used)}\n"
                f"First incorrect field: {found}\n{INDEXES_HELP}",
                rule="InvalidIndexRange",
            )


def _already_defined(kind: str, bound: Bound) -> QueryBuildError:
    shown = "undefined" if bound.value is MISSING else render(normalize(bound.value))
    return QueryBuildError(
        f'Already defined {kind} bound in index range. Can\'t add "{bound.field}" {bound.operator} {shown}.',
        rule="AlreadyDefinedBound",
    )


def _not_indexed(table: str, index: str, fields: Sequence[str], field: str) -> QueryBuildError:
    return QueryBuildError(
        f'The index range included a comparison with "{field}", but {table}.{index} with fields {_listed(fields)} '
        f"doesn't index this field. {INDEXES_HELP}",
        rule="FieldNotInIndex",
    )


def _listed(fields: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{field}"' for field in fields) + "]"
