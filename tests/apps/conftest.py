"""The campaign as the application's tests talk about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apps.crowdfunding.app_state import set_state
from apps.crowdfunding.crowdfunding_backers import add_backer, verify_backer
from apps.crowdfunding.schema import schema
from apps.crowdfunding.tiers import set_tier
from apps.crowdfunding.users import ensure_app_user, get_current_app_user
from camber import MutationCtx, QueryCtx
from camber.functions import load_application
from camber.identity import OPERATOR
from camber.settings import Settings
from camber.testing import Backend, Person

UNHURRIED = Settings(dev=True, mutation_seconds=60, query_seconds=60)
APPLICATION = load_application(Path(__file__).parents[2] / "apps" / "crowdfunding")


def insert_row(ctx: MutationCtx, *, table: str, fields: dict[str, Any]) -> str:
    return ctx.db.insert(table, fields)


def delete_row(ctx: MutationCtx, *, row_id: str) -> None:
    ctx.db.delete(row_id)


def get_row(ctx: QueryCtx, *, row_id: str) -> dict[str, Any] | None:
    return ctx.db.get(row_id)


def all_rows(ctx: QueryCtx, *, table: str) -> list[dict[str, Any]]:
    return ctx.db.query(table).collect()


@pytest.fixture
def backend() -> Iterator[Backend]:
    """The application, and beside it what looks at its tables and changes them as an import or a dashboard would."""
    rows = {"rows:insert": insert_row, "rows:delete": delete_row, "rows:get": get_row, "rows:all": all_rows}
    with Backend.in_memory(schema, {**APPLICATION.functions, **rows}, settings=UNHURRIED) as backend:
        yield backend


@dataclass
class Campaign:
    """A deployment of the application, and the things that happen in a campaign."""

    backend: Backend

    @property
    def now(self) -> float:
        return self.backend.clock.now_ms

    def advances(self, milliseconds: float) -> None:
        self.backend.clock.advance(milliseconds)

    # What the operator does.

    def begins(self) -> None:
        self.backend.run(set_state, crowdfunding_active=True)

    def has_tier(self, name: str, percent_off: float, access_days: float | None = None) -> None:
        access = {} if access_days is None else {"access_days": access_days}
        self.backend.run(set_tier, name=name, percent_off=percent_off, **access)

    def has_backer(self, username: str = "ada", code: str = "ABC123", tier: str = "Gold") -> str:
        """Put a backer on the list; returns the row's id."""
        return self.backend.run(add_backer, username=username, access_code=code, tier=tier)["id"]

    def logs_of(self, path: str, **arguments: object) -> list[str]:
        """What is logged while the operator calls this."""
        return self.backend.engine.run_sync(path, json.dumps(arguments).encode(), OPERATOR).log_lines or []

    # What visitors and users do.

    def verifies(self, username: str = "ada", code: str = "ABC123", address: str = "192.0.2.1") -> dict[str, Any]:
        """What a visitor is told who enters this."""
        visitor = self.backend.from_address(address)
        return dict(visitor.run(verify_backer, username=username, access_code=code))

    def claim(self, username: str = "ada", code: str = "ABC123") -> dict[str, str]:
        """The arguments of a sign-up with this code."""
        answer = self.verifies(username, code)
        assert answer["valid"], answer
        return {"crowdfunding_backer_id": answer["backerId"], "crowdfunding_backer_token": answer["claimToken"]}

    def person(self, email: str = "ada@example.com", **claims: Any) -> Person:
        """Somebody whom the auth service knows, with an address it has verified unless told otherwise."""
        return self.backend.as_user(email=email, **claims)

    def is_admin(self, person: Person) -> bool:
        """Whether somebody who signed up is told to be an admin."""
        user = person.run(get_current_app_user)
        assert user is not None
        return user["isAdmin"]

    def has_user(self, email: str = "ada@example.com", **claims: Any) -> Person:
        """Somebody who signed up without a code; only while no campaign runs."""
        person = self.person(email, **claims)
        person.run(ensure_app_user)
        return person

    # What is stored.

    def insert(self, table: str, **fields: object) -> str:
        """Put a row into a table past the application's functions."""
        return self.backend.run("rows:insert", {"table": table, "fields": fields})

    def delete(self, row_id: str) -> None:
        self.backend.run("rows:delete", {"rowId": row_id})

    def row(self, row_id: str) -> dict[str, Any]:
        return self.backend.run("rows:get", {"rowId": row_id})

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.backend.run("rows:all", {"table": table})


@pytest.fixture
def campaign(backend: Backend) -> Campaign:
    return Campaign(backend)
