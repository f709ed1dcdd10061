"""The kinds of values: Python's own types, plus Int64 and the two marks for "not there" and "take it away"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, final

from camber.errors import InvalidValueError

type_of: Callable[[object], type[object]] = type
"""`type` for values of type Any, of which type checkers know nothing."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

WHOLE_LIMIT: Final = 2**53
"""Up to here, either side of zero, every whole number is a float64; a plain int beyond it is refused."""


@final
class Int64(int):
    """An int64, Convex's `bigint`. A plain int is Convex's `number` (a float64) instead.

    Arithmetic gives plain ints: wrap the result again. Raises InvalidValueError outside -2^63 … 2^63 - 1.
    """

    __slots__ = ()

    def __new__(cls, value: int, /) -> Int64:
        _check_int(value)
        if not INT64_MIN <= value <= INT64_MAX:
            raise InvalidValueError(f"{shortened(value)} does not fit into a 64-bit signed integer")
        return int.__new__(cls, value)

    def __repr__(self) -> str:
        return f"Int64({int(self)})"

    def __getnewargs__(self) -> tuple[int]:
        return (int(self),)


def _check_int(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValueError(f"Int64 takes an int, not {type(value).__name__}")


@final
class Missing:
    """The class of MISSING: a field that is not there, in ranges and filters (protocol 1.5)."""

    __slots__ = ()
    _only: Missing | None = None

    def __new__(cls) -> Missing:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        raise TypeError("MISSING is neither true nor false: compare with `is MISSING`")

    def __reduce__(self) -> str:
        return "MISSING"


@final
class Unset:
    """The class of UNSET: in a patch, the field is to be removed."""

    __slots__ = ()
    _only: Unset | None = None

    def __new__(cls) -> Unset:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        raise TypeError("UNSET is neither true nor false: compare with `is UNSET`")

    def __reduce__(self) -> str:
        return "UNSET"


MISSING: Final = Missing()
UNSET: Final = Unset()

Value: TypeAlias = "bool | Int64 | float | str | bytes | list[Value] | dict[str, Value] | None"
"""A Convex value in its normal form: exactly these types, no subclasses of them, and no plain int."""

RawDocument: TypeAlias = dict[str, Any]
"""A document of a table without a class: what handlers get for it."""


def shortened(value: int) -> str:
    """A whole number as text, also one with thousands of digits."""
    if -(10**40) < value < 10**40:
        return int.__repr__(value)
    return f"a whole number of {value.bit_length()} bits"
