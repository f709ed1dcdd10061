"""Any sequence of mutations, queries, pages and restarts against a plain model: a dict of documents and `compare()`.

`CAMBER_TORTURE_ROUNDS` says how many sequences are tried (four a round, on PostgreSQL two), `CAMBER_TORTURE_SEED` where the choices begin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from camber import (
    MISSING,
    UNSET,
    Int64,
    MutationCtx,
    NonexistentDocumentError,
    NotUniqueError,
    QueryCtx,
    UniqueIndexError,
    define_schema,
    define_table,
    field,
    v,
)
from camber.settings import Settings
from camber.values import compare, field_of
from tests.database.playground import Playground, fields_of
from tests.vectors.reading import same

ROUNDS = int(os.environ.get("CAMBER_TORTURE_ROUNDS", "6"))
STEPS = 60 if os.environ.get("CAMBER_TORTURE") else 25

INDEXES = {"by_a": ("a",), "by_a_b": ("a", "b"), "by_deep": ("o.x",), "by_u": ("u",)}
ROWS = define_table("rows", v.any())
for name, fields in INDEXES.items():
    ROWS = ROWS.index(name, fields, unique=name == "by_u")

Document = dict[str, Any]
Documents = dict[str, Document]
"""The model: documents by id, in the order of their creation."""


# What is tried. There are few values, so that they meet often.

VALUES: list[Any] = [None, Int64(1), -0.0, 0.0, 1.0, float("nan"), False, "", "a", "a\0", "b", b"a", [1.0], {"x": 1.0}]
values = st.sampled_from(VALUES)
bounds = values | st.just(MISSING)
row_fields = st.fixed_dictionaries(
    {},
    optional={"a": values, "b": values, "u": values, "o": st.sampled_from([{"x": 1.0}, {"x": "a"}, {"y": 1.0}, "x"])},
)
changes = st.dictionaries(st.sampled_from(["a", "b", "u", "o"]), values | st.just(UNSET), max_size=3)
places = st.integers(0, 30)


@dataclass(frozen=True)
class Spec:
    """A query: index, equalities on its first fields, bounds on the next one, direction, filter, last word."""

    index: str | None
    equal: tuple[Any, ...] = ()
    lower: tuple[str, Any] | None = None
    upper: tuple[str, Any] | None = None
    descending: bool = False
    keep: tuple[str, str, Any] | None = None
    last_word: tuple[str, int] = ("collect", 0)

    @property
    def fields(self) -> tuple[str, ...]:
        if self.index == "by_id":
            return ("_id",)
        return (*INDEXES.get(self.index or "", ()), "_creationTime")


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    index = draw(st.sampled_from([None, "by_id", *INDEXES]))
    own = INDEXES.get(index or "", ())
    equal = tuple(draw(st.lists(bounds, max_size=len(own))))
    lower = upper = None
    if len(equal) < len(own):
        lower = draw(st.none() | st.tuples(st.sampled_from([">", ">="]), bounds))
        upper = draw(st.none() | st.tuples(st.sampled_from(["<", "<="]), bounds))
    operators = st.sampled_from(["==", "!=", ">", ">=", "<", "<="])
    keep = draw(st.none() | st.tuples(operators, st.sampled_from(["a", "b", "o.x"]), bounds))
    last_words = ["collect", "first", "unique", "take", "iterate", *(["count"] if keep is None else [])]
    last_word = (draw(st.sampled_from(last_words)), draw(st.integers(0, 4)))
    return Spec(index, equal, lower, upper, draw(st.booleans()), keep, last_word)


def writes(*others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.just("insert"), row_fields),
        st.tuples(st.just("insert"), row_fields),
        st.tuples(st.just("patch"), places, changes),
        st.tuples(st.just("replace"), places, row_fields),
        st.tuples(st.just("delete"), places),
        st.tuples(st.just("look"), specs()),
        *others,
    )


def programs(most: int = 6) -> st.SearchStrategy[Any]:
    """Steps of one mutation and whether it fails in the end; a step may be a sub-transaction with steps of its own."""
    steps = st.recursive(
        writes(),
        lambda inner: writes(st.tuples(st.just("sub"), st.lists(inner, max_size=4), st.booleans())),
        max_leaves=8,
    )
    return st.tuples(st.lists(steps, max_size=most), st.sampled_from([False, False, False, True]))


# The model


def holds(operator: str, left: Any, right: Any) -> bool:
    sign = compare(left, right)
    return {
        "==": sign == 0,
        "!=": sign != 0,
        ">": sign > 0,
        ">=": sign >= 0,
        "<": sign < 0,
        "<=": sign <= 0,
    }[operator]


_ordered = cmp_to_key(compare)


def key_of(spec: Spec, document: Document) -> list[Any]:
    return [_ordered(field_of(document, path)) for path in (*spec.fields, "_id")]


def in_range(spec: Spec, documents: Documents) -> list[Document]:
    """The documents of the range, in the order of the query, before its filter."""

    def inside(document: Document) -> bool:
        own = [field_of(document, path) for path in spec.fields]
        if any(compare(value, wanted) != 0 for value, wanted in zip(own, spec.equal, strict=False)):
            return False
        following = own[len(spec.equal)] if len(spec.equal) < len(own) else MISSING
        return all(holds(bound[0], following, bound[1]) for bound in (spec.lower, spec.upper) if bound)

    found = [document for document in documents.values() if inside(document)]
    return sorted(found, key=lambda document: key_of(spec, document), reverse=spec.descending)


def kept(spec: Spec, found: list[Document]) -> list[Document]:
    if spec.keep is None:
        return found
    operator, path, value = spec.keep
    return [document for document in found if holds(operator, field_of(document, path), value)]


def expected_answer(spec: Spec, documents: Documents) -> Any:
    found = kept(spec, in_range(spec, documents))
    match spec.last_word:
        case "count", _:
            return float(len(found))
        case "first", _:
            return found[:1]
        case "unique", _:
            return "several" if len(found) > 1 else found
        case "take", number:
            return found[:number]
        case _:
            return found


# The engine


_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


def build(ctx: QueryCtx, spec: Spec) -> Any:
    query: Any = ctx.db.query(ROWS)
    if spec.index is not None:
        comparisons = [field(path) == value for path, value in zip(spec.fields, spec.equal, strict=False)]
        given = [bound for bound in (spec.lower, spec.upper) if bound]
        comparisons += [_OPERATORS[operator](field(spec.fields[len(spec.equal)]), value) for operator, value in given]
        query = query.with_index(spec.index, *comparisons)
    if spec.descending:
        query = query.order("desc")
    if spec.keep:
        operator, path, value = spec.keep
        query = query.filter(_OPERATORS[operator](field(path), value))
    return query


def answer(ctx: QueryCtx, spec: Spec) -> Any:
    query = build(ctx, spec)
    match spec.last_word:
        case "count", _:
            return float(query.count())
        case "first", _:
            found = query.first()
        case "unique", _:
            try:
                found = query.unique()
            except NotUniqueError:
                return "several"
        case "take", number:
            return query.take(number)
        case "iterate", _:
            return list(query)
        case _:
            return query.collect()
    return [] if found is None else [found]


class World(Playground):
    """A playground with a query that is asked by the name of its spec, so that its results are kept."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        super().__init__(define_schema(ROWS), settings=Settings(dev=True, mutation_seconds=60, query_seconds=60))

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        def ask(ctx: QueryCtx, *, spec: str) -> Any:
            return answer(ctx, self.specs[spec])

        return {**super().functions(), "rows:ask": ask}

    def ask(self, spec: Spec) -> Any:
        self.specs[repr(spec)] = spec
        return self.backend.run("rows:ask", {"spec": repr(spec)})


class Failed(Exception):
    """What a program raises that is to fail."""


class Play:
    """One run of one program: on the engine and on a copy of the model."""

    def __init__(self, world: World, documents: Documents, gone: list[str]) -> None:
        self._world, self._gone = world, gone
        self.documents = dict(documents)

    def run(self, ctx: MutationCtx, steps: list[Any], *, fails: bool) -> None:
        for step in steps:
            self._step(ctx, *step)
        if fails:
            raise Failed

    def _step(self, ctx: MutationCtx, kind: str, *given: Any) -> None:
        match kind:
            case "insert":
                self._insert(ctx, given[0])
            case "look":
                assert same(answer(ctx, given[0]), expected_answer(given[0], self.documents))
            case "sub":
                self._sub_transaction(ctx, *given)
            case _:
                candidates = [*self.documents, *self._gone[-1:]]
                if candidates:
                    self._change(ctx, kind, candidates[given[0] % len(candidates)], *given[1:])

    def _insert(self, ctx: MutationCtx, fields: Document) -> None:
        if self._is_taken(fields, None):
            with pytest.raises(UniqueIndexError):
                ctx.db.insert(ROWS, fields)
            return
        id = ctx.db.insert(ROWS, fields)
        found = ctx.db.get(id)
        assert found is not None
        assert same(fields_of(found), fields)
        self.documents[id] = found

    def _change(self, ctx: MutationCtx, kind: str, id: str, given: Document | None = None) -> None:
        present = self.documents.get(id)
        if kind == "delete":
            call = lambda: ctx.db.delete(id)  # noqa: E731
            after: Document = {}
        elif kind == "patch":
            call = lambda: ctx.db.patch(id, given or {})  # noqa: E731
            merged = {**(present or {}), **(given or {})}
            after = {name: value for name, value in merged.items() if value is not UNSET}
        else:
            call = lambda: ctx.db.replace(id, given or {})  # noqa: E731
            after = {**(given or {}), **{name: (present or {}).get(name) for name in ("_id", "_creationTime")}}
        if present is None:
            with pytest.raises(NonexistentDocumentError):
                call()
        elif kind == "delete":
            call()
            del self.documents[id]
            self._gone.append(id)
        elif self._is_taken(after, id):
            with pytest.raises(UniqueIndexError):
                call()
        else:
            call()
            self.documents[id] = after
        assert same(ctx.db.get(id), self.documents.get(id))

    def _sub_transaction(self, ctx: MutationCtx, steps: list[Any], fails: bool) -> None:
        inner = Play(self._world, self.documents, self._gone)
        try:
            self._world.write_inside(ctx, lambda below: inner.run(below, steps, fails=fails))
        except Failed:
            assert same(answer(ctx, Spec(None)), list(self.documents.values()))
            return
        self.documents = inner.documents

    def _is_taken(self, fields: Document, own: str | None) -> bool:
        return "u" in fields and any(
            "u" in other and compare(other["u"], fields["u"]) == 0 for id, other in self.documents.items() if id != own
        )


@dataclass
class Reading:
    """A query that is read page by page, while other things happen."""

    spec: Spec
    size: int
    cursor: str | None = None
    after: list[Any] | None = attribute(default=None, repr=False)
    is_done: bool = False


class Engine(RuleBasedStateMachine):
    """Each rule does something to the engine and to the model, and compares."""

    asked = Bundle("asked")
    readings = Bundle("readings")

    @initialize()
    def open(self) -> None:
        self.world = World()
        self.documents: Documents = {}
        self.gone: list[str] = []

    def teardown(self) -> None:
        self.world.close()

    @rule(program=programs())
    def mutate(self, program: Any) -> None:
        steps, fails = program
        plays: list[Play] = []

        def body(ctx: MutationCtx) -> None:
            plays.append(Play(self.world, self.documents, self.gone))
            plays[-1].run(ctx, steps, fails=fails)

        try:
            self.world.write(body)
        except Failed:
            return
        self.documents = plays[-1].documents

    @rule(several=st.lists(programs(3), min_size=2, max_size=4))
    def mutate_in_a_group(self, several: list[Any]) -> None:
        documents = self.documents

        def body_of(steps: list[Any], fails: bool) -> Callable[[MutationCtx], None]:
            def body(ctx: MutationCtx) -> None:
                nonlocal documents
                play = Play(self.world, documents, self.gone)
                play.run(ctx, steps, fails=fails)
                documents = play.documents

            return body

        outcomes = self.world.in_one_group(*(body_of(*program) for program in several))
        for outcome, (_, fails) in zip(outcomes, several, strict=True):
            assert isinstance(outcome, Failed) if fails else outcome is None, outcome
        self.documents = documents

    @rule(target=asked, spec=specs())
    def ask(self, spec: Spec) -> Spec:
        self._compare(spec)
        return spec

    @rule(spec=asked)
    def ask_again(self, spec: Spec) -> None:
        self._compare(spec)

    @rule(target=readings, spec=specs(), size=st.integers(1, 4))
    def begin_reading_pages(self, spec: Spec, size: int) -> Reading:
        return Reading(spec, size)

    @rule(target=readings, reading=consumes(readings))
    def read_on(self, reading: Reading) -> Any:
        page = self.world.read(
            lambda ctx: build(ctx, reading.spec).paginate({"numItems": reading.size, "cursor": reading.cursor})
        )
        expected = self._next_page(reading)
        assert same(page["page"], expected)
        assert page["isDone"] == reading.is_done
        reading.cursor = page["continueCursor"]
        return multiple() if reading.is_done else reading

    @rule(spec=specs(), size=st.integers(1, 5))
    def read_all_pages(self, spec: Spec, size: int) -> None:
        reading, found = Reading(spec, size), []
        while not reading.is_done:
            page = self.world.read(lambda ctx: build(ctx, spec).paginate({"numItems": size, "cursor": reading.cursor}))
            self._next_page(reading)
            reading.cursor = page["continueCursor"]
            assert page["isDone"] == reading.is_done
            found += page["page"]
        assert same(found, kept(spec, in_range(spec, self.documents)))

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @invariant()
    def everything_is_there(self) -> None:
        assert same(self.world.all("rows"), list(self.documents.values()))

    def _compare(self, spec: Spec) -> None:
        found, expected = self.world.ask(spec), expected_answer(spec, self.documents)
        note(f"{spec}: {found}")
        assert same(found, expected)

    def _next_page(self, reading: Reading) -> list[Document]:
        """What the next page holds; moves the reading on."""
        spec, after = reading.spec, reading.after
        rest = [
            document
            for document in in_range(spec, self.documents)
            if after is None or (key_of(spec, document) < after if spec.descending else key_of(spec, document) > after)
        ]
        passing = kept(spec, rest)
        if len(passing) < reading.size:
            reading.is_done = True
            return passing
        reading.after = key_of(spec, passing[reading.size - 1])
        return passing[: reading.size]


if start := os.environ.get("CAMBER_TORTURE_SEED"):
    Engine = seed(int(start))(Engine)


@pytest.mark.torture
def test_any_sequence_of_steps_does_what_the_model_does(engine: str) -> None:
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=4 * ROUNDS if engine == "sqlite" else 2 * ROUNDS,  # there each takes three times as long
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
