"""A mutation that a live client asks for again is the same one for as long as the same person asks for the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from camber import MutationCtx, define_schema, define_table, mutation, v
from camber.backend import Outcome
from camber.errors import RequestError
from camber.identity import ANONYMOUS, OPERATOR, Caller, Identity
from camber.settings import Settings
from camber.testing import Backend
from tests.functions.deployments import UNHURRIED

NOTES = define_table("notes", {"text": v.string()})


@mutation
def add(ctx: MutationCtx, *, text: str) -> int:
    ctx.db.insert(NOTES, {"text": text})
    return ctx.db.query(NOTES).count()


def person(subject: str, **claims: object) -> Caller:
    return Caller(Identity({"issuer": "https://idp.test", "subject": subject, **claims}))


def asked(caller: Caller, then: Caller) -> list[Any]:
    """What two of them get who ask for the first request of the same session, one after the other."""
    settings = Settings(dev=True, **UNHURRIED)
    with Backend.in_memory(define_schema(NOTES), {"notes:add": add}, settings=settings) as backend:

        async def ask(caller: Caller) -> Any:
            done = asyncio.get_running_loop().create_future()
            backend.engine.attach(asyncio.get_running_loop())
            backend.engine.start(
                "notes:add", b'{"text":"a"}', caller, done.set_result, kind="mutation", request_id="r", once=("s", 1)
            )
            answer = await done
            return answer.value if isinstance(answer, Outcome) else answer

        return [asyncio.run(ask(each)) for each in (caller, then)]


@pytest.mark.parametrize(
    ("caller", "then"),
    [
        (person("ada", name="Ada"), person("ada", name="Ada L.", role="admin", updatedAt="today")),
        (ANONYMOUS, Caller(address="127.0.0.1")),
        (OPERATOR, OPERATOR),
    ],
    ids=["with another token", "from another address", "the operator"],
)
def test_the_same_person_is_answered_as_before(caller: Caller, then: Caller) -> None:
    assert asked(caller, then) == [b"1.0", b"1.0"]


@pytest.mark.parametrize(
    ("caller", "then"),
    [(person("ada"), person("bob")), (person("ada"), ANONYMOUS), (ANONYMOUS, OPERATOR)],
    ids=["another", "nobody", "the operator"],
)
def test_somebody_else_is_told_nothing(caller: Caller, then: Caller) -> None:
    first, second = asked(caller, then)

    assert first == b"1.0"
    assert isinstance(second, RequestError)
    assert second.short_code == "RequestIdReused"
