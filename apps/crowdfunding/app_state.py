"""Whether the crowdfunding campaign is running: the one row of `app_state`."""

from __future__ import annotations

from typing import Literal, TypedDict

from camber import ConvexError, MutationCtx, QueryCtx, query

from .access import admin_mutation
from .rate_limits import app_state_change, whole_seconds
from .schema import AppState, app_state

CONFIG_KEY = "config"


class NotSetYet(TypedDict):
    """What holds before the configuration was first written."""

    crowdfundingActive: Literal[False]


@query(name="get")
def get_state(ctx: QueryCtx) -> AppState | NotSetYet:
    """The app-wide configuration; the default where none was ever set."""
    return _config(ctx) or {"crowdfundingActive": False}


@admin_mutation(name="set")
def set_state(ctx: MutationCtx, *, crowdfunding_active: bool) -> None:
    """Create the configuration or update it. For admins, ten times a minute each, and the operator."""
    _limit_changes(ctx)
    if config := _config(ctx):
        ctx.db.patch(config["_id"], {"crowdfundingActive": crowdfunding_active})
    else:
        ctx.db.insert(app_state, {"key": CONFIG_KEY, "crowdfundingActive": crowdfunding_active})


def is_crowdfunding(ctx: QueryCtx) -> bool:
    """Whether new users need a backer's code."""
    config = _config(ctx)
    return config is not None and config["crowdfundingActive"]


def _config(ctx: QueryCtx) -> AppState | None:
    return ctx.db.query(app_state).with_index("by_key", key=CONFIG_KEY).unique()


def _limit_changes(ctx: MutationCtx) -> None:
    identity = ctx.auth.get_user_identity()
    if identity is None:
        return
    attempt = ctx.rate_limit(app_state_change, key=identity.subject)
    if not attempt.ok:
        raise ConvexError(f"Too many changes. Try again in {whole_seconds(attempt.retry_after)} seconds.")
