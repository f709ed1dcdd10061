"""Unique indexes: one document for each key, as long as no field of it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from camber import UNSET, MutationCtx, UniqueIndexError, define_table, v
from tests.database.playground import Playground, fields_of, playground

USERS = (
    define_table("users", v.any())
    .index("by_email", ["email"], unique=True)
    .index("by_org_name", ["org", "name"], unique=True)
)


@pytest.fixture
def world() -> Any:
    with playground(USERS) as opened:
        yield opened


def emails(world: Playground) -> list[Any]:
    return [one.get("email") for one in world.all("users")]


def test_a_second_document_with_the_same_key_is_refused(world: Playground) -> None:
    world.insert("users", {"email": "ada@example.com"})
    with pytest.raises(UniqueIndexError):
        world.insert("users", {"email": "bob@example.com"}, {"email": "ada@example.com"})

    assert emails(world) == ["ada@example.com"]


def test_the_error_names_table_and_index_and_only_the_log_names_the_other_document(
    world: Playground, caplog: pytest.LogCaptureFixture
) -> None:
    [id] = world.insert("users", {"email": "ada@example.com", "secret": "s3cret"})
    with caplog.at_level("INFO", "camber.database"), pytest.raises(UniqueIndexError) as refused:
        world.insert("users", {"email": "ada@example.com"})

    assert refused.value.data == {"code": "UniqueIndexViolation", "table": "users", "index": "by_email"}
    for hidden in (id, "s3cret", "ada@example.com"):
        assert hidden not in str(refused.value)
        assert hidden not in str(refused.value.data)
    assert f"users.by_email: document {id} has the key already" in caplog.text


def test_documents_without_the_field_are_not_compared(world: Playground) -> None:
    world.insert("users", {}, {}, {"org": "acme"}, {"org": "acme"}, {"name": "ada"}, {"name": "ada"})

    assert len(world.all("users")) == 6


def test_null_is_a_value_like_any_other(world: Playground) -> None:
    world.insert("users", {"email": None})
    with pytest.raises(UniqueIndexError):
        world.insert("users", {"email": None})


@pytest.mark.parametrize(
    "pair", [(0.0, -0.0), (1.0, "1"), ("a", "a\0"), ("a\0", "a\0b"), (b"a", "a"), ("a", ["a"]), (False, 0.0)], ids=str
)
def test_values_that_differ_at_all_are_two_keys(world: Playground, pair: tuple[Any, Any]) -> None:
    world.insert("users", {"email": pair[0]}, {"email": pair[1]})
    for value in pair:
        with pytest.raises(UniqueIndexError):
            world.insert("users", {"email": value})


def test_all_fields_together_are_the_key(world: Playground) -> None:
    world.insert("users", {"org": "acme", "name": "ada"}, {"org": "acme", "name": "bob"}, {"org": "b", "name": "ada"})
    with pytest.raises(UniqueIndexError) as refused:
        world.insert("users", {"org": "acme", "name": "bob"})

    assert refused.value.index == "by_org_name"


def test_patch_and_replace_are_checked_too(world: Playground) -> None:
    _, bob = world.insert("users", {"email": "ada@example.com"}, {"email": "bob@example.com"})
    with pytest.raises(UniqueIndexError):
        world.write(lambda ctx: ctx.db.patch(bob, {"email": "ada@example.com"}))
    with pytest.raises(UniqueIndexError):
        world.write(lambda ctx: ctx.db.replace(bob, {"email": "ada@example.com"}))
    with pytest.raises(UniqueIndexError):
        world.write(
            lambda ctx: (ctx.db.patch(bob, {"email": UNSET}), ctx.db.insert("users", {"email": "ada@example.com"}))
        )

    assert emails(world) == ["ada@example.com", "bob@example.com"]


def test_a_document_may_keep_its_own_key(world: Playground) -> None:
    [ada] = world.insert("users", {"email": "ada@example.com"})
    world.write(
        lambda ctx: (ctx.db.patch(ada, {"name": "Ada"}), ctx.db.replace(ada, {"email": "ada@example.com", "n": 1}))
    )

    assert [fields_of(one) for one in world.all("users")] == [{"email": "ada@example.com", "n": 1}]


def test_a_key_is_free_as_soon_as_its_document_let_go_of_it(world: Playground) -> None:
    ada, bob = world.insert("users", {"email": "ada"}, {"email": "bob"})

    def swap(ctx: MutationCtx) -> None:
        ctx.db.patch(ada, {"email": UNSET})
        ctx.db.patch(bob, {"email": "ada"})
        ctx.db.patch(ada, {"email": "bob"})

    world.write(swap)
    assert emails(world) == ["bob", "ada"]

    def rotate(ctx: MutationCtx) -> None:
        ctx.db.delete(bob)
        ctx.db.patch(ada, {"email": "ada"})
        ctx.db.insert("users", {"email": "bob"})

    world.write(rotate)
    assert emails(world) == ["ada", "bob"]


def test_two_new_documents_of_one_mutation_are_compared(world: Playground) -> None:
    with pytest.raises(UniqueIndexError):
        world.insert("users", {"email": "new"}, {"email": "new"})

    assert emails(world) == []


@pytest.mark.parametrize("key", ["m05", "m09", "n00", "n39", "n40"])
def test_in_a_mutation_that_adds_many_rows_in_order_each_is_compared_all_the_same(world: Playground, key: str) -> None:
    world.insert("users", *({"email": f"m{number:02d}", "org": "a", "name": number} for number in range(10)))

    def add_many(ctx: MutationCtx) -> None:
        for number in range(40):
            ctx.db.insert("users", {"email": f"n{number:02d}", "org": "b", "name": number})
        with pytest.raises(UniqueIndexError):
            ctx.db.insert("users", {"email": "z", "org": "a", "name": 3})
        ctx.db.insert("users", {"email": key})

    if key == "n40":
        world.write(add_many)
        assert len(emails(world)) == 51
    else:
        with pytest.raises(UniqueIndexError):
            world.write(add_many)
        assert len(emails(world)) == 10


def test_a_mutation_may_catch_the_refusal_and_go_on(world: Playground) -> None:
    [ada] = world.insert("users", {"email": "ada"})

    def upsert(ctx: MutationCtx) -> str:
        try:
            ctx.db.insert("users", {"email": "ada"})
        except UniqueIndexError:
            ctx.db.patch(ada, {"seen": True})
        return "done"

    assert world.write(upsert) == "done"
    assert [fields_of(one) for one in world.all("users")] == [{"email": "ada", "seen": True}]


def test_a_sub_transaction_that_failed_gives_its_keys_back(world: Playground) -> None:
    def outer(ctx: MutationCtx) -> None:
        def inner(ctx: MutationCtx) -> None:
            ctx.db.insert("users", {"email": "ada"})
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            world.write_inside(ctx, inner)
        ctx.db.insert("users", {"email": "ada"})

    world.write(outer)
    assert emails(world) == ["ada"]
