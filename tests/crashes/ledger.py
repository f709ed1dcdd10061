"""What a caller was told of each write, against which the data is held after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

End = Literal["done", "refused", "unknown"]


class Answer(NamedTuple):
    """How a call ended, as far as its caller was told: with a result, with the reason of a refusal, or not told at all."""

    end: End
    value: Any = None
    reason: str = ""


class Deployment(Protocol):
    """Something to call functions on; each thread has its own."""

    def call(
        self, path: str, args: Mapping[str, object], *, claims: Mapping[str, object] | None = None, query: bool = False
    ) -> Answer:
        """Call as the operator, or with `claims` as the person who has them."""
        ...

    def visit(self, path: str, args: Mapping[str, object], address: str) -> Answer:
        """Call a mutation as somebody unknown at this network address."""
        ...


class Register:
    """One place in the data, and what may stand in it after what its only writer was told."""

    def __init__(self, value: object) -> None:
        self._possible: set[object] = {value}
        self._anything = False

    def wrote(self, value: object, answer: Answer) -> None:
        """A write ended like this: it holds, or it does not, or either."""
        if answer.end == "done":
            self._possible, self._anything = {value}, False
        elif answer.end == "unknown":
            self._possible.add(value)

    def wrote_something(self, answer: Answer) -> None:
        """The same for a write whose value only its answer tells, if there was one."""
        self._anything |= answer.end == "unknown"

    def is_surely(self, value: object) -> bool:
        """Whether nothing but this can stand there."""
        return not self._anything and self._possible == {value}

    def found(self, value: object, what: str) -> None:
        """This stands there after a failure, and will from now on. Raises AssertionError where it can't."""
        assert self._anything or value in self._possible, f"{what}: {value!r}, not one of {self._possible}"
        self._possible, self._anything = {value}, False
