"""Numbers on their way in and out: `int` and `float` are Convex's number, `Int64` is its int64, a bool is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from camber import (
    ArgumentValidationError,
    Document,
    Int64,
    InvalidValueError,
    MutationCtx,
    QueryCtx,
    ReturnsValidationError,
    define_schema,
    define_table,
    query,
    v,
)
from camber.functions import application_of
from camber.testing import Backend
from tests.functions.conftest import Serve
from tests.functions.deployments import call, deployed

MOST = 2**53
SEVEN = {"$integer": "BwAAAAAAAAA="}


class Measure(Document):
    whole: int
    number: float
    big: Int64
    free: Any


MEASURES = define_table("measures", Measure)


def kind_of(value: object) -> str:
    return f"{type(value).__name__} {int(value) if isinstance(value, Int64) else value}"


def whole(ctx: QueryCtx, *, n: int) -> list[str]:
    return [kind_of(n)]


def number(ctx: QueryCtx, *, n: float) -> list[str]:
    return [kind_of(n)]


def big(ctx: QueryCtx, *, n: Int64) -> list[str]:
    return [kind_of(n)]


def free(ctx: QueryCtx, *, n: Any) -> list[str]:
    return [kind_of(n)]


def deep(ctx: QueryCtx, *, n: list[dict[str, int]]) -> list[str]:
    return [kind_of(one["n"]) for one in n]


def maybe(ctx: QueryCtx, *, n: int | str | None = None) -> list[str]:
    return [kind_of(n)]


FUNCTIONS = {"n:whole": whole, "n:number": number, "n:big": big, "n:free": free, "n:deep": deep, "n:maybe": maybe}


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with deployed(FUNCTIONS) as backend:
        yield backend


def sent(backend: Backend, name: str, n: Any) -> Any:
    """What the function was handed for this JSON."""
    outcome = call(backend, f"n:{name}", {"n": n})
    if outcome.exception is not None:
        raise outcome.exception
    return json.loads(outcome.value or b"")[0]


@pytest.mark.parametrize(
    ("name", "json_value", "handed_over"),
    [
        ("whole", 7, "int 7"),
        ("whole", 7.0, "int 7"),
        ("whole", -MOST, f"int {-MOST}"),
        ("whole", {"$float": "AAAAAAAAAIA="}, "int 0"),
        ("number", 7, "float 7.0"),
        ("number", 0.5, "float 0.5"),
        ("big", SEVEN, "Int64 7"),
        ("big", {"$integer": "AAAAAAAAAIA="}, f"Int64 {-(2**63)}"),
        ("free", 7, "float 7.0"),
        ("free", SEVEN, "Int64 7"),
        ("free", True, "bool True"),
        ("deep", [{"n": 7}], "int 7"),
        ("maybe", 7, "int 7"),
        ("maybe", "7", "str 7"),
        ("maybe", None, "NoneType None"),
    ],
)
def test_what_comes_in(backend: Backend, name: str, json_value: Any, handed_over: str) -> None:
    assert sent(backend, name, json_value) == handed_over


@pytest.mark.parametrize(
    ("name", "json_value"),
    [
        ("whole", 7.5),
        ("whole", float(MOST * 2)),
        ("whole", {"$float": "AAAAAAAA+H8="}),
        ("whole", SEVEN),
        ("whole", True),
        ("whole", "7"),
        ("number", SEVEN),
        ("number", True),
        ("big", 7),
        ("big", True),
        ("deep", [{"n": 7.5}]),
        ("maybe", 7.5),
    ],
)
def test_what_is_refused_on_its_way_in(backend: Backend, name: str, json_value: Any) -> None:
    with pytest.raises(ArgumentValidationError):
        sent(backend, name, json_value)


@pytest.fixture(scope="module")
def giving() -> Iterator[Backend]:
    with deployed({}) as backend:
        yield backend


def returning(backend: Backend, annotation: Any, value: object) -> bytes | None:
    def give(ctx: QueryCtx) -> Any:
        return value

    give.__annotations__["return"] = annotation
    backend.engine.reload_sync(application_of("numbers", define_schema(), {"n:give": query(give)}))
    outcome = call(backend, "n:give")
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.value


@pytest.mark.parametrize(
    ("annotation", "value", "json_value"),
    [
        (int, 7, 7),
        (int, 7.0, 7),
        (float, 7, 7),
        (float, 0.5, 0.5),
        (Int64, 7, SEVEN),
        (Int64, Int64(7), SEVEN),
        (Any, 7, 7),
        (Any, Int64(7), SEVEN),
        (Any, [7, Int64(7), True], [7, SEVEN, True]),
        (list[Int64], [7], [SEVEN]),
        (dict[str, int], {"a": 7}, {"a": 7}),
    ],
)
def test_what_goes_out(giving: Backend, annotation: Any, value: object, json_value: Any) -> None:
    assert json.loads(returning(giving, annotation, value) or b"") == json_value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(int, 7.5), (int, MOST + 1), (int, True), (float, True), (bool, 1), (Int64, 2**63), (Int64, 7.0), (int, Int64(7))],
)
def test_what_is_refused_on_its_way_out(giving: Backend, annotation: Any, value: object) -> None:
    with pytest.raises((ReturnsValidationError, InvalidValueError)):
        returning(giving, annotation, value)


def test_a_number_beyond_what_a_float_holds_exactly_is_refused(giving: Backend) -> None:
    with pytest.raises(InvalidValueError, match="2\\*\\*53|9007199254740992|Int64"):
        returning(giving, Any, MOST + 1)


def test_documents_come_back_as_their_shape_says(serve: Serve) -> None:
    def store(ctx: MutationCtx) -> list[str]:
        measure_id = ctx.db.insert(MEASURES, {"whole": 7, "number": 7, "big": 7, "free": 7})
        typed = ctx.db.get(MEASURES, measure_id)
        plain = ctx.db.get(measure_id)
        scanned = ctx.db.query(MEASURES).first()
        found: list[str] = []
        for document in (typed, plain, scanned):
            assert document is not None
            found.append(" ".join(type(document[name]).__name__ for name in ("whole", "number", "big", "free")))
        return found

    assert serve({"n:store": store}, MEASURES).run("n:store") == ["int float Int64 float"] * 3


def test_arithmetic_on_int64_gives_int_which_goes_out_as_a_number(serve: Serve) -> None:
    def add(ctx: QueryCtx, *, n: Int64):
        return [n + 1, Int64(n + 1)]

    outcome = call(serve({"n:add": add}), "n:add", {"n": SEVEN})
    assert outcome.value == b'[8.0,{"$integer":"CAAAAAAAAAA="}]'


def test_numbers_of_validators(serve: Serve) -> None:
    @query(args={"n": v.number(), "i": v.int64()}, returns=v.array(v.int64()))
    def get(ctx: QueryCtx, *, n: Any, i: Any) -> Any:
        return [int(n), i]

    assert call(serve({"n:get": get}), "n:get", {"n": 7, "i": SEVEN}).value == (
        b'[{"$integer":"BwAAAAAAAAA="},{"$integer":"BwAAAAAAAAA="}]'
    )
