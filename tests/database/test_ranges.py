"""Index ranges: which comparisons a range can take, in whose words it refuses others, and which documents it then holds."""

from __future__ import annotations

from operator import eq, ge, gt, le, lt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camber import MISSING, QueryBuildError, QueryCtx, define_table, field, v
from camber.database.catalog import TableInfo
from camber.database.expressions import Comparison
from camber.database.ranges import Bound, equal_range, range_of
from camber.values import compare, decode_id, encode_id, field_of, key_of
from tests.database.playground import Playground, playground
from tests.values.strategies import any_floats, any_texts, any_values

THINGS = define_table("things", v.any()).index("by_a_b", ["a", "b"]).index("by_path", ["a.b"])
HELP = "For more information see https://docs.convex.dev/using/indexes."
FIELDS = 'things.by_a_b with fields ["a", "b", "_creationTime"]'
ON_TWO_FIELDS = (
    "Upper and lower bounds in `range` can only be applied to a single index field. This query against index things.by_a_b "
    'attempted to set a range bound on both "a" and "b". Consider using `filter` instead. '
    "See https://docs.convex.dev/using/indexes for more info."
)
OUT_OF_ORDER = (
    "Tried to query index things.by_a_b but the query didn't use the index fields in order.\n"
    f'Index fields: ["a", "b", "_creationTime"]\nQuery fields: ["b"]\nFirst incorrect field: b\n{HELP}'
)
OPERATORS = {"==": eq, ">": gt, ">=": ge, "<": lt, "<=": le}


@pytest.fixture(scope="module")
def things(engine: str) -> Any:
    with playground(THINGS) as opened:
        yield opened


def refusal(things: Playground, index: str, *comparisons: Comparison, **equal: object) -> QueryBuildError:
    def ask(ctx: QueryCtx) -> None:
        with pytest.raises(QueryBuildError) as refused:
            ctx.db.query("things").with_index(index, *comparisons, **equal)
        raise refused.value

    with pytest.raises(QueryBuildError) as refused:
        things.read(ask)
    return refused.value


@pytest.mark.parametrize(
    ("comparisons", "rule", "message"),
    [
        (
            [field("a") == 1, field("a") == 2],
            "AlreadyDefinedBound",
            'Already defined equality bound in index range. Can\'t add "a" == 2.0.',
        ),
        (
            [field("a") > 1, field("a") >= 2],
            "AlreadyDefinedBound",
            'Already defined lower bound in index range. Can\'t add "a" >= 2.0.',
        ),
        (
            [field("a") < 1, field("a") <= MISSING],
            "AlreadyDefinedBound",
            'Already defined upper bound in index range. Can\'t add "a" <= undefined.',
        ),
        (
            [field("a") < 1, field("a") == "x"],
            "AlreadyDefinedBound",
            'Already defined inequality bound in index range. Can\'t add "a" == "x".',
        ),
        (
            [field("a") == 1, field("a") > 0],
            "AlreadyDefinedBound",
            'Already defined equality bound in index range. Can\'t add "a" > 0.0.',
        ),
        (
            [field("a") > 1, field("b") < 2],
            "BoundsOnMultipleFields",
            ON_TWO_FIELDS,
        ),
        (
            [field("c") == 1],
            "FieldNotInIndex",
            f'The index range included a comparison with "c", but {FIELDS} doesn\'t index this field. {HELP}',
        ),
        (
            [field("b") == 1],
            "InvalidIndexRange",
            OUT_OF_ORDER,
        ),
    ],
)
def test_a_range_that_breaks_a_rule_is_refused_in_convex_s_words(
    things: Playground, comparisons: list[Comparison], rule: str, message: str
) -> None:
    refused = refusal(things, "by_a_b", *comparisons)

    assert (refused.rule, str(refused)) == (rule, message)


def test_a_bound_behind_a_gap_in_the_fields_is_refused(things: Playground) -> None:
    assert refusal(things, "by_a_b", field("b") > 1).rule == "InvalidIndexRange"
    assert refusal(things, "by_a_b", field("_creationTime") > 1, a=1).rule == "InvalidIndexRange"
    assert refusal(things, "by_a_b", field("_id") > "x", a=1, b=1).rule == "InvalidIndexRange"


def test_the_same_rules_hold_for_keywords(things: Playground) -> None:
    assert refusal(things, "by_a_b", b=1).rule == "InvalidIndexRange"
    assert refusal(things, "by_a_b", c=1).rule == "FieldNotInIndex"
    assert refusal(things, "by_a_b", field("a") == 2, a=1).rule == "AlreadyDefinedBound"


def test_an_index_that_is_not_there_is_named(things: Playground) -> None:
    refused = refusal(things, "by_c", c=1)

    assert (refused.rule, str(refused)) == ("IndexNotFoundError", "Index things.by_c not found.")


@pytest.mark.parametrize(
    "comparison", [field("a") != 1, field("a") == field("b"), (field("a") + 1) == 2, field("a") & True]
)
def test_what_no_index_range_can_say_is_left_to_filter(things: Playground, comparison: Any) -> None:
    with pytest.raises(QueryBuildError, match=r"index range takes comparisons|with_index\(\) takes comparisons"):
        things.read(lambda ctx: ctx.db.query("things").with_index("by_a_b", comparison))


def test_a_comparison_may_have_the_value_first(things: Playground) -> None:
    with playground(THINGS) as fresh:
        fresh.insert("things", *({"a": a} for a in range(5)))
        low, high = 1, 3
        found = fresh.read(
            lambda ctx: ctx.db.query("things").with_index("by_a_b", low < field("a"), high >= field("a")).collect()
        )

    assert [document["a"] for document in found] == [2, 3]


def test_equalities_are_a_set_and_not_a_sequence(things: Playground) -> None:
    with playground(THINGS) as fresh:
        fresh.insert("things", {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1})
        found = fresh.read(lambda ctx: ctx.db.query("things").with_index("by_a_b", b=2, a=1).collect())

    assert [(document["a"], document["b"]) for document in found] == [(1, 2)]


def test_text_finds_itself_and_not_what_goes_on_after_a_nul() -> None:
    with playground(THINGS) as fresh:
        fresh.insert("things", *({"a": a} for a in ("a", "a\0", "a\0b", b"a", b"a\0", ["a"], ["a", "\0"])))

        def found(comparison: Comparison) -> list[Any]:
            return fresh.read(
                lambda ctx: [one["a"] for one in ctx.db.query("things").with_index("by_a_b", comparison).collect()]
            )

        assert found(field("a") == "a") == ["a"]
        assert found(field("a") == b"a") == [b"a"]
        assert found(field("a") == ["a"]) == [["a"]]
        assert found(field("a") <= "a") == ["a"]
        assert found(field("a") > "a") == ["a\0", "a\0b", b"a", b"a\0", ["a"], ["a", "\0"]]


def test_documents_of_one_creation_time_can_be_told_apart_by_id(things: Playground) -> None:
    with playground(THINGS) as fresh:
        ids = fresh.insert("things", *({"a": 1, "b": 1} for _ in range(3)))
        second = fresh.all("things")[1]

        def found(*comparisons: Comparison) -> list[str]:
            at = field("_creationTime") == second["_creationTime"]
            query = lambda ctx: ctx.db.query("things").with_index("by_a_b", at, *comparisons, a=1, b=1)  # noqa: E731
            return [one["_id"] for one in fresh.read(lambda ctx: query(ctx).collect())]

        assert (
            found(field("_id") == ids[1]) == found(field("_id") >= ids[1]) == found(field("_id") <= ids[1]) == [ids[1]]
        )
        assert found(field("_id") > ids[1]) == found(field("_id") < ids[1]) == found(field("_id") == ids[0]) == []
        assert found(field("_id") > "") == found(field("_id") > MISSING) == found(field("_id") < []) == [ids[1]]
        assert found(field("_id") > "z") == found(field("_id") == 5) == []


# A range against the comparisons it is made of

DOCUMENTS = st.fixed_dictionaries({}, optional={"a": any_values(), "b": any_values()})
TABLE = TableInfo(10_001, THINGS, {"by_a_b": 1, "by_path": 2})


@st.composite
def some_bounds(draw: st.DrawFn) -> list[Bound]:
    """Bounds that a range on by_a_b can take."""
    values = any_values() | st.just(MISSING)
    fields = draw(st.integers(0, 2))
    bounds = [Bound(name, "==", draw(values)) for name in ("a", "b")[:fields]]
    name = ("a", "b", "_creationTime")[fields]
    values = values if name != "_creationTime" else any_floats()
    if draw(st.booleans()):
        bounds.append(Bound(name, draw(st.sampled_from([">", ">="])), draw(values)))
    if draw(st.booleans()):
        bounds.append(Bound(name, draw(st.sampled_from(["<", "<="])), draw(values)))
    return bounds


def holds(bound: Bound, document: dict[str, Any]) -> bool:
    sign = compare(field_of(document, bound.field), bound.value)  # pyright: ignore[reportArgumentType]
    return {"==": sign == 0, ">": sign > 0, ">=": sign >= 0, "<": sign < 0, "<=": sign <= 0}[bound.operator]


@given(some_bounds(), DOCUMENTS, any_floats(), st.binary(min_size=16, max_size=16), st.data())
def test_a_range_holds_exactly_the_documents_for_which_its_comparisons_hold(
    bounds: list[Bound], document: dict[str, Any], creation_time: float, internal: bytes, data: st.DataObject
) -> None:
    # Mostly the document is far from the range: often take the values of the bounds themselves.
    for bound in bounds:
        if bound.field != "_creationTime" and data.draw(st.booleans()):
            document.pop(bound.field, None)
            if bound.value is not MISSING:
                document[bound.field] = bound.value
        elif bound.field == "_creationTime" and data.draw(st.booleans()):
            creation_time = bound.value  # pyright: ignore[reportAssignmentType]
    lower, upper, _ = range_of("things", 10_001, "by_a_b", TABLE.indexes["by_a_b"].fields, bounds)
    key = TABLE.keys_of(document, creation_time, internal, 1_000_000)[0][1]

    inside = key >= lower and (upper is None or key < upper)

    assert inside == all(holds(bound, {**document, "_creationTime": creation_time}) for bound in bounds)


@given(st.sampled_from(sorted(OPERATORS)), any_texts() | any_values(), st.binary(min_size=16, max_size=16))
def test_a_bound_on_the_id_holds_exactly_the_ids_it_compares_with(operator: str, value: Any, internal: bytes) -> None:
    id = encode_id(10_001, internal)
    key = TABLE.keys_of({}, 5.0, decode_id(id)[1], 2000)[0][0]
    # Bounds close to the id are the hard ones.
    for bound in (value, id, id[:-1], id + "0", id[:-1] + "z"):
        bounds = [Bound("_creationTime", "==", 5.0), Bound("_id", operator, bound)]
        lower, upper, _ = range_of("things", 10_001, "by_creation_time", ("_creationTime",), bounds)

        assert (key >= lower and (upper is None or key < upper)) == holds(bounds[1], {"_id": id})


@given(st.lists(any_values() | st.just(MISSING), min_size=1, max_size=2))
def test_equalities_on_the_first_fields_are_a_prefix(values: list[Any]) -> None:
    bounds = [Bound(name, "==", value) for name, value in zip("ab", values, strict=False)]

    found = range_of("things", 10_001, "by_a_b", TABLE.indexes["by_a_b"].fields, bounds)

    assert found == equal_range(values)
    assert found.lower == found.prefix == b"".join(map(key_of, values))
