"""Warnings about what queries and mutations should get from their context."""

from __future__ import annotations

from pathlib import Path

import pytest

from camber.functions import load_application
from tests.functions.conftest import Write

pytestmark = pytest.mark.usefixtures("modules_as_before")

HEAD = "from camber import ActionCtx, MutationCtx, QueryCtx, action, internal_mutation, mutation, query\n"


def warnings(write: Write, text: str) -> list[str]:
    """What is said of a module `tasks.py` with this text."""
    folder = write("shop", {"tasks.py": HEAD + text})
    return [warning.replace(f"{folder}/", "") for warning in load_application(folder).warnings]


def of_body(write: Write, imports: str, body: str, decorator: str = "@query") -> list[str]:
    return warnings(write, f"{imports}\n{decorator}\ndef it(ctx: QueryCtx) -> None:\n    {body}\n")


@pytest.mark.parametrize(
    ("imports", "body", "used", "instead"),
    [
        ("import time", "time.time()", "time.time", "ctx.now (milliseconds)"),
        ("import time as clock", "clock.time_ns()", "time.time_ns", "ctx.now (milliseconds)"),
        ("from time import time", "time()", "time.time", "ctx.now (milliseconds)"),
        ("import datetime", "datetime.datetime.now()", "datetime.datetime.now", "ctx.now (milliseconds)"),
        ("from datetime import datetime", "datetime.now().year", "datetime.datetime.now", "ctx.now (milliseconds)"),
        ("from datetime import date as day", "day.today()", "datetime.date.today", "ctx.now (milliseconds)"),
        ("import random", "random.random()", "random.random", "ctx.random"),
        ("from random import choice", "choice([1])", "random.choice", "ctx.random"),
        ("import secrets", "secrets.token_hex()", "secrets.token_hex", "ctx.token() of a mutation"),
        ("import uuid", "str(uuid.uuid4())", "uuid.uuid4", "ctx.uuid() of a mutation"),
        ("import os", "os.environ['A']", "os.environ", "ctx.env"),
        ("import os", "os.getenv('A')", "os.getenv", "ctx.env"),
        ("", "open('a.txt')", "open", "an action"),
        ("", "import socket; socket.socket()", "socket.socket", "an action"),
        ("import subprocess", "subprocess.run(['x'])", "subprocess.run", "an action"),
        ("import urllib.request", "urllib.request.urlopen('x')", "urllib.request.urlopen", "an action"),
    ],
)
def test_direct_use_is_warned_about_with_its_replacement(
    write: Write, imports: str, body: str, used: str, instead: str
) -> None:
    assert of_body(write, imports, body) == [f"tasks.py:5: it is a query and uses {used}; use {instead} instead."]


@pytest.mark.parametrize(
    ("decorator", "kind"),
    [
        ("@mutation", "mutation"),
        ("@internal_mutation", "mutation"),
        ('@mutation(name="do")', "mutation"),
        ("@mutation.guarded(lambda ctx: None)", "mutation"),
        ("@camber.query", "query"),
        ("admin_query = query.guarded(lambda ctx: None)\n@admin_query", "query"),
    ],
)
def test_every_way_of_declaring_is_seen(write: Write, decorator: str, kind: str) -> None:
    found = of_body(write, "import time, camber", "time.time()", decorator)

    assert len(found) == 1
    assert f"it is a {kind} and uses time.time" in found[0]


def test_each_use_is_told_with_its_line(write: Write) -> None:
    found = of_body(write, "import time, random", "a = time.time()\n    b = time.time() + random.random()")

    assert [warning.partition(":")[2].partition(":")[0] for warning in found] == ["5", "6", "6"]


def test_names_of_the_functions_own_are_no_modules(write: Write) -> None:
    text = """
import random
import secrets

@query
def it(ctx: QueryCtx, *, random: str) -> str:
    requests = []
    requests.append(random.upper())
    secrets = ["a"]
    open = len
    return "".join(requests) + secrets[open(requests) - 1]
"""
    assert warnings(write, text) == []


def test_actions_and_plain_functions_may(write: Write) -> None:
    text = """
import random, time

@action
async def send(ctx: ActionCtx) -> float:
    return time.time()

def helper() -> float:
    return random.random()
"""
    assert warnings(write, text) == []


def test_annotations_are_no_uses(write: Write) -> None:
    text = """
import random

@query
def it(ctx: QueryCtx) -> None:
    chance: random.Random = ctx.random
"""
    assert warnings(write, text) == []


def test_the_crowdfunding_application_has_no_such_habits() -> None:
    folder = Path(__file__).parents[2] / "apps" / "crowdfunding"

    assert load_application(folder).warnings == ()
