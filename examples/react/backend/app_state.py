"""Whether the campaign is running: the one row of `app_state`."""

from __future__ import annotations

from typing import Literal, TypedDict

from camber import MutationCtx, QueryCtx, internal_mutation, query

from .schema import AppState, app_state

CONFIG_KEY = "config"


class NotSetYet(TypedDict):
    """What holds before the configuration was first written."""

    crowdfundingActive: Literal[False]


@query(name="get")
def get_state(ctx: QueryCtx) -> AppState | NotSetYet:
    """The configuration; the default where none was ever set."""
    return _config(ctx) or {"crowdfundingActive": False}


@internal_mutation(name="set")
def set_state(ctx: MutationCtx, *, crowdfunding_active: bool) -> None:
    """Create the configuration or update it. Internal: the operator may, with the admin key; no page can."""
    if config := _config(ctx):
        ctx.db.patch(config["_id"], {"crowdfundingActive": crowdfunding_active})
    else:
        ctx.db.insert(app_state, {"key": CONFIG_KEY, "crowdfundingActive": crowdfunding_active})


def is_crowdfunding(ctx: QueryCtx) -> bool:
    """Whether codes can be claimed."""
    return get_state(ctx)["crowdfundingActive"]


def _config(ctx: QueryCtx) -> AppState | None:
    return ctx.db.query(app_state).with_index("by_key", key=CONFIG_KEY).unique()
