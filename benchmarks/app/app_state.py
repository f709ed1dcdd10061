"""The state that all watch, as the crowdfunding application has it, and how often its query has run."""

from __future__ import annotations

from typing import Literal, TypedDict

from camber import ActionCtx, MutationCtx, QueryCtx, action, mutation, query

from .schema import AppState, app_state

_runs: list[None] = []


class NotSetYet(TypedDict):
    """What holds before the state was first written."""

    crowdfundingActive: Literal[False]


@query(name="get")
def get_state(ctx: QueryCtx) -> AppState | NotSetYet:
    """The state; the default where none was ever set."""
    _runs.append(None)  # an effect that no query should have: here it is what is measured
    return ctx.db.query(app_state).with_index("by_key", key="config").unique() or {"crowdfundingActive": False}


@mutation(name="set")
def set_state(ctx: MutationCtx, *, crowdfunding_active: bool) -> None:
    """Create the state or update it."""
    config = ctx.db.query(app_state).with_index("by_key", key="config").unique()
    if config:
        ctx.db.patch(config["_id"], {"crowdfundingActive": crowdfunding_active})
    else:
        ctx.db.insert(app_state, {"key": "config", "crowdfundingActive": crowdfunding_active})


@action
async def runs(_ctx: ActionCtx) -> float:
    """How often the query has run since the server started."""
    return float(len(_runs))
